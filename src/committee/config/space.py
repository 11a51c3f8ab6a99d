"""Search spaces as data: which fields of a recipe are tuned, and among which values.

A space is a TOML file. What it says is relative to a starting recipe, so that one file serves many recipes and data
sets: `resolved` turns it into parameters with numbers, and `changed` makes a recipe of a parameter's values.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import Field, JsonValue, ValidationError, model_validator

from committee.config import recipe_parsing, toml_files
from committee.config.recipe import Recipe
from committee.config.record import Record
from committee.config.renames import Table
from committee.errors import RecipeError, counted, nearest

WIDTHS = (16, 32, 48, 64, 96, 128)
"""Channels for which there are kernels; a scaled width is the nearest of them, or a multiple of the last one's half."""

WIDTH, EPOCHS = "network.width", "training.epochs"
START = "as it is"

Value = float | int | str
Values = Mapping[str, Value]


class SpaceField(Record):
    """One thing that is tuned: exactly one of `values`, `choices` and `range`.

    Attributes:
        values: of the recipe's field that the entry is named after. `network.width` is a factor on all widths.
        choices: by name, several fields changed together.
        range: lowest and highest value of the recipe's field that the entry is named after.
        scale: on which values of a range are drawn evenly.
        of: what a range multiplies: nothing; the starting recipe's value; the shorter side of an image in pixels; the
            epochs that the training cost allows (for `training.epochs` alone).
        needs: without classes that differ in size, or a backbone, the entry is left out.
    """

    values: tuple[JsonValue, ...] = ()
    choices: dict[str, Table] = Field(default_factory=dict)
    range: tuple[float, float] | None = None
    scale: Literal["linear", "log"] = "linear"
    of: Literal["nothing", "start", "side", "cost"] = "nothing"
    needs: Literal["nothing", "imbalance", "backbone"] = "nothing"

    @model_validator(mode="after")
    def _one_kind(self) -> SpaceField:
        if bool(self.values) + bool(self.choices) + (self.range is not None) != 1:
            raise ValueError("give exactly one of values, choices and range")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError(f"a range is [lowest, highest]; got {list(self.range)}")
        if self.range and self.scale == "log" and self.range[0] <= 0:
            raise ValueError(f"a range on a logarithmic scale begins above 0; got {list(self.range)}")
        return self


