"""What a declared study trains: models, and rows that say which of their members they are evaluated with.

A model is a recipe and how many members of it are needed; rows with the same recipe share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from pydantic import JsonValue

from committee.config import recipe_parsing as recipes
from committee.config.recipe import Recipe
from committee.config.renames import Table
from committee.config.study import Row, Study
from committee.errors import RecipeError


@dataclass(frozen=True)
class Model:
    """A recipe to train `members` times; `teacher` is the row whose committee labels images for it, or None."""

    name: str
    recipe: Recipe
    members: int
    teacher: str | None


@dataclass(frozen=True)
class PlannedRow:
    """A row with its place: the model whose members it is evaluated with, in how many repeats of how many members."""

    row: Row
    model: str
    members: int
    seeds: int
    compare_with: str | None
    cell: tuple[JsonValue, ...] | None = None  # the values of a grid's cell

    def repeats(self) -> list[range]:
        """The members of each repeat."""
        return [range(start, start + self.members) for start in range(0, self.seeds * self.members, self.members)]


@dataclass(frozen=True)
class Plan:
    """What a study trains and how it is read."""

    study: Study
    models: tuple[Model, ...]
    rows: tuple[PlannedRow, ...]


def plan(
    study: Study,
    *,
    seeds: int | None = None,
    quick: bool = False,
    holdout: Table | None = None,
    transductive: bool = False,
) -> Plan:
    """The recipes of all rows and cells, and the models that they need.

    Args:
        study: as declared.
        seeds: repeats of every row, instead of what the study says.
        quick: the quick form.
        holdout: a hold-out that replaces every recipe's, for the published protocol.
        transductive: pseudo-labels are for the test images; models trained with them are named so.

    Raises:
        RecipeError: a row's recipe has faults.
    """
    contents: dict[str, Table] = {}
    rows: list[PlannedRow] = []
    models: dict[str, Model] = {}
    before: str | None = None
    for row, cell in [*((row, None) for row in study.rows), *cells(study)]:
        content = merged(contents[row.extends] if row.extends else study.base, row.recipe)
        content = merged(content, row.quick) if quick else content
        contents[row.name] = content
        replaced: Table = {"holdout": dict(holdout)} if holdout else {}
        named = {"name": row.name, "summary": row.change, **content, **replaced}
        where = f"row {row.name} of study {study.name}"
        if study.grid and cell is not None:
            values = zip(study.grid.axes, cell, strict=True)
            where = "the cell " + ", ".join(f"{field}={value}" for field, value in values)
        recipe = recipes.parse(named, where)
        check_pseudo_labels(row, recipe)
        members = min(row.members, study.quick.members) if quick else row.members
        repeats = seeds or (min(row.seeds or study.seeds, study.quick.seeds) if quick else row.seeds or study.seeds)
        model = next(
            (m for m in models.values() if same_training(m.recipe, recipe) and m.teacher == row.teacher),
            Model(row.name + "-transductive" * (transductive and bool(row.teacher)), recipe, 0, row.teacher),
        )
        models[model.name] = replace(model, members=max(model.members, members * repeats))
        compare_with = row.compare_with or row.extends or before
        rows.append(PlannedRow(row, model.name, members, repeats, compare_with, cell))
        before = None if cell else row.name
    # the row of a single network takes every member that a committee of the same recipe needs anyway
    whole = [r if r.members > 1 else replace(r, seeds=models[r.model].members) for r in rows]
    return Plan(study, tuple(models.values()), tuple(whole))


def check_pseudo_labels(row: Row, recipe: Recipe) -> None:
    """Refuse a row whose pseudo-labels could not be audited.

    Raises:
        RecipeError: settings of pseudo-labels without a teacher, or members that hold out other images than each other,
            so that the teacher would have trained on audit images.
    """
    if "pseudo_labels" in row.recipe and row.teacher is None:
        raise RecipeError(
            f"row {row.name} has settings of pseudo_labels, but no teacher; name the row whose committee gives the "
            "labels"
        )
    if row.teacher is not None and recipe.holdout.kind not in ("shared", "last"):
        raise RecipeError(
            f"row {row.name} has a teacher, which needs a hold-out that all members share, but holdout.kind is "
            f'{recipe.holdout.kind!r}; set holdout = {{ kind = "shared" }} in the study\'s base'
        )


def cells(study: Study) -> list[tuple[Row, tuple[JsonValue, ...]]]:
    """A row for every combination of the grid's values."""
    if study.grid is None:
        return []
    found = []
    for values in product(*study.grid.axes.values()):
        changes: dict[str, Table] = {}
        for field, value in zip(study.grid.axes, values, strict=True):
            section, _, name = field.partition(".")
            changes.setdefault(section, {})[name] = value
        spelled = ", ".join(map(str, values))
        name = "cell-" + "".join(
            c if c.isalnum() else "-" for c in spelled.lower().replace(", ", "-").replace(".", "p")
        )
        published = study.grid.published.get(spelled)
        recipe: Table = {section: dict(fields) for section, fields in changes.items()}
        found.append((Row(name=name, change=spelled, recipe=recipe, published=published), values))
    return found


def same_training(a: Recipe, b: Recipe) -> bool:
    """Whether two recipes train the same members; how a committee is formed does not count."""
    return trained_content(a) == trained_content(b)


def trained_content(recipe: Recipe) -> Table:
    """What of a recipe decides its members."""
    return {name: value for name, value in recipe.content().items() if name != "committee"}


def merged(content: Mapping[str, JsonValue], changes: Mapping[str, JsonValue]) -> Table:
    """The content with changed fields; sections are merged field by field, everything else is replaced."""
    result = dict(content)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return result


def row_named(rows: Sequence[PlannedRow], name: str) -> PlannedRow:
    """The planned row of that name."""
    return next(row for row in rows if row.row.name == name)
