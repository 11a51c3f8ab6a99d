"""The page and the table of a check of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from committee.data.check import KINDS, DatasetCheck, Finding, KindName, line
from committee.data.dataset import Pixels
from committee.metrics.formatting import number, percent
from committee.report.formatting import short
from committee.report.page import Page, Section
from committee.report.page_images import TILE
from committee.report.pictures import data_uris, displayable
from committee.version import version

IMAGE_BUDGET = 8_000_000
"""Characters that the images of the page may have; photographs are made smaller until they fit."""

SHOWN = 42
"""Images, or pairs of images, shown of each kind; the table has all."""

COLUMNS = (
    *("kind", "part", "index", "name", "label"),
    *("other_part", "other_index", "other_name", "other_label", "distance"),
)

WHERE = {"train": "training", "test": "test"}


@dataclass(frozen=True)
class CheckImage:
    """An image on the page: its `data:` address, size in the page's pixels, place, file and class."""

    uri: str
    width: int
    height: int
    enlarged: bool
    part: str
    index: int
    name: str
    label: str

    @property
    def where(self) -> str:
        """Part, position and file."""
        return f"{self.part} image {number(self.index)}" + (f": {self.name}" if self.name else "")

    @property
    def file(self) -> str:
        """The file's name without its folder; "" where the image has no file of its own."""
        return "" if self.name.endswith("]") else self.name.rpartition("/")[2]

    @property
    def alt(self) -> str:
        """The image in words."""
        return f"{self.where}, class {self.label}"


@dataclass(frozen=True)
class CheckTile:
    """An image or a pair, and how far it is from what it was compared with, in words."""

    images: tuple[CheckImage, ...]
    distance: str

    @property
    def labels_differ(self) -> bool:
        """Whether the images of a pair have different labels."""
        return len({image.label for image in self.images}) > 1


@dataclass(frozen=True)
class CheckGallery:
    """The findings of a kind, as many as are shown."""

    anchor: str
    line: str
    total: int
    tiles: tuple[CheckTile, ...]


@dataclass(frozen=True)
class Overview(Section):
    """Every kind, with what was found of it."""

    key: ClassVar[str] = "overview"
    title: ClassVar[str] = "What was found"

    kinds: tuple[tuple[str, str, int, str], ...]
    """Of each kind: its anchor, what it is, how many, what to do."""


@dataclass(frozen=True)
class TwiceSection(Section):
    """Images that are there twice."""

    key: ClassVar[str] = "twice"
    title: ClassVar[str] = "The same image twice"

    galleries: tuple[CheckGallery, ...]


@dataclass(frozen=True)
class OddSection(Section):
    """Images that differ from the others."""

    key: ClassVar[str] = "odd"
    title: ClassVar[str] = "Images unlike the others"

    galleries: tuple[CheckGallery, ...]


