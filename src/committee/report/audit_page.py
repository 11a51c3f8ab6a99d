"""The page of an audit: suspected labels one by one, to be kept, changed or dropped by keyboard, finger or mouse.

It is one file that works from a disk: its script and style are named by their digests in a content security policy that
allows nothing else. What is decided stays in the browser's storage until it is saved as decisions.csv.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from committee.data.corrected_labels import DECIDED, cells_of_classes
from committee.data.dataset import ImageDataset
from committee.names import csv_cell, visible
from committee.report.formatting import short
from committee.report.page import css, templates
from committee.report.pictures import data_uris, displayable
from committee.version import version

IMAGE_BUDGET = 24_000_000
"""Characters that the images of the page may have; photographs are made smaller until they fit."""

LIKELY = 5
"""Classes that are offered for an image, the most probable first."""

_HERE = Path(__file__).parent

Neighbours = NDArray[np.int64]


@dataclass(frozen=True)
class Suggestion:
    """An image whose label may be wrong.

    Attributes:
        image: its position among the training images.
        file: its name; "" where it has none.
        given, suggested: classes, by position.
        suspected: whether another class is more probable than the given one.
        score: the logarithm of how much more probable another class is.
        wrong: the probability that the label is wrong.
        probabilities: (class,), the committee's, out of fold.
        votes_given, votes_suggested: members that choose the class, of the `members` that did not train on the image.
        pixels: the digest by which decisions know the image.
    """

    image: int
    file: str
    given: int
    suggested: int
    suspected: bool
    score: float
    wrong: float
    probabilities: NDArray[np.float64]
    votes_given: int
    votes_suggested: int
    members: int
    pixels: str


@dataclass(frozen=True)
class AuditPage:
    """What the template shows; `data` is what the script works on, as JSON without any `<`."""

    title: str
    name: str
    run: str
    version: str
    images: int
    judged: int
    suspected: int
    shown: int
    notes: tuple[str, ...]
    classes: tuple[str, ...]
    data: str

    def render(self) -> str:
        """The page as HTML."""
        style = css() + Markup((_HERE / "audit.css").read_text(encoding="utf-8"))  # noqa: S704 - our own files
        script = Markup((_HERE / "audit.js").read_text(encoding="utf-8"))  # noqa: S704 - our own file
        allowed = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
        policy = f"default-src 'none'; img-src data:; {allowed}; base-uri 'none'; form-action 'none'"
        template = templates().get_template("audit.html")
        return template.render(page=self, css=style, script=script, policy=policy, data=Markup(self.data))  # noqa: S704 - no <


def audit_page(
    run: str,
    dataset: ImageDataset,
    suggestions: Sequence[Suggestion],
    neighbours: Neighbours,
    *,
    digest: str,
    summary: tuple[int, int, int],
    notes: tuple[str, ...],
) -> AuditPage:
    """The page of an audit.

    Args:
        run: the run's folder.
        dataset: what was audited.
        suggestions: the images to go through, in this order.
        neighbours: (image, 2, neighbour): positions of training images to compare each with, of the given and of the
            suggested class; -1 for none.
        digest: of the training images and labels; decisions are kept under it.
        summary: training images, those that could be judged, suspected labels.
        notes: remarks for people.
    """
    wanted = list(dict.fromkeys([each.image for each in suggestions] + [int(n) for n in neighbours.ravel() if n >= 0]))
    place = {image: number for number, image in enumerate(wanted)}
    uris = data_uris([displayable(dataset.train.pixels[image]) for image in wanted], IMAGE_BUDGET)
    content = {
        "columns": DECIDED,
        "digest": digest,
        "classes": [visible(name) for name in dataset.class_names],
        "cells": cells_of_classes(dataset.class_names),
        "uris": uris,
        "images": [
            {
                "image": each.image,
                "file": csv_cell(each.file),
                "shown": visible(each.file),
                "given": each.given,
                "suggested": each.suggested,
                "suspected": each.suspected,
                "wrong": round(each.wrong, 4),
                "likely": [[int(label), round(float(each.probabilities[label]), 4)] for label in _likely(each)],
                "own": round(float(each.probabilities[each.given]), 4),
                "votes": [each.votes_given, each.votes_suggested, each.members],
                "pixels": each.pixels,
                "uri": place[each.image],
                "near": [[place[int(n)] for n in side if n >= 0] for side in neighbours[row]],
            }
            for row, each in enumerate(suggestions)
        ],
    }
    images, judged, suspected = summary
    return AuditPage(
        title=f"{short(dataset.name, 60)}: labels to look at",
        name=dataset.name,
        run=run,
        version=version,
        images=images,
        judged=judged,
        suspected=suspected,
        shown=len(suggestions),
        notes=notes,
        classes=dataset.class_names,
        data=json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
    )


def _likely(suggestion: Suggestion) -> list[int]:
    """The classes that are offered for an image: the suggested one first, then by the committee's probability."""
    order = [int(label) for label in np.argsort(-suggestion.probabilities, kind="stable")]
    others = [label for label in order if label not in (suggestion.suggested, suggestion.given)]
    return [suggestion.suggested, *others][:LIKELY]


def _digest(text: str) -> str:
    """What a content security policy allows an element with this text by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
