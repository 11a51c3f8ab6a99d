"""TOML and changes such as ``"training.epochs=3"`` -> Recipe; one message lists all faults."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from committee.config import toml_files
from committee.config.recipe import NOT_TRAINED, Layer, Recipe, Stage
from committee.config.renames import Table, current_field, to_current_names
from committee.errors import RecipeError, counted, nearest


def load(name_or_path: str, changes: Iterable[str] = (), *, mirror: bool = False, note: bool = True) -> Recipe:
    """A shipped recipe by name, or a TOML file by path, with changes such as ``"training.epochs=3"``.

    Args:
        name_or_path: which recipe.
        changes: what to change in it.
        mirror: whether the images may be mirrored, see `mirrored`; changes are applied after that.
        note: whether fields by their names of version 0.4 are worth a note; not where it is a run's stored recipe.

    Raises:
        RecipeError: no such recipe, not TOML, or faults in it (all of them in one message).
    """
    content, where = toml_files.content_of("recipe", name_or_path)
    content = to_current_names(content, where, note=note)
    return parse(with_changes(mirrored(content) if mirror else content, changes), where)


def mirrored(content: Mapping[str, JsonValue]) -> Table:
    """A recipe's tables for objects that may be mirrored left to right: clothes, faces, parts; not characters.

    Its augmentation, which is made for characters, gives way to horizontal flips (docs/log.md says what each was worth
    on Fashion-MNIST), and every prediction is the mean over the image and its mirror image, both also moved where the
    recipe moves views.
    """
    name, committee = content.get("name", "recipe"), content.get("committee", {})
    assert isinstance(committee, dict)
    return {
        **content,
        "name": f"{name}-mirror",
        "summary": f"{name} with horizontal flips in place of its own augmentation",
        "augmentation": {"flip_horizontal": True},
        "committee": {
            **committee,
            "tta": "flip_and_shifts" if "shifts" in str(committee.get("tta")) else "horizontal_flip",
        },
    }


def with_changes(content: Mapping[str, JsonValue], changes: Iterable[str]) -> Table:
    """A recipe's tables with changes such as ``"training.epochs=3"``; the given ones stay as they are.

    Raises:
        RecipeError: a change has no section, field or value.
    """
    changed = copy.deepcopy(dict(content))
    for change in changes:
        _apply(changed, change)
    return changed


def parse(content: Mapping[str, JsonValue], where: str = "recipe", *, note_old_names: bool = True) -> Recipe:
    """A recipe from TOML tables.

    Args:
        content: the recipe's name, summary and sections.
        where: what to call it in messages.
        note_old_names: whether a field by its name of version 0.4 is worth a `RenamedFieldNote`.

    Raises:
        RecipeError: all faults at once, unknown fields with the nearest known name.
    """
    current = to_current_names(content, where, note=note_old_names)
    try:
        return Recipe.model_validate(current)
    except ValidationError as error:
        faults = [_fault(fault, current) for fault in error.errors()]
        raise RecipeError(f"{where} has {counted(len(faults), 'fault')}: {'; '.join(faults)}") from None


def _apply(content: Table, change: str) -> None:
    """Put ``section.field=value`` into the content; the value is read as TOML, else as a bare word."""
    target, equals, spelling = change.partition("=")
    section, dot, field = target.strip().partition(".")
    if not equals or not dot or not field:
        known = [f"{name}.{each}" for name, model in sections().items() for each in model.model_fields]
        meant = [place for place in known if place.endswith(f".{section.strip()}")]
        hint = f" (did you mean {meant[0]}?)" if len(meant) == 1 else ""
        raise RecipeError(f"--set expects section.field=value, such as training.epochs=3; got {change!r}{hint}")
    try:
        value: JsonValue = tomllib.loads(f"value = {spelling}")["value"]
    except tomllib.TOMLDecodeError:
        value = spelling.strip()
    field, value = current_field(section, field, value, f"--set {change}")
    part = content.setdefault(section, {})
    if not isinstance(part, dict):
        raise RecipeError(
            f"--set expects one of the sections {', '.join(sections())} before the dot; got {section!r} in {change!r}"
        )
    part[field] = value
    if section == "network":
        for other in {"backbone": ["layers"], "layers": ["backbone", "widths"]}.get(field, []):
            part.pop(other, None)


def sections() -> dict[str, type[BaseModel]]:
    """The sections of a recipe: name -> its type."""
    fields = {name: field.annotation for name, field in Recipe.model_fields.items() if name not in NOT_TRAINED}
    return cast(dict[str, type[BaseModel]], fields)


def _fault(fault: ErrorDetails, content: Table) -> str:
    """One fault of a recipe as a phrase: where, what was expected, what was got."""
    types = {"conv", "maxpool", "batchnorm", "dropout", "dense", "flatten", "global_pool", "activation"}
    location = [part for part in fault["loc"] if part not in types and part not in ("int", "constrained-int")]
    place = ".".join(str(part) for part in location) or "the recipe"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = _known_fields(location[:-1], content)
        section = ".".join(map(str, location[:-1])) or "a recipe"
        return f"{place} is unknown{nearest(str(location[-1]), known)}, {section} has {', '.join(known)}"
    if fault["type"] == "missing":
        return f"{place} is missing"
    if fault["type"] == "value_error":
        return f"{place}: {message}"
    if fault["type"] == "union_tag_invalid":
        types_known = [word.strip("'") for word in fault["ctx"]["expected_tags"].split(", ")]
        tag = fault["ctx"]["tag"]
        return f"{place}: there is no layer type {tag!r}{nearest(tag, types_known)}; there are {', '.join(types_known)}"
    got = fault["input"]
    suggestion = ""
    if fault["type"] == "literal_error" and isinstance(got, str):
        suggestion = nearest(
            got, [word.strip("'") for word in fault["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        )
    return f"{place}: {message[0].lower()}{message[1:]}, got {got!r}{suggestion}"


def _known_fields(location: list[Any], content: Any) -> list[str]:
    """The field names of the section (or layer, or stage) at a location."""
    layers = {layer.model_fields["type"].default: layer for layer in get_args(get_args(Layer)[0])}
    model: Any = Recipe
    for part in location:
        content = content[part] if isinstance(content, (dict, list)) else {}
        if isinstance(part, int):
            model = layers[content["type"]] if "type" in content else Stage
        else:
            annotation = model.model_fields[part].annotation
            model = annotation if get_origin(annotation) not in (tuple, Union, UnionType) else model
    return list(model.model_fields)
