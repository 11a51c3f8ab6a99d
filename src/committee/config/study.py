"""Studies as data: which recipes are compared, what each changes, what was published.

A study is a TOML file. `base` holds a recipe's sections; every row changes it, or another row's recipe (`extends`), and
may name the row that it is compared with. A row of one member is repeated by training several; a row of several members
is a committee. `committee.studies.plan` turns the declaration into models to train.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field, JsonValue, ValidationError, model_validator
from pydantic_core import ErrorDetails

from committee.config import toml_files
from committee.config.record import Record
from committee.config.renames import Table, study_to_current_names
from committee.errors import RecipeError, counted, nearest


class Row(Record):
    """One row of a study: a recipe, trained as often as `members` and `seeds` say.

    Attributes:
        name: for folders and for other rows to refer to.
        change: what differs from the row that it is compared with, in words.
        extends: the row whose recipe is changed; without it, the study's base.
        recipe: sections and fields that change; a list replaces a list.
        members: 1 for a single network, more for a committee.
        seeds: how often it is repeated, instead of the study's number.
        compare_with: the row that it is compared with; without it, the row that it extends, else the one before.
        teacher: the row whose committee gives pseudo-labels to this one's unlabelled images.
        published: test accuracy as published; published_members: lowest and highest of its members.
        published_parameters: trainable parameters as published.
        remark: what a reader should know about the published row.
        quick: further changes in the quick form.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    change: str
    extends: str | None = None
    recipe: Table = Field(default_factory=dict)
    members: int = Field(default=1, gt=0)
    seeds: int | None = Field(default=None, gt=0)
    compare_with: str | None = None
    teacher: str | None = None
    published: float | None = Field(default=None, ge=0, le=1)
    published_members: tuple[float, float] | None = None
    published_parameters: int | None = None
    remark: str = ""
    quick: Table = Field(default_factory=dict)


class Grid(Record):
    """Every combination of recipe fields; the best cell is chosen by validation accuracy.

    Attributes:
        axes: values by field, such as ``"optimiser.lr" = [0.01, 0.001]``.
        published: test accuracy by the cell's values as they are written, joined by ", ".
    """

    axes: dict[str, tuple[JsonValue, ...]]
    published: dict[str, float] = Field(default_factory=dict)
    remark: str = ""

    @model_validator(mode="after")
    def _fields(self) -> Grid:
        for field, values in self.axes.items():
            if "." not in field or not values:
                raise ValueError(f"an axis is section.field with one value or more; got {field!r} = {list(values)}")
            if len({str(value) for value in values}) < len(values):
                raise ValueError(f"the axis {field} has a value twice: {', '.join(map(str, values))}")
        return self


class Quick(Record):
    """The quick form: at most this many training images, repeats, and members of a committee."""

    images: int = Field(default=4000, gt=0)
    seeds: int = Field(default=3, gt=0)
    members: int = Field(default=3, gt=0)


class Study(Record):
    """A declared study.

    Attributes:
        published_protocol: what the published figures did: "validation" (a part of the training images was held out,
            as here), or "test_as_validation" (choices were made on the test images); "" where nothing was published.
        published_data: the data set of the published figures, by its name here.
        citation: author, year, title and where to find the published figures; "" where nothing was published.
        seeds: repeats of every row that does not say otherwise.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    summary: str
    citation: str = ""
    published_protocol: Literal["", "validation", "test_as_validation"] = ""
    published_data: str = ""
    seeds: int = Field(default=3, gt=0)
    base: Table = Field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    grid: Grid | None = None
    quick: Quick = Quick()

    @model_validator(mode="after")
    def _references(self) -> Study:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError("two rows have the same name; give each its own")
        if not self.rows and not self.grid:
            raise ValueError("there is nothing to train; give [[rows]] or a [grid]")
        for number, row in enumerate(self.rows):
            for field in ("extends", "compare_with", "teacher"):
                other = getattr(row, field)
                if other is not None and other not in names[:number]:
                    raise ValueError(f"row {row.name}: {field} must be a row before it; got {other!r}")
        return self


def load(name_or_path: str) -> Study:
    """A shipped study by name, or a TOML file by path.

    Raises:
        RecipeError: no such study, not TOML, or faults in it.
    """
    return parse(*toml_files.content_of("study", name_or_path))


def parse(content: Mapping[str, JsonValue], where: str = "study", *, note_old_names: bool = True) -> Study:
    """A study from TOML tables.

    Args:
        content: as in the file.
        where: what to call it in messages.
        note_old_names: whether a field by its name of version 0.4 is worth a `RenamedFieldNote`.

    Raises:
        RecipeError: all faults at once.
    """
    try:
        return Study.model_validate(study_to_current_names(content, where, note=note_old_names))
    except ValidationError as error:
        faults = [_fault(fault) for fault in error.errors()]
        raise RecipeError(f"{where} has {counted(len(faults), 'fault')}: {'; '.join(faults)}") from None


def _fault(fault: ErrorDetails) -> str:
    """One fault of a study as a phrase: where, what was expected, what was got."""
    place = ".".join(map(str, fault["loc"])) or "the study"
    if fault["type"] == "extra_forbidden":
        section = next((part for part in fault["loc"] if part in ("rows", "grid", "quick")), "")
        parts: dict[int | str, type[BaseModel]] = {"rows": Row, "grid": Grid, "quick": Quick}
        known = list(parts.get(section, Study).model_fields)
        return f"{place} is unknown{nearest(str(fault['loc'][-1]), known)}; there are {', '.join(known)}"
    if fault["type"] == "missing":
        return f"{place} is missing"
    if fault["type"] == "string_pattern_mismatch":
        return f"{place}: expected lower-case letters, digits and hyphens, got {fault['input']!r}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" + ("" if fault["type"] == "value_error" else f", got {fault['input']!r}")
