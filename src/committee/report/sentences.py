"""What a run's report says in sentences: how it was judged, what the committee gained, what the data are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from committee.metrics.formatting import percent
from committee.metrics.results import Results, Scores
from committee.report import tables
from committee.report.formatting import short, spell_share, words
from committee.report.style import drawable


def protocol(results: Results, facts: Mapping[str, Any]) -> list[str]:
    """How the figures came about: how often the test images were opened, and what chose what."""
    recipe = facts.get("recipe", {})
    holdout, training = recipe.get("holdout", {}), recipe.get("training", {})
    plateau = recipe.get("schedule", {}).get("name") == "plateau"
    average = bool(training.get("ema"))
    openings = results.test_openings
    sentences = []
    if not openings:
        sentences.append("The test images have never been opened; every figure here is from training images.")
    elif len(openings) == 1:
        sentences.append(
            f"The {openings[0].images:,} test images were opened once by this run, on {openings[0].opened[:10]} "
            f"({openings[0].purpose}); nothing was chosen by them."
        )
    else:
        sentences.append(
            f"The {openings[-1].images:,} test images were opened {len(openings)} times (see the record). "
            "Whoever looks and then changes something is choosing by them, so trust the first look most."
        )
    share = spell_share(holdout.get("fraction"))
    kept_out = {
        "folds": f"Each member trained without one of {holdout.get('folds')} equal parts of the training images",
        "fraction": f"Each member trained without {share} of the training images, drawn at random",
        "shared": f"All members trained without the same {share} of the training images, drawn at random",
        "last": f"Each member trained without the last {share} of the training images",
    }.get(str(holdout.get("kind")))
    if kept_out:
        sentences.append(f"{kept_out}: its held-out images.")
    elif holdout.get("kind") == "none":
        sentences.append("Nothing was held out: every member trained on all training images.")
    choices = []
    if training.get("patience"):
        choices.append("when a member stopped")
    if plateau:
        choices.append("when the learning rate was reduced")
    if str(training.get("checkpoint", "last")) != "last":
        choices.append(f"which epoch's weights were kept (the one with the {words(str(training['checkpoint']))})")
    if choices:
        text = " and ".join(choices)
        sentences.append(
            f"Held-out images chose {text}; this makes held-out and out-of-fold figures slightly flattering."
        )
    elif training.get("checkpoint") == "last":
        sentences.append(
            "Every member trained for the stated number of epochs and kept its last weights"
            f"{' (their running average)' if average else ''}: nothing was chosen."
        )
    if results.calibration:
        sentences.append(
            "The temperature rests on out-of-fold judgements of "
            f"{results.calibration.by_size[0].images:,} training images."
        )
    if recipe.get("committee", {}).get("combination") == "weighted":
        sentences.append("The members' weights were fitted on out-of-fold probabilities.")
    sentences.append(
        "Intervals say how far a figure may be off because the images are a sample; "
        "the luck of another training comes on top, and only repeated seeds show it."
    )
    return sentences


def gain(results: Results) -> str:
    """What voting together gives over one member, in words."""
    if results.test is None:
        return ""
    scores = [member.test.accuracy for member in results.members if member.test]
    if len(scores) < 2:
        return ""
    mean = sum(scores) / len(scores)
    text = f"On the test images a member alone is right on {percent(mean)} on average, the committee on "
    text += percent(results.test.accuracy)
    if mean < 1 and results.test.accuracy > mean:
        removed = (results.test.accuracy - mean) / (1 - mean)
        return f"{text}: voting together removes {100 * removed:.0f}\u00a0% of a member's errors."
    if mean == 1:
        return f"{text}: there was no error left for voting to remove."
    return f"{text}: voting together did not help here."


def guessing(head: Scores, class_names: Sequence[str]) -> dict[str, Any]:
    """A verdict, why, and whether more images may help, where always giving the most frequent class is as good."""
    if not tables.no_better_than_guessing(head):
        return {}
    most, share = tables.guess(head)
    low, high = percent(head.accuracy_interval.low), percent(head.accuracy_interval.high)
    text = f"always answering “{short(class_names[most], 40)}” would be right on {percent(share)} of these images, "
    text += f"the committee on {percent(head.accuracy)} (95\u00a0% interval {low} to {high})."
    better = head.accuracy > share or share == 1
    verdict = "It is not shown that this committee learnt anything beyond guessing:"
    return {
        "verdict": verdict if better else "This committee learnt nothing beyond guessing:",
        "why": text,
        "more_images": better,
    }


def undrawn(class_names: Sequence[str]) -> str:
    """A sentence on the class names that figures cannot show; "" where they show all."""
    missing = [(number, name) for number, name in enumerate(class_names) if not drawable(name)]
    if not missing:
        return ""
    named = ", ".join(f"“class {number}” is {short(name, 24)}" for number, name in missing[:5])
    more = f", and so on for {len(missing) - 5} more" if len(missing) > 5 else ""
    return (
        "The fonts of the machine that wrote this report lack characters of some class names; figures call such a "
        f"class by its number, counted from 0, tables keep its name: {named}{more}."
    )


def data_sentence(dataset: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """The data set in one or two sentences."""
    counts = dataset.get("counts")
    parts = [f"{dataset.get('name', 'The data')}: {len(class_names)} classes"]
    if shape := dataset.get("shape"):
        parts.append(
            "images of "
            + " × ".join(str(side) for side in shape[:2])
            + " pixels"
            + (" in colour" if len(shape) > 2 and shape[2] >= 3 else "")
        )
    if isinstance(counts, Mapping) and counts and all(isinstance(count, Mapping) for count in counts.values()):
        train, test = (sum(int(count.get(part, 0)) for count in counts.values()) for part in ("train", "test"))
        parts.append(f"{train:,} for training and {test:,} for the test")
    source = f" Source: {dataset['source']}." if dataset.get("source") else ""
    return ", ".join(parts) + "." + source