class Space(Record):
    """A declared search space."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    summary: str = ""
    fields: dict[str, SpaceField] = Field(min_length=1)


class Surroundings(NamedTuple):
    """What of a data set a space depends on.

    Attributes:
        side: the shorter side of an image, pixels.
        imbalanced: whether classes differ in size by more than a half.
    """

    side: int
    imbalanced: bool


@dataclass(frozen=True)
class Parameter:
    """One thing that is tuned, in numbers.

    Attributes:
        name: of the space's entry.
        start: the value that stands for the starting recipe.
        low, high: of a number; whole numbers where `whole`.
        log: whether numbers are drawn evenly on a logarithmic scale.
        choices: the names of the values, where it is no number.
        changes: for each choice the fields that it sets.
    """

    name: str
    start: Value
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()
    changes: Mapping[str, Table] | None = None


def load(name_or_path: str) -> Space:
    """A shipped space by name, or a TOML file by path.

    Raises:
        RecipeError: no such space, not TOML, or faults in it (all of them in one message).
    """
    content, where = toml_files.content_of("space", name_or_path)
    try:
        return Space.model_validate(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'the space'}: {str(fault['msg']).removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise RecipeError(f"{where} has {counted(len(faults), 'fault')}: {'; '.join(faults)}") from None


def resolved(space: Space, start: Recipe, around: Surroundings, fixed: Sequence[str] = ()) -> tuple[Parameter, ...]:
    """The parameters of a space around a starting recipe.

    Args:
        space: as declared.
        start: the starting recipe.
        around: the data set's part in it.
        fixed: recipe fields, such as "optimiser.lr", that keep their values.

    Raises:
        RecipeError: an entry is no field of a recipe, or nothing is left to tune.
    """
    if start.schedule.stages:
        raise RecipeError(
            f"recipe {start.name} has a schedule of stages, which fixes epochs and learning rates; give a starting "
            "recipe without stages"
        )
    absent = {"nothing": False, "imbalance": not around.imbalanced, "backbone": start.network.backbone is None}
    found = [
        parameter
        for name, entry in space.fields.items()
        if not absent[entry.needs] and (parameter := _parameter(name, entry, start, around, set(fixed)))
    ]
    if not found:
        raise RecipeError(f"space {space.name} leaves nothing to tune; give another --space, or fix less with --set")
    return tuple(found)


def changed(start: Recipe, parameters: Sequence[Parameter], values: Values, name: str = "") -> Recipe:
    """The starting recipe with a value for each parameter; those that stand for the start change nothing.

    Numbers are rounded to three digits, for people's sake. `training.epochs` is no field here but a share of the
    allowed cost, see `committee.tuning.cost`.

    Raises:
        RecipeError: the values do not fit together.
    """
    content = start.model_dump(mode="json", exclude_none=True)
    for parameter in parameters:
        value = values[parameter.name]
        if value == parameter.start or parameter.name == EPOCHS:
            continue
        if parameter.changes is not None:
            changes = parameter.changes[str(value)]
        else:
            changes = {parameter.name: round(float(value)) if parameter.whole else float(f"{float(value):.3g}")}
        for field, each in changes.items():
            _set(content, field, each)
    return recipe_parsing.parse({**content, "name": name or start.name}, "the changed recipe")


def _parameter(name: str, entry: SpaceField, start: Recipe, around: Surroundings, fixed: set[str]) -> Parameter | None:
    """One entry in numbers; None where all that it changes is fixed."""
    if entry.choices or entry.values:
        named = entry.choices or {json.dumps(value): {name: value} for value in entry.values}
        free = {label: fields for label, fields in named.items() if not fixed & _touched(fields)}
        return _choice(name, free, start)
    if name in fixed:
        return None
    current, is_whole = _field(name, start)
    assert entry.range is not None
    factor = {"nothing": 1.0, "start": current, "side": float(around.side), "cost": 1.0}[entry.of]
    low, high = (bound * factor for bound in entry.range)
    if entry.of == "cost":
        return Parameter(name, high, low, high, entry.scale == "log")
    if not high > low:
        raise RecipeError(
            f'space: {name} is 0 in recipe {start.name}, of which no range can be told; give it of = "nothing"'
        )
    if current > 0 or entry.scale == "linear":
        low, high = min(low, current), max(high, current)
    if is_whole:
        low, high = math.floor(low), math.ceil(high)
    return Parameter(name, current if current >= low else low, low, high, entry.scale == "log", is_whole)


def _choice(name: str, named: Mapping[str, Table], start: Recipe) -> Parameter | None:
    """Choices that make a recipe of their own; the starting recipe is among them. None where there is only that."""
    changes: dict[str, Table] = {}
    known = {start.digest()}
    first = START
    for label, fields in named.items():
        content = start.model_dump(mode="json", exclude_none=True)
        for field, value in fields.items():
            _set(content, field, value)
        digest = recipe_parsing.parse(content, f"space: {name} = {label}").digest()
        if digest == start.digest():
            first = label
        if digest not in known:
            changes[label] = fields
            known.add(digest)
    everything = {first: {}, **changes}
    ordered = {label: everything[label] for label in [*named, first] if label in everything}
    if len(ordered) == 1:
        return None
    return Parameter(name, first, choices=tuple(ordered), changes=ordered)


def _touched(fields: Table) -> set[str]:
    """The recipe's fields that changes set."""
    return {"network.widths" if field == WIDTH else field for field in fields} | set(fields)


def _field(name: str, recipe: Recipe) -> tuple[float, bool]:
    """The value of a recipe's number, and whether it is a whole one.

    Raises:
        RecipeError: there is no such number.
    """
    sections = recipe_parsing.sections()
    section, _, field = name.partition(".")
    fields = sections[section].model_fields if section in sections else {}
    if field not in fields or fields[field].annotation not in (int, float):
        known = [f"{each}.{one}" for each, model in sections.items() for one in model.model_fields]
        raise RecipeError(f"space: a range needs a number of the recipe such as optimiser.lr, got {name}"
                          f"{nearest(name, known)}")  # fmt: skip
    return float(getattr(getattr(recipe, section), field)), fields[field].annotation is int


def _set(content: Table, field: str, value: JsonValue) -> None:
    """Put a value into a recipe's tables; a backbone takes the place of layers.

    Raises:
        RecipeError: the field has no section.
    """
    section, dot, name = field.partition(".")
    part = content.get(section)
    if not dot or not isinstance(part, dict):
        raise RecipeError(f"space: a field is section.field, such as optimiser.lr; got {field!r}")
    if field == WIDTH:
        _scale(part, float(str(value)))
        return
    part[name] = copy.deepcopy(value)
    if field == "network.backbone":
        part["layers"] = []


def _scale(network: Table, factor: float) -> None:
    """Multiply a network's channels and hidden units."""
    if network.get("backbone"):
        widths = network["widths"]
        assert isinstance(widths, list)
        network["widths"] = [_width(float(str(width)) * factor) for width in widths]
    layers = network.get("layers", [])
    assert isinstance(layers, list)
    for layer in layers:
        assert isinstance(layer, dict)
        for size in ("filters", "units"):
            if isinstance(layer.get(size), int):
                layer[size] = _width(float(str(layer[size])) * factor)


def _width(wanted: float) -> int:
    """The nearest number of channels that is fast."""
    if wanted <= WIDTHS[-1]:
        return min(WIDTHS, key=lambda width: abs(math.log(width / wanted)))
    return max(1, round(wanted / 64)) * 64
