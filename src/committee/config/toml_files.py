"""Recipes, studies and search spaces as TOML files: the shipped ones by name, a user's own by path."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Literal

from committee.config.renames import Table
from committee.errors import RecipeError, nearest

Kind = Literal["recipe", "study", "space"]
FOLDERS: dict[Kind, str] = {"recipe": "recipes", "study": "studies", "space": "spaces"}


def shipped(kind: Kind) -> list[str]:
    """The names of the recipes, studies or spaces that come with the package."""
    folder = resources.files("committee.config") / FOLDERS[kind]
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def text_of(kind: Kind, name_or_path: str) -> tuple[str, str]:
    """The file's text, comments included, and what to call it in messages, such as "recipe standard".

    Raises:
        RecipeError: there is none of this name, and no TOML file at this path.
    """
    names = shipped(kind)
    if name_or_path in names:
        text = (resources.files("committee.config") / FOLDERS[kind] / f"{name_or_path}.toml").read_text(
            encoding="utf-8"
        )
        return text, f"{kind} {name_or_path}"
    if (path := Path(name_or_path)).suffix == ".toml" and path.is_file():
        return path.read_text(encoding="utf-8"), f"{kind} {path}"
    raise RecipeError(
        f"there is no {kind} {name_or_path!r}{nearest(name_or_path, names)}; give one of {', '.join(names)}, or the "
        "path of a TOML file"
    )


def content_of(kind: Kind, name_or_path: str) -> tuple[Table, str]:
    """The file's content as nested TOML tables, and what to call it in messages.

    Raises:
        RecipeError: there is none of this name, or it is not TOML.
    """
    text, where = text_of(kind, name_or_path)
    try:
        return tomllib.loads(text), where
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where} is not valid TOML: {error}; correct it there") from error
