"""Names that recipe and study fields had up to version 0.4: still accepted, with a note, and what digests are made of.

A digest says that two recipes train the same members. It is computed over the names of 0.4, so that it stays what it
was when a field gets a better name: `to_digest_names` turns today's names into those. `to_current_names` goes the other
way; it reads recipes, studies and run folders written for 0.4.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import JsonValue

Table = dict[str, JsonValue]  # a TOML table


class RenamedFieldNote(UserWarning):
    """A field was given by its name of version 0.4; the command line prints this as a note."""


class Renamed(NamedTuple):
    """A field's name in 0.4 and today's, and those of its values that are called otherwise, too."""

    old: str
    new: str
    values: Mapping[str, str] = {}


SECTIONS: dict[str, tuple[Renamed, ...]] = {
    "network": (Renamed("stem", "stem", {"drawn": "random"}),),
    "training": (
        Renamed("batch", "batch_size"),
        Renamed(
            "keep",
            "checkpoint",
            {"best_held_out_accuracy": "best_validation_accuracy", "best_held_out_loss": "best_validation_loss"},
        ),
    ),
    "optimiser": (Renamed("rate", "lr"), Renamed("other_rate", "adamw_lr_factor")),
    "schedule": (
        Renamed("warm_up", "warmup"),
        Renamed("watch", "monitor", {"held_out_accuracy": "validation_accuracy", "held_out_loss": "validation_loss"}),
        Renamed("floor", "min_lr"),
    ),
    "augmentation": (Renamed("plain_epochs", "no_aug_epochs"),),
    "holdout": (Renamed("draw", "seed"),),
    "committee": (Renamed("views", "tta", {"plain": "none", "mirror": "horizontal_flip"}),),
    "pseudo_labels": (
        Renamed("share", "batch_fraction"),
        Renamed("accept", "accept", {"best_share": "top_fraction"}),
        Renamed("best_share", "top_fraction"),
        Renamed("audit", "audit_fraction"),
        Renamed("precision_limit", "min_precision"),
    ),
}
STAGE = (Renamed("rate", "lr"), Renamed("batch", "batch_size"), Renamed("augmented", "augment"))  # schedule.stages
STUDY = (Renamed("rungs", "rows"),)
ROW = (Renamed("on", "extends"), Renamed("against", "compare_with"), Renamed("labelled_by", "teacher"))


def to_current_names(recipe: Mapping[str, JsonValue], where: str, *, note: bool = True) -> Table:
    """A recipe's sections, or a part of them, with today's names.

    Args:
        recipe: sections as TOML tables; anything else in it stays as it is.
        where: what it is, for the note.
        note: whether old names are worth a `RenamedFieldNote`; not in folders that an earlier version wrote.
    """
    found: list[str] = []
    result: Table = {}
    for section, content in recipe.items():
        if not isinstance(content, dict):
            result[section] = content
            continue
        result[section] = changed = _current(content, SECTIONS.get(section, ()), f"{section}.", found)
        stages = changed.get("stages")
        if section == "schedule" and isinstance(stages, list):
            changed["stages"] = [
                _current(stage, STAGE, "schedule.stages: ", found) if isinstance(stage, dict) else stage
                for stage in stages
            ]
    if note:
        tell(found, where)
    return result


def study_to_current_names(study: Mapping[str, JsonValue], where: str, *, note: bool = True) -> Table:
    """A declared study with today's names, the recipes inside it included; the arguments are those of
    `to_current_names`.
    """
    found: list[str] = []
    result = _current(study, STUDY, "", found)
    if isinstance(base := result.get("base"), dict):
        result["base"] = to_current_names(base, where, note=note)
    if isinstance(rows := result.get("rows"), list):
        result["rows"] = [_row(row, where, found, note=note) if isinstance(row, dict) else row for row in rows]
    grid = result.get("grid")
    if isinstance(grid, dict) and isinstance(axes := grid.get("axes"), dict):
        result["grid"] = {**grid, "axes": {_axis(field, found): values for field, values in axes.items()}}
    if note:
        tell(found, where)
    return result


def current_field(section: str, field: str, value: JsonValue, where: str) -> tuple[str, JsonValue]:
    """One field of a recipe by its name of today, such as ``"lr"`` for ``optimiser`` and ``"rate"``."""
    content = to_current_names({section: {field: value}}, where)[section]
    assert isinstance(content, dict)
    return next(iter(content.items()))


def to_digest_names(recipe: Mapping[str, JsonValue]) -> Table:
    """A recipe's sections with the names of 0.4, which digests are computed over."""
    result: Table = {}
    for section, content in recipe.items():
        result[section] = content
        if isinstance(content, dict):
            result[section] = changed = _named_as_then(content, SECTIONS.get(section, ()))
            if section == "schedule" and isinstance(stages := changed.get("stages"), list):
                changed["stages"] = [_named_as_then(stage, STAGE) for stage in stages if isinstance(stage, dict)]
    return result


def tell(found: list[str], where: str) -> None:
    """Warn of fields that were given by an old name; nothing where there are none."""
    if found:
        warnings.warn(f"{where}: {'; '.join(found)}", RenamedFieldNote, stacklevel=2)


def _row(row: Mapping[str, JsonValue], where: str, found: list[str], *, note: bool) -> Table:
    result = _current(row, ROW, "rows: ", found)
    for part in ("recipe", "quick"):
        if isinstance(content := result.get(part), dict):
            result[part] = to_current_names(content, where, note=note)
    return result


def _axis(field: str, found: list[str]) -> str:
    section, _, name = field.partition(".")
    return f"{section}.{next(iter(_current({name: None}, SECTIONS.get(section, ()), f'{section}.', found)))}"


def _current(content: Mapping[str, JsonValue], renamed: tuple[Renamed, ...], place: str, found: list[str]) -> Table:
    """Fields by their names of today, in their order; what was called otherwise is added to `found`."""
    by_old = {each.old: each for each in renamed}
    result: Table = {}
    for name, value in content.items():
        each = by_old.get(name)
        if each is None:
            result[name] = value
            continue
        new_value = each.values.get(value, value) if isinstance(value, str) else value
        if (each.new, new_value) != (name, value):
            old, new = (name, each.new) if each.new != name else (f"{name} = {value}", f"{name} = {new_value}")
            found.append(f"{place}{old} is now called {new}")
        result[each.new] = new_value
    return result


def _named_as_then(content: Mapping[str, JsonValue], renamed: tuple[Renamed, ...]) -> Table:
    by_new = {each.new: each for each in renamed}
    result: Table = {}
    for name, value in content.items():
        each = by_new.get(name)
        was = {new: old for old, new in each.values.items()} if each else {}
        result[each.old if each else name] = was.get(value, value) if isinstance(value, str) else value
    return result