@dataclass(frozen=True)
class ClassesSection(Section):
    """Findings about classes, in words."""

    key: ClassVar[str] = "classes"
    title: ClassVar[str] = "Classes"

    found: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Of each kind: its anchor, its line, and a phrase for each class or pair of classes."""


@dataclass(frozen=True)
class HowSection(Section):
    """How it was looked for."""

    key: ClassVar[str] = "how"
    title: ClassVar[str] = "How this was found"

    near_found: str
    notes: tuple[str, ...]
    table: str = "findings.csv"


@dataclass(frozen=True)
class CheckPage(Page):
    """The page of a check.

    Attributes:
        data: the data set's name.
        images: how many there are in each part, in words.
        lines: a line for each kind that was found, the worst first.
    """

    template: ClassVar[str] = "check.html"

    data: str
    images: str
    lines: tuple[str, ...]


TWICE: tuple[KindName, ...] = ("leak", "near leak", "conflict", "duplicate", "near duplicate")
ODD: tuple[KindName, ...] = ("blank", "polarity", "outlier")
CLASSES: tuple[KindName, ...] = ("small class", "alike")


def check_page(check: DatasetCheck, train: Pixels, test: Pixels) -> CheckPage:
    """The page of a check.

    Args:
        check: what was found.
        train, test: (image, height, width, channel), the images of both parts.
    """
    pictures = _pictures(check, train, test)
    twice, odd = (_galleries(check, kinds, pictures) for kinds in (TWICE, ODD))
    classes = tuple(
        (_anchor(kind), line(kind, found), tuple(map(_of_class, found)))
        for kind in CLASSES
        if (found := check.of(kind))
    )
    overview = tuple((_anchor(kind), text.many, len(check.of(kind)), text.advice) for kind, text in KINDS.items())
    near = "" if check.near_found is None else percent(check.near_found, 1)
    sections: list[Section] = [Overview(overview)]
    sections += [TwiceSection(twice)] if twice else []
    sections += [OddSection(odd)] if odd else []
    sections += [ClassesSection(classes)] if classes else []
    return CheckPage(
        title=f"{short(check.data, 60)}: {_verdict(check)}",
        version=version,
        warnings=(),
        sections=(*sections, HowSection(near, check.notes)),
        data=check.data,
        images=f"{number(check.train_images)} training and {number(check.test_images)} test images",
        lines=check.lines,
    )


def rows(check: DatasetCheck) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
    """The table of all findings: its columns and rows."""

    def of(finding: Finding) -> Iterator[str]:
        for column in COLUMNS:
            value = getattr(finding, column)
            yield "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    return COLUMNS, (tuple(of(finding)) for finding in check.findings)


def _verdict(check: DatasetCheck) -> str:
    if not check.findings:
        return "nothing was found"
    if check.of("leak"):
        return "test images among the training images"
    return "what to look at"


def _anchor(kind: KindName) -> str:
    return kind.replace(" ", "-")


def _of_class(finding: Finding) -> str:
    """A class, or two, in words."""
    if finding.distance is None:
        return finding.label
    if finding.kind == "alike":
        share = percent(finding.distance, 0)
        return (
            f"{finding.label} and {finding.other_label}: of the images of one, {share} have their nearest in the other"
        )
    return f"{finding.label}: {number(int(finding.distance))} {WHERE[finding.part]} images"


def _shown(check: DatasetCheck, kind: KindName) -> Sequence[Finding]:
    return check.of(kind)[:SHOWN]


def _places(finding: Finding) -> list[tuple[str, int, str, str]]:
    """Part, index, file and label of the image or the two images of a finding."""
    found: list[tuple[str, int, str, str]] = []
    if finding.index is not None:
        found.append((finding.part, finding.index, finding.name, finding.label))
    if finding.other_index is not None and finding.other_part is not None:
        found.append((finding.other_part, finding.other_index, finding.other_name, finding.other_label))
    return found


def _pictures(check: DatasetCheck, train: Pixels, test: Pixels) -> dict[tuple[str, int], CheckImage]:
    """The images that the page shows, by part and index."""
    wanted = {
        place[:2]: place for kind in (*TWICE, *ODD) for finding in _shown(check, kind) for place in _places(finding)
    }
    parts = {"train": train, "test": test}
    images = [displayable(parts[part][index]) for part, index in wanted]
    height, width = train.shape[1:3]
    longer = max(height, width)
    scale = max(1, TILE // longer) if longer <= TILE else TILE / longer
    return {
        key: CheckImage(
            uri=uri,
            width=round(scale * width),
            height=round(scale * height),
            enlarged=scale > 1,
            part=WHERE[part],
            index=index,
            name=name,
            label=label,
        )
        for (key, (part, index, name, label)), uri in zip(wanted.items(), data_uris(images, IMAGE_BUDGET), strict=True)
    }


def _galleries(
    check: DatasetCheck, kinds: Sequence[KindName], pictures: dict[tuple[str, int], CheckImage]
) -> tuple[CheckGallery, ...]:
    found = []
    for kind in kinds:
        if all_found := check.of(kind):
            tiles = tuple(
                CheckTile(tuple(pictures[place[:2]] for place in _places(finding)), _distance(finding))
                for finding in _shown(check, kind)
            )
            found.append(CheckGallery(_anchor(kind), line(kind, all_found), len(all_found), tiles))
    return tuple(found)


def _distance(finding: Finding) -> str:
    if finding.distance is None:
        return ""
    if finding.kind == "outlier":
        return f"{finding.distance:.1f} times as far as usual"
    return f"{percent(finding.distance, 1)} of the contrast differs"
