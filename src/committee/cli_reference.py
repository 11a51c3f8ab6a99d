"""docs/cli.md from the command line's own help: `make docs`; a test compares the two."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from committee.cli import main


def pages(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    """Every command below this one, with its help text, in the order of the help."""
    context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from pages(below, f"{path} {name}")


def reference() -> str:
    """The whole reference as Markdown."""
    parts = ["# Command line\n\nGenerated from `--help` by `make docs`.\n"]
    parts += [f"## {path}\n\n```\n{text}\n```\n" for path, text in pages(main, "committee")]
    return "\n".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
