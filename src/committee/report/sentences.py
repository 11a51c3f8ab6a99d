"""What the pages say in sentences: how a run was evaluated, what the committee gained, what the data are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from committee.config.recipe import Recipe
from committee.data.summary import DatasetSummary
from committee.metrics.formatting import interval_text, number, percent
from committee.metrics.results import Results, Scores, TestOpening
from committee.report import tables
from committee.report.formatting import short, spell_share, words
from committee.report.style import drawable

COMBINATIONS = {
    "mean": "their probabilities are averaged",
    "geometric": "the geometric mean of their probabilities is taken",
    "weighted": "their probabilities are averaged with weights that were fitted out of fold",
    "vote": "each casts one vote",
}


# --- how it was evaluated ---------------------------------------------------------------------------------------------


def protocol(results: Results, recipe: Recipe) -> list[str]:
    """How the figures came about: how often the test images were opened, and what was chosen on which images."""
    sentences = [openings(results.test_openings), holdout(recipe), choices(recipe)]
    if recipe.committee.members > 1:
        sentences.append(
            "The committee is a deep ensemble (Lakshminarayanan et al. 2017): its members are trained independently, "
            f"and for a prediction {COMBINATIONS[recipe.committee.combination]}."
        )
    if recipe.committee.tta != "none":
        sentences.append(views(recipe.committee.tta, recipe.committee.tta_confidence))
    if results.calibration:
        images = number(results.calibration.by_size[0].images)
        sentences.append(f"The temperature was fitted to out-of-fold predictions for {images} training images.")
    sentences.append(
        "Intervals are Wilson's score intervals at 95\u00a0% (Wilson 1927). They reflect only which images happened to "
        "be drawn; the variation between trainings with different seeds is not included."
    )
    return [sentence for sentence in sentences if sentence]


VIEWS = {
    "horizontal_flip": "for its mirror image",
    "shifts": "for four copies of it moved by a pixel",
    "flip_and_shifts": "for its mirror image and for copies of both moved by a pixel to each side",
}


def views(tta: str, confidence: float) -> str:
    """What test-time augmentation a member's prediction rests on."""
    where = "" if confidence == 1 else f", where the member is less sure of the image alone than {percent(confidence)}"
    return f"Test-time augmentation: a member's prediction is the mean of those for an image and {VIEWS[tta]}{where}."


def openings(found: Sequence[TestOpening]) -> str:
    """How often the test images were opened, and what that means."""
    if not found:
        return "The test images have never been opened; every figure here comes from training images."
    if len(found) == 1:
        return (
            f"This run opened its {number(found[0].images)} test images once, on {found[0].opened[:10]} "
            f"(purpose: {found[0].purpose}); nothing was chosen on them."
        )
    return (
        f"This run opened its {number(found[-1].images)} test images {len(found)} times (see the record). Changing "
        "anything after seeing test results amounts to choosing on the test images, so trust the first opening most."
    )


@dataclass(frozen=True)
class Died:
    """That members' processes died: how many, why, and how the run gets them."""

    verdict: str
    why: str
    again: str


def died(results: Results) -> Died | None:
    """Which members' processes died and why, and how the run gets them; None where none did."""
    found = [member for member in results.members if member.status == "died"]
    if not found:
        return None
    left = sum(member.status == "finished" for member in results.members)
    return Died(
        verdict=f"{len(found)} of {results.planned} members died, so that the committee has only {left}.",
        why=" ".join(f"Member {member.member}: {member.remark}." for member in found),
        again=f"The same command trains the {'missing member' if len(found) == 1 else f'{len(found)} missing members'}",
    )


def died_text(results: Results) -> str:
    """The same as plain text, with what becomes of the test images; "" where no process died."""
    what = died(results)
    if what is None:
        return ""
    sealed = (
        "until then the test images stay sealed, unless committee evaluate RUN opens them for the committee as it is"
    )
    then = " and evaluates the run again" if results.test else f"; {sealed}"
    return f"{what.verdict} {what.why} {what.again}{then}."


def holdout(recipe: Recipe) -> str:
    """Which images were the validation images."""
    share = spell_share(recipe.holdout.fraction)
    return {
        "folds": f"The training images were split into {recipe.holdout.folds} equal folds. Each member trained without "
        "one of them, which holds its validation images.",
        "fraction": f"Each member trained without {share} of the training images, drawn at random: its validation "
        "images.",
        "shared": f"All members trained without the same {share} of the training images, drawn at random: the "
        "validation images.",
        "last": f"Each member trained without the last {share} of the training images: the validation images.",
        "none": "There were no validation images: every member trained on all training images.",
    }[recipe.holdout.kind]


