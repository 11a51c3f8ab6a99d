"""A grid's cells: the best is chosen by validation accuracy, and it is said which others could be as good."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from committee.config.recipe import Recipe
from committee.config.study import Grid, Row, Study, parse
from committee.errors import RecipeError, counted
from committee.metrics.formatting import percent
from committee.metrics.repeats import LEVEL, Correctness, difference
from committee.metrics.results import GridCell, GridResult, RepeatScore

FEW_SEEDS = 5


def study_of(recipe: Recipe, spellings: Sequence[str]) -> Study:
    """A study that is a grid over one recipe.

    Args:
        recipe: what every cell changes; single networks are trained. Where it holds out folds or random parts, all
            cells and repeats hold out the same part instead, so that they are validated on the same images.
        spellings: axes such as ``"optimiser.lr=0.01,0.001"``; values are read as TOML, else as bare words.

    Raises:
        RecipeError: an axis is not of that form, or names no field.
    """
    axes: dict[str, JsonValue] = {}
    for spelling in spellings:
        field, equals, values = spelling.partition("=")
        if not equals or "." not in field or not values:
            raise RecipeError(
                f"--vary expects section.field=value,value, such as optimiser.lr=0.01,0.001; got {spelling!r}"
            )
        if field.strip() in axes:
            raise RecipeError(f"--vary {field.strip()} is given twice; put all its values into one, with commas")
        try:
            axes[field.strip()] = tomllib.loads(f"values = [{values}]")["values"]
        except tomllib.TOMLDecodeError:
            axes[field.strip()] = [value.strip() for value in values.split(",")]
    content = recipe.content()
    if recipe.holdout.kind in ("folds", "fraction", "none"):
        share = 1 / recipe.holdout.folds if recipe.holdout.kind == "folds" else recipe.holdout.fraction
        content["holdout"] = {"kind": "shared", "fraction": share}
    slug = "".join(c if c.isalnum() else "-" for c in recipe.name.lower())
    return parse(
        {
            "name": f"grid-{slug}-{'-'.join(field.rpartition('.')[2].replace('_', '-') for field in axes)}",
            "title": f"A grid over {', '.join(axes)}",
            "summary": f"every combination of {', '.join(axes)} with the recipe {recipe.name}",
            "base": content,
            "grid": {"axes": axes},
        },
        "the grid",
    )


def choose(
    grid: Grid,
    cells: Sequence[tuple[Row, Sequence[object]]],
    validation: Mapping[str, tuple[Correctness, RepeatScore]],
    test: Mapping[str, RepeatScore],
    confusion: Mapping[str, tuple[tuple[int, ...], ...]],
    confusion_on: str,
) -> GridResult:
    """Choose the best cell by mean validation accuracy and say which others could be as good.

    Args:
        grid: as declared.
        cells: the row and the values of each cell.
        validation: by the row's name, what its repeats predict correctly of the validation images, and the score of
            that.
        test: by the row's name; empty while the test images are sealed.
        confusion: by the row's name, of the first repeat.
        confusion_on: "test" or "validation".
    """
    names = [row.name for row, _ in cells]
    best = max(names, key=lambda name: validation[name][1].mean)
    others = [name for name in names if name != best]
    # not adjusted for their number: that would call more cells as good as the best, not fewer
    noise = {
        name
        for name in others
        if difference(validation[best][0], validation[name][0], against=name, on="validation").p >= LEVEL
    }
    rows = tuple(
        GridCell(
            values=tuple(map(str, values)),
            validation=validation[row.name][1],
            test=test.get(row.name),
            published=grid.published.get(", ".join(map(str, values))),
            within_noise=row.name in noise,
        )
        for row, values in cells
    )
    winner = rows[names.index(best)]
    seeds = counted(winner.validation.repeats, "seed")
    choice = (
        f"By validation accuracy the best is {', '.join(winner.values)}: {percent(winner.validation.mean)} on "
        f"{winner.validation.images:,} images, mean of {seeds}."
    )
    if noise:
        same = "; ".join(", ".join(row.values) for row in rows if row.within_noise)
        choice += f" WITHIN NOISE: it is not distinguishable at the 5 % level from {same}, so these may be as good."
    else:
        choice += f" It is significantly better than each of the {len(others)} other cells." if others else ""
    if noise and winner.validation.repeats < FEW_SEEDS:
        choice += f" With {seeds} only large differences can be shown; give --seeds {FEW_SEEDS} or more."
    return GridResult(
        axes=tuple(grid.axes),
        cells=rows,
        best=names.index(best),
        choice=choice,
        confusion=confusion[best],
        confusion_on=confusion_on,
    )
