"""Studies as data: which recipes stand beside each other, what each changes, what was published.

A study is a TOML file. `base` holds a recipe's sections; every rung changes it, or another rung's recipe (`on`). A rung
of one member is repeated by training several; a rung of several members is a committee. `plan` turns the declaration
into models to train (a model is a recipe and how many members of it are needed; rungs with the same recipe share them)
and rungs that say which members they are judged by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from committee.config import recipe_parsing as recipes
from committee.config import toml_files
from committee.config.recipe import Recipe
from committee.errors import RecipeError, nearest


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rung(_Part):
    """One row of a study.

    Attributes:
        name: for folders and for other rungs to refer to.
        change: what is different from the rung that it is compared with, in words.
        on: the rung whose recipe is changed; without it the study's base is.
        recipe: sections and fields that change; a list takes the place of a list.
        members: 1 for a single network, more for a committee.
        seeds: how often it is repeated, instead of the study's number.
        against: the rung that it is compared with; without it `on`, else the one before.
        labelled_by: the rung whose committee gives pseudo-labels to this one's unlabelled images.
        published: test accuracy as published; published_members: lowest and highest of its members.
        published_parameters: trainable parameters as published.
        remark: what a reader should know about the published row.
        quick: further changes in the quick form.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    change: str
    on: str | None = None
    recipe: dict[str, Any] = {}
    members: int = Field(default=1, gt=0)
    seeds: int | None = Field(default=None, gt=0)
    against: str | None = None
    labelled_by: str | None = None
    published: float | None = Field(default=None, ge=0, le=1)
    published_members: tuple[float, float] | None = None
    published_parameters: int | None = None
    remark: str = ""
    quick: dict[str, Any] = {}


class Grid(_Part):
    """Every combination of recipe fields; the best cell is chosen by validation accuracy.

    Attributes:
        axes: values by field, such as ``"optimiser.rate" = [0.01, 0.001]``.
        published: test accuracy by the cell's values as they are written, joined by ", ".
    """

    axes: dict[str, tuple[Any, ...]]
    published: dict[str, float] = {}
    remark: str = ""

    @model_validator(mode="after")
    def _fields(self) -> Grid:
        for field, values in self.axes.items():
            if "." not in field or not values:
                raise ValueError(f"an axis is section.field with one value or more; got {field!r} = {list(values)}")
            if len({str(value) for value in values}) < len(values):
                raise ValueError(f"the axis {field} has a value twice: {', '.join(map(str, values))}")
        return self


class Quick(_Part):
    """The quick form: at most this many training images, repeats, and members a committee."""

    images: int = Field(default=4000, gt=0)
    seeds: int = Field(default=3, gt=0)
    members: int = Field(default=3, gt=0)


class Study(_Part):
    """A declared study.

    Attributes:
        published_protocol: what the published figures did: "validation" (a part of the training images was held out,
            as here), or "test_as_validation" (choices were made by the test images); "" where nothing was published.
        published_data: the data set of the published figures, by its name here.
        seeds: repeats of every rung that says nothing else.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    summary: str
    published_protocol: Literal["", "validation", "test_as_validation"] = ""
    published_data: str = ""
    seeds: int = Field(default=3, gt=0)
    base: dict[str, Any] = {}
    rungs: tuple[Rung, ...] = ()
    grid: Grid | None = None
    quick: Quick = Quick()

    @model_validator(mode="after")
    def _references(self) -> Study:
        names = [rung.name for rung in self.rungs]
        if len(set(names)) < len(names):
            raise ValueError("two rungs have the same name; give each its own")
        if not self.rungs and not self.grid:
            raise ValueError("there is nothing to train; give [[rungs]] or a [grid]")
        for number, rung in enumerate(self.rungs):
            for field in ("on", "against", "labelled_by"):
                other = getattr(rung, field)
                if other is not None and other not in names[:number]:
                    raise ValueError(f"rung {rung.name}: {field} must be a rung before it; got {other!r}")
        return self


# --- the plan ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A recipe to train `members` times.

    `labelled_by` is the rung whose committee labels images for it, or None.
    """

    name: str
    recipe: Recipe
    members: int
    labelled_by: str | None


@dataclass(frozen=True)
class PlannedRung:
    """A rung with its place: the model whose members it is judged by, in how many repeats of how many members."""

    rung: Rung
    model: str
    members: int
    seeds: int
    against: str | None
    cell: tuple[Any, ...] | None = None  # the values of a grid's cell

    def repeats(self) -> list[range]:
        """The members of each repeat."""
        return [range(start, start + self.members) for start in range(0, self.seeds * self.members, self.members)]


@dataclass(frozen=True)
class Plan:
    """What a study trains and how it is read."""

    study: Study
    models: tuple[Model, ...]
    rungs: tuple[PlannedRung, ...]


