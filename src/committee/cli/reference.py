"""docs/cli.md from the command line's own help, docs/recipes.md from the types of recipes and studies: `make docs`.

A test compares both with what is stored.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from committee.cli.ends import EXIT_CODES
from committee.cli.main import main
from committee.config import recipe, recipe_parsing
from committee.config import study as studies


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
    """The command line as Markdown."""
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    parts = [
        "# Command line\n\nGenerated from `--help` by `make docs`.\n",
        f"| exit code | |\n|---|---|\n{codes}",
    ]
    parts += [f"## {path}\n\n```\n{text}\n```\n" for path, text in pages(main, "committee")]
    return "\n".join(parts)


def file_reference() -> str:
    """Every field of a recipe and of a study as Markdown."""
    layers = {layer.model_fields["type"].default: layer for layer in get_args(get_args(recipe.Layer)[0])}
    parts = [
        "# Recipes and studies\n\nGenerated from the program's own types by `make docs`. Both are TOML files; "
        "`committee recipes show NAME --complete` and `committee studies show NAME` print examples, "
        "`committee recipes check FILE` and `committee studies check FILE` look for faults.\n",
        "## A recipe\n\n`name`, `summary`, and these sections; what is left out takes its default.\n",
        *(table(f"[{name}]", model) for name, model in recipe_parsing.sections().items()),
        table("schedule.stages = [{ ... }, ...]", recipe.Stage),
        '## Layers\n\nIn `network.layers = [{ type = "...", ... }, ...]`.\n',
        *(table(name, layer) for name, layer in layers.items()),
        "## A study\n\n`[base]` holds a recipe's sections; a row's `recipe` holds what it changes of them.\n",
        table("the file", studies.Study),
        table("[[rows]]", studies.Row),
        table("[grid]", studies.Grid),
        table("[quick]", studies.Quick),
    ]
    return "\n".join(parts)


def table(title: str, model: Any) -> str:
    """A section: what it is, and its fields with values, defaults and meanings."""
    text, _, attributes = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")
    meanings = dict(re.findall(r"(\w+): (.+?)(?=; \w+: |\n    \w+: |\Z)", attributes, re.DOTALL))
    lines = [f"### `{title}`\n", text.strip() + "\n", "| field | values | default | |"]
    lines.append("|---|---|---|---|")
    for name, field in model.model_fields.items():
        default = "needed" if field.default is PydanticUndefined else spelled(field.default)
        meaning = field.description or " ".join(meanings.get(name, "").split()).removesuffix(".")
        lines.append(f"| `{name}` | {values(field.annotation)}{limits(field.metadata)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def values(annotation: Any) -> str:
    """What a field takes, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner if value != "")
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(values(each) for each in inner if each is not NoneType))
    if origin is tuple:
        return f"list ({values(inner[0])})"
    if origin is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section" if origin is None else "list"
    plain = {int: "whole number", float: "number", str: "text", bool: "true, false"}
    if annotation in plain:
        return plain[annotation]
    return values(inner[0]) if inner else "any"


def limits(metadata: Any) -> str:
    """What a number is bounded by, in words: ", over 0, at most 1"."""
    words = {"ge": "at least", "gt": "over", "le": "at most", "lt": "under"}
    found = [(words[name], getattr(each, name)) for each in metadata for name in words if hasattr(each, name)]
    return "".join(f", {word} {limit}" for word, limit in found)


def spelled(value: Any) -> str:
    """A default as TOML would have it."""
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None or value in ("", (), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "cli.md").write_text(reference(), encoding="utf-8")
    (folder / "recipes.md").write_text(file_reference(), encoding="utf-8")
