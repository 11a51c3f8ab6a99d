"""What the pages of runs and studies share: sections, embedded figures, templates and their filters."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from committee import disk
from committee.metrics.formatting import duration, number, percent, percent_or_nothing
from committee.names import file_name, visible
from committee.report.formatting import short
from committee.report.style import as_png

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Plot:
    """A figure inside a page: its `data:` address and its size in the page's pixels."""

    uri: str
    width: int
    height: int


class Section:
    """One section of a page: a frozen dataclass with what the template shows.

    Attributes:
        key: the section's anchor, and the name of its macro in the page's template of sections.
        title: its heading, which the table of contents shows too.
    """

    key: ClassVar[str]
    title: ClassVar[str]


@dataclass(frozen=True)
class Page:
    """A page: what its template shows.

    Attributes:
        title: of the page.
        version: of committee, which trained what the page shows.
        warnings: what every output must say.
        sections: in order.
    """

    template: ClassVar[str]

    title: str
    version: str
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]

    def render(self) -> str:
        """The page as HTML."""
        return templates().get_template(self.template).render(page=self, css=css())


def embed(figures: Mapping[str, Figure], folder: Path) -> dict[str, Plot]:
    """Save figures as PNG files in a folder, and return them by name as a page embeds them."""
    disk.make_folder(folder, within=folder.parent)
    plots = {}
    for name, figure in figures.items():
        content = as_png(figure)
        disk.write(folder / f"{file_name(name)}.png", content)
        width, height = figure.get_size_inches()
        uri = "data:image/png;base64," + base64.b64encode(content).decode()
        plots[name] = Plot(uri=uri, width=round(100 * width), height=round(100 * height))
    return plots


def templates() -> jinja2.Environment:
    """The templates of all pages, with their filters; whatever they show is escaped, an unknown name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "percent_or_nothing": percent_or_nothing,
        "probability": probability,
        "number": number,
        "duration": duration,
        "short": short,
        "sentence": sentence,
        "moment": moment,
    }
    return environment


def _shown(value: object) -> object:
    """What a template puts on a page: text without hidden characters, such as those that turn a line around."""
    return visible(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def css() -> Markup:
    """The style of all pages."""
    return Markup((_HERE / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file


def probability(value: float) -> str:
    """A probability as a percentage with one digit."""
    return percent(value, 1)


def sentence(text: str) -> str:
    """A phrase as a sentence: a capital first, a full stop last."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def moment(value: str) -> str:
    """A time stamp of ISO 8601 for people."""
    return value.replace("T", " ").replace("+00:00", " UTC")
