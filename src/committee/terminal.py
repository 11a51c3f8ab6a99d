"""The only place that writes on the terminal: names from data are text there, never markup and never escape codes.

A linter rule in pyproject.toml keeps `click.echo`, `print`, and rich's `Console` and `Text` out of all other modules.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from committee.names import visible

if TYPE_CHECKING:
    from rich.console import Console  # noqa: TID251
    from rich.text import Text  # noqa: TID251


def say(*lines: object, err: bool = False) -> None:
    """Print lines; one argument is one line, whatever names are in it.

    Args:
        lines: each is shown as text, with its hidden characters `visible`.
        err: whether on standard error.
    """
    click.echo("\n".join(visible(str(line)) for line in lines), err=err)  # noqa: TID251


def show(text: str) -> None:
    """Put a file's text on standard output: as it is into a file or a pipe, with escapes `visible` on a screen."""
    click.echo(visible(text, lines=True) if sys.stdout.isatty() else text, nl=False)  # noqa: TID251


def plain(*lines: str, style: str = "") -> Text:
    """Lines for rich, in a table's cell or alone, in which nothing is markup; one argument is one line."""
    from rich.text import Text  # noqa: TID251

    return Text("\n".join(map(visible, lines)), style)


def console(*, err: bool = False, width: int | None = None) -> Console:
    """Rich's console, on which a string is never markup; what holds names goes there as `plain`."""
    from rich.console import Console  # noqa: TID251

    return Console(stderr=err, width=width, markup=False, emoji=False, highlight=False)