def choices(recipe: Recipe) -> str:
    """What was chosen on validation images."""
    training = recipe.training
    chosen = []
    if training.patience:
        chosen.append("when a member stopped training (early stopping)")
    if recipe.schedule.name == "plateau":
        chosen.append("when its learning rate was reduced")
    if training.checkpoint != "last":
        chosen.append(f"which epoch's weights were kept (those with the {words(training.checkpoint)})")
    if not chosen:
        average = " (their exponential moving average)" if training.ema else ""
        return (
            f"Every member trained for the planned number of epochs and kept its last weights{average}; nothing was "
            "chosen on validation images."
        )
    listed = chosen[0] if len(chosen) == 1 else f"{', '.join(chosen[:-1])} and {chosen[-1]}"
    return f"Validation images decided {listed}, which makes validation and out-of-fold figures slightly optimistic."


# --- what the committee is worth --------------------------------------------------------------------------------------


def gain(results: Results) -> str:
    """What the committee gains over one member, in words; "" where there is nothing to compare."""
    scores = [member.test.accuracy for member in results.members if member.test]
    if results.test is None or len(scores) < 2 or tables.no_better_than_guessing(results.test):
        return ""
    mean, test = sum(scores) / len(scores), results.test
    alone = test.images * (1 - mean)
    text = (
        f"On the {number(test.images)} test images, a member makes {alone:,.1f} errors on average "
        f"({percent(mean)} accuracy) and the committee {number(test.errors)} ({percent(test.accuracy)})"
    )
    if mean == 1:
        return f"{text}: there was no error for a committee to correct."
    if abs(alone - test.errors) < 1:
        return f"{text}: about as many."
    if test.errors < alone:
        return f"{text}: {100 * (1 - test.errors / alone):.0f}\u00a0% fewer."
    return f"{text}: combining the members did not help here."


@dataclass(frozen=True)
class Guessing:
    """That a committee is no better than guessing: the verdict, why, and whether more images may help."""

    verdict: str
    why: str
    more_images: bool


def guessing(scores: Scores, class_names: Sequence[str]) -> Guessing | None:
    """The warning where always predicting the most frequent class is as good; None where the committee is better."""
    if not tables.no_better_than_guessing(scores):
        return None
    most, share = tables.guess(scores)
    maybe_better = scores.accuracy > share or share == 1
    verdict = "is not shown to be" if maybe_better else "is no"
    return Guessing(
        verdict=f"This committee {verdict} better than guessing.",
        why=f"Always predicting “{short(class_names[most], 40)}” would be right for {percent(share)} of these images; "
        f"the committee is right for {percent(scores.accuracy)} (95\u00a0% interval "
        f"{interval_text(scores.accuracy_interval)}).",
        more_images=maybe_better,
    )


def imbalance(scores: Scores, class_names: Sequence[str]) -> str:
    """What accuracy hides where classes differ in size by more than 2; "" elsewhere."""
    if not scores.is_imbalanced or not scores.balanced:
        return ""
    most, share = tables.guess(scores)
    worst = min((row for row in scores.classes if row.images), key=lambda row: row.recall or 0)
    right = round((worst.recall or 0) * worst.images)
    return (
        f"The classes differ in size: always predicting “{short(class_names[most], 40)}” would be right for "
        f"{percent(share)}. Every class counting alike, the committee reaches {percent(scores.balanced.accuracy)} "
        f"(balanced accuracy, 95\u00a0% interval {interval_text(scores.balanced.accuracy_interval)}); of "
        f"“{short(worst.name, 40)}” it recognises {number(right)} of {number(worst.images)}."
    )


# --- the data ---------------------------------------------------------------------------------------------------------


def undrawn(class_names: Sequence[str]) -> str:
    """A sentence on the class names that figures cannot show; "" where they show all."""
    missing = [(place, name) for place, name in enumerate(class_names) if not drawable(name)]
    if not missing:
        return ""
    named = ", ".join(f"“class {place}” is {short(name, 24)}" for place, name in missing[:5])
    more = f", and so on for {len(missing) - 5} more" if len(missing) > 5 else ""
    return (
        "The fonts on the machine that wrote this report lack characters of some class names. Figures label such a "
        f"class by its number, counted from 0; tables keep its name: {named}{more}."
    )


def data_sentence(data: DatasetSummary) -> str:
    """The data set in one or two sentences."""
    height, width, channels = data.shape
    colour = " in colour" if channels >= 3 else ""
    source = f" Source: {data.source}." if data.source else ""
    return (
        f"{data.name} has {data.classes} classes of images of {height} × {width} pixels{colour}: "
        f"{number(data.train_images)} training images and {number(data.test_images)} test images.{source}"
    )
