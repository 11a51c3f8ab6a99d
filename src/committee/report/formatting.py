"""Settings, durations and names as people read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from committee.metrics.formatting import NOTHING


def settings(recipe: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """A recipe as titled lists of names and values for people."""
    plain = [(words(name), spell(value)) for name, value in recipe.items() if not isinstance(value, Mapping)]
    sections = [
        (words(name), [(words(field), spell(each)) for field, each in value.items()])
        for name, value in recipe.items()
        if isinstance(value, Mapping)
    ]
    return [("recipe", plain)] * bool(plain) + sections


def spell(value: Any) -> str:
    """A setting in words: lists with commas, layers by their type and what they state."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        kind = [str(value["type"])] if "type" in value else []
        return " ".join(kind + [f"{name}={spell(each)}" for name, each in value.items() if name != "type"])
    if isinstance(value, (list, tuple)):
        nested = any(isinstance(each, Mapping) for each in value)
        return (" · " if nested else ", ").join(map(spell, value)) or NOTHING
    return NOTHING if value is None or value == "" else str(value)


def spell_share(value: float | None) -> str:
    """A share as a whole percentage."""
    return "a part" if value is None else f"{100 * value:.3g}\u00a0%"


def shown_command(command: str) -> str:
    """A command as it is worth repeating: without the option that only changes what is printed."""
    return re.sub(r"\s--json(?=\s|$)", "", command)


def short(name: str, width: int = 18) -> str:
    """A name cut with an ellipsis; the page shows the whole one as a tooltip."""
    return name if len(name) <= width else name[: width - 1].rstrip() + "…"


def words(name: str) -> str:
    """The name of a field as words."""
    return name.replace("_", " ")
