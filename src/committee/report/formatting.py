"""Settings and names as people read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from committee.config.recipe import Recipe
from committee.config.record import Record
from committee.metrics.formatting import NOTHING
from committee.names import visible

Fields = tuple[tuple[str, str], ...]
"""Names and values of a list of fields."""


@dataclass(frozen=True)
class Settings:
    """A titled list of settings."""

    title: str
    fields: Fields


def settings(recipe: Recipe) -> tuple[Settings, ...]:
    """A recipe for people, a list for each of its sections, with the names that --set takes.

    The citation has a place of its own on the page.
    """
    plain = {name: value for name, value in recipe if not isinstance(value, Record) and name != "citation"}
    sections = [
        Settings(section, tuple((name, spell(value)) for name, value in content.model_dump(mode="json").items()))
        for section, content in recipe
        if isinstance(content, Record)
    ]
    return (Settings("recipe", tuple((name, spell(value)) for name, value in plain.items())), *sections)


def fields(record: Record) -> Fields:
    """The fields of a record with their values, for people; a field that is None is left out."""
    values = record.model_dump(mode="json", exclude_none=True)
    return tuple((words(name), spell(value)) for name, value in values.items())


def spell(value: Any) -> str:
    """A setting in words: lists with commas, layers by their type and their fields."""
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


def spell_share(value: float) -> str:
    """A share as a percentage without superfluous digits."""
    return f"{100 * value:.3g}\u00a0%"


def shown_command(command: str) -> str:
    """A command as it is worth repeating: without --json, which only changes what is printed."""
    return re.sub(r"('[^']*')|\s--json(?=\s|$)", lambda found: found[1] or "", command)  # not inside quotes


def short(name: str, width: int = 18) -> str:
    """A name cut with an ellipsis; the page shows the whole name as a tooltip."""
    name = visible(name)
    return name if len(name) <= width else name[: width - 1].rstrip() + "…"


def words(name: str) -> str:
    """The name of a field as words."""
    return name.replace("_", " ")