def plan(
    study: Study,
    *,
    seeds: int | None = None,
    quick: bool = False,
    holdout: Mapping[str, Any] | None = None,
    transductive: bool = False,
) -> Plan:
    """Recipes of all rungs and cells, and the models that they need.

    Args:
        study: as declared.
        seeds: repeats of every rung, instead of what the study says.
        quick: the quick form.
        holdout: a hold-out that takes the place of every recipe's, for the published protocol.
        transductive: pseudo-labels are for the test images; models trained with them are named so.

    Raises:
        RecipeError: a rung's recipe has faults.
    """
    contents: dict[str, dict[str, Any]] = {}
    rungs: list[PlannedRung] = []
    models: dict[str, Model] = {}
    before: str | None = None
    for rung, cell in [*((rung, None) for rung in study.rungs), *cells(study)]:
        content = merged(contents[rung.on] if rung.on else study.base, rung.recipe)
        content = merged(content, rung.quick) if quick else content
        contents[rung.name] = content
        replaced = {"holdout": dict(holdout)} if holdout else {}
        named = {"name": rung.name, "summary": rung.change, **content, **replaced}
        where = f"rung {rung.name} of study {study.name}"
        if study.grid and cell is not None:
            where = "the cell " + ", ".join(
                f"{field}={value}" for field, value in zip(study.grid.axes, cell, strict=True)
            )
        recipe = recipes.parse(named, where)
        check_pseudo_labels(rung, recipe)
        members = min(rung.members, study.quick.members) if quick else rung.members
        repeats = seeds or (min(rung.seeds or study.seeds, study.quick.seeds) if quick else rung.seeds or study.seeds)
        model = next(
            (m for m in models.values() if same_training(m.recipe, recipe) and m.labelled_by == rung.labelled_by),
            Model(rung.name + "-transductive" * (transductive and bool(rung.labelled_by)), recipe, 0, rung.labelled_by),
        )
        models[model.name] = replace(model, members=max(model.members, members * repeats))
        rungs.append(PlannedRung(rung, model.name, members, repeats, rung.against or rung.on or before, cell))
        before = None if cell else rung.name
    # a single network's row takes every member that a committee of the same recipe needs anyway
    whole = [r if r.members > 1 else replace(r, seeds=models[r.model].members) for r in rungs]
    return Plan(study, tuple(models.values()), tuple(whole))


def check_pseudo_labels(rung: Rung, recipe: Recipe) -> None:
    """Whether a rung with pseudo-labels can be audited.

    Raises:
        RecipeError: settings of pseudo-labels without a rung that gives them, or members that hold out other images
            than each other, so that those who label would have trained on audit images.
    """
    if "pseudo_labels" in rung.recipe and rung.labelled_by is None:
        raise RecipeError(
            f"rung {rung.name} has settings of pseudo_labels, but no labelled_by; name the rung whose committee labels"
        )
    if rung.labelled_by is not None and recipe.holdout.kind not in ("shared", "last"):
        raise RecipeError(
            f"rung {rung.name} has labelled_by, but holdout.kind is {recipe.holdout.kind!r}: members would have "
            'trained on images that audit them; set holdout = { kind = "shared" } in the study\'s base'
        )


def cells(study: Study) -> list[tuple[Rung, tuple[Any, ...]]]:
    """A rung for every combination of the grid's values."""
    if study.grid is None:
        return []
    found = []
    for values in product(*study.grid.axes.values()):
        changes: dict[str, dict[str, Any]] = {}
        for field, value in zip(study.grid.axes, values, strict=True):
            section, _, name = field.partition(".")
            changes.setdefault(section, {})[name] = value
        spelled = ", ".join(map(str, values))
        name = "cell-" + "".join(
            c if c.isalnum() else "-" for c in spelled.lower().replace(", ", "-").replace(".", "p")
        )
        published = study.grid.published.get(spelled)
        found.append((Rung(name=name, change=spelled, recipe=changes, published=published), values))
    return found


def same_training(a: Recipe, b: Recipe) -> bool:
    """Whether two recipes train the same members; how a committee is formed does not count."""
    return trained_content(a) == trained_content(b)


def trained_content(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides its members."""
    return {name: value for name, value in recipe.content().items() if name != "committee"}


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content with changed fields; sections are merged field by field, everything else is replaced."""
    result = dict(content)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return result


# --- reading ----------------------------------------------------------------------------------------------------------


def load(name_or_path: str) -> Study:
    """A shipped study by name, or a TOML file by path.

    Raises:
        RecipeError: no such study, not TOML, or faults in it.
    """
    return parse(*toml_files.content_of("study", name_or_path))


def parse(content: Mapping[str, Any], where: str = "study") -> Study:
    """A study from nested dictionaries.

    Raises:
        RecipeError: faults, all at once.
    """
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        faults = [fault_in_words(fault) for fault in error.errors()]
        number = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise RecipeError(f"{where} has {number}: {'; '.join(faults)}") from None


def fault_in_words(fault: Any) -> str:
    """One fault of a study: where, what was expected, what was got."""
    place = ".".join(map(str, fault["loc"])) or "the study"
    if fault["type"] == "extra_forbidden":
        section = next((part for part in fault["loc"] if part in ("rungs", "grid", "quick")), "")
        parts: dict[str, type[BaseModel]] = {"rungs": Rung, "grid": Grid, "quick": Quick}
        known = list(parts.get(section, Study).model_fields)
        return f"{place} is unknown{nearest(str(fault['loc'][-1]), known)}; there are {', '.join(known)}"
    if fault["type"] == "missing":
        return f"{place} is missing"
    if fault["type"] == "string_pattern_mismatch":
        return f"{place}: expected small letters, digits and hyphens, got {fault['input']!r}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" + ("" if fault["type"] == "value_error" else f", got {fault['input']!r}")


def rung_named(rungs: Sequence[PlannedRung], name: str) -> PlannedRung:
    """The planned rung of that name."""
    return next(rung for rung in rungs if rung.rung.name == name)
