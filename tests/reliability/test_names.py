"""Names cannot inject: whatever a class, a file or a study is called, it is text on pages, in tables, on the terminal.

`payloads.NAMES` holds every name; a page with them has exactly the elements of the same page with harmless names.
"""

from __future__ import annotations

import csv
import html.parser
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jinja2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from payloads import FAMILIES, MARK, NAMES, harmless
from PIL import Image
from scale import record_figure

from committee import terminal
from committee.cli import options, progress, tables
from committee.cli.main import main
from committee.config.recipe import Recipe
from committee.config.study import Row, Study
from committee.data.check import KINDS, DatasetCheck, Finding
from committee.data.dataset import ImageDataset
from committee.folders.check_folder import CheckFolder
from committee.folders.records import AnsweredPlan
from committee.folders.run_folder import RunFolder
from committee.folders.study_folder import StudyFolder
from committee.metrics.results import GridCell, Picture, RowResult, StudyResults
from committee.names import csv_cell, csv_text, file_name, json_text, markdown, unicode_text, visible
from committee.report import image_plots, plots, run_page, study_page, study_plots, style
from committee.report.check_page import check_page, rows
from committee.report.formatting import shown_command
from committee.runs.prediction_stream import write_predictions
from committee.runs.predictions import Predictions, write
from committee.training.jobs import Failed
from committee.training.state import StepProgress
from test_report import Shape, data_of, environment, epoch, study_results, write_run

UNDRAWABLE = "\ue000"  # no font has it: the page says so, whatever else there is
HOSTILE = (*map(unicode_text, NAMES), UNDRAWABLE)
PLAIN = (*(harmless(name, number) for number, name in enumerate(NAMES)), UNDRAWABLE)
TWELVE = tuple(payloads[0] for payloads in FAMILIES.values())[:12]
"""The class names of the run that is really trained."""

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def test_there_are_names_enough() -> None:
    assert len(NAMES) >= 200
    record_figure("names", f"{len(NAMES)} names of {len(FAMILIES)} families")


def hidden(text: str, allowed: str = "") -> set[str]:
    """The characters of a text that steer a terminal or that nobody sees."""
    assert not re.search("[\u0300-\u036f]{5}", text)
    joiners = "" if text.isascii() else "\u200c\u200d"
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {c for c in text if unicodedata.category(c) in kinds and c not in allowed + joiners}


# --- a real run, through the command line -----------------------------------------------------------------------------


def committee(*arguments: str) -> Result:
    """A command in this process; what it prints has no character that steers a terminal."""
    result = CliRunner().invoke(main, arguments)
    assert hidden(result.output, "\n\t") == set()
    assert result.exit_code in (0, 2, 3), result.output
    return result


@pytest.fixture(scope="module")
def trained(digits: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Result]]:
    """The folder in which a run was trained on a file with a hostile name and hostile class names; what was printed."""
    folder = tmp_path_factory.mktemp("hostile")
    few, file = slice(0, 600), f"-<img src=x onerror={MARK}>\x1b[31m\u202e.npz"
    labels = np.arange(600) % len(TWELVE)
    np.savez(folder / file, images=digits.train.pixels[few], labels=labels, class_names=np.array(TWELVE))
    before = Path.cwd()
    os.chdir(folder)
    try:
        changes = ("--members", "2", "--epochs", "1", "--workers", "1", "--set", "network.widths=[8,8,8]")
        yield folder, committee("train", *changes, "--", file)
    finally:
        os.chdir(before)


def run_in(folder: Path) -> RunFolder:
    """The one run below a folder, and nothing beside it."""
    (path,) = (folder / "runs").iterdir()
    return RunFolder.finished(path)


def test_a_run_folder_has_a_safe_name_and_everything_stays_inside(trained: tuple[Path, Result]) -> None:
    folder, printed = trained
    assert printed.exit_code == 0, printed.output
    run = run_in(folder)
    assert re.fullmatch(r"img src=x onerror=\S+-standard-seed0", run.path.name)
    assert not re.search(r'[\x00-\x1f/\\<>:"|?*]', run.path.name)
    assert run.data.class_names == TWELVE
    assert {path.name for path in folder.iterdir() if path.suffix != ".npz"} == {"runs"}
    assert shlex.split(run.command)[0] == "committee"


def test_every_table_of_a_run_is_safe(trained: tuple[Path, Result]) -> None:
    run = run_in(trained[0])
    found = sorted(run.tables.glob("*.csv"))
    assert {"misclassified_train.csv", "misclassified_test.csv", "confusion.csv"} <= {path.name for path in found}
    for path in found:
        assert_safe_csv(path.read_text(encoding="utf-8"))


def test_commands_that_read_a_run_print_names_as_text(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    run, file = str(run_in(folder)), next(folder.glob("*.npz")).name
    hostile = folder / "images"
    hostile.mkdir()
    written = 0
    for number, name in enumerate(NAMES):
        path = os.fsencode(f"{number}{name}"[:200].replace("/", "-").replace("\0", "-").replace("\ud800", "-"))
        with open(os.fsencode(hostile) + b"/" + path[:240] + b".png", "wb") as content:  # noqa: PTH123 - bytes
            Image.fromarray(np.full((8, 8), number % 256, np.uint8)).save(content, "PNG")
            written += 1
    for form in ("csv", "json", "parquet"):
        assert committee("predict", run, "images", "--out", f"answers.{form}").exit_code == 0
    assert_safe_csv((folder / "answers.csv").read_text(encoding="utf-8"))
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    assert len(answers) == written
    assert list(answers[0]["probabilities"]) == list(TWELVE)
    for arguments in (
        ("predict", run, "images"),
        ("predict", run, "images", "--format", "csv"),
        ("predict", run, "images", "--format", "json"),
        ("compare", run, run),
        ("verify", run),
        ("evaluate", run),
        ("data", "info", "--", file),
        ("data", "check", "--out", "checked", "--", file),
        ("verify", run, "\x1b]0;t\x07\u202e"),
        ("predict", run, "\x1b]0;t\x07\u202e missing"),
        ("train", "\x1b]0;t\x07\u202e missing"),
        ("train", "digits", "--recipe", "\x1b]0;t\x07\u202e\nError: forged"),
        ("\x1b]0;t\x07\u202e",),
        ("train", "digits", "--\x1b]0;t\x07\u202e"),
        ("train", "digits", "--seed", "\x1b]0;t\x07\u202e"),
    ):
        printed = committee(*arguments).output
        assert "csv" in arguments or not re.search(r"^(Note|Error): forged", printed, re.MULTILINE)
    assert "[red]red[/red]" in committee("data", "info", "--", file).output
    assert_safe_csv((folder / "checked" / "findings.csv").read_text(encoding="utf-8"))


def test_a_terminal_that_has_few_characters_shows_escapes(
    trained: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    main.main(["compare", *[str(run_in(trained[0]))] * 2], standalone_mode=False)
    terminal.console().print(terminal.plain("\u306d\u3053"))
    shown.flush()
    assert shown.buffer.getvalue().endswith(b"\n\\u306d\\u3053\n")  # type: ignore[attr-defined]


# --- pages ------------------------------------------------------------------------------------------------------------


class Elements(html.parser.HTMLParser):
    """The elements of a page with the names of their attributes; those that no name may change with their values."""

    FIXED = ("class", "style", "width", "height", "scope", "role", "rel", "http-equiv")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.text: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple((name, value if name in self.FIXED else "") for name, value in attrs)))
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        self.text += [value or "" for name, value in attrs if name in ("title", "alt")]

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}", ()))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.found.append((f"<!--{data}", ()))


def elements(text: str) -> Elements:
    found = Elements()
    found.feed(text)
    found.close()
    return found


def assert_alike(hostile: str, plain: str) -> None:
    """A page with hostile names is made of what the same page with harmless ones is made of."""
    assert hidden(hostile, "\n\t") == set()
    found, wanted = elements(hostile), elements(plain)
    assert found.found == wanted.found
    assert all(re.match(r"#|data:image/(png|jpeg);base64,[A-Za-z0-9+/=]*$", each) for each in found.addresses)
    text = "\n".join(found.text)
    assert text.count(MARK) > 0
    assert "{{7*7}}" in text


def many_classes(path: Path, names: Sequence[str]) -> RunFolder:
    """The folder of a synthetic run with all these class names, which are those of its images, data and texts, too."""
    folder = write_run(path, Shape(tuple(names), images=len(names), members=2, limit=len(names)))
    results, label = folder.results, iter((*names, "caf\udce9") * 20)

    def named(picture: Picture) -> Picture:
        return picture.model_copy(update={"name": next(label)})

    galleries = tuple(
        each.model_copy(update={"pictures": tuple(map(named, each.pictures))}) for each in results.galleries
    )
    members = tuple(each.model_copy(update={"remark": names[each.member]}) for each in results.members)
    folder.write_results(results.model_copy(update={"galleries": galleries, "members": members}))
    texts = {"name": names[0], "source": names[1], "notes": names, "warnings": names}
    folder.write_data(folder.data.model_copy(update=texts))
    folder.write_environment(environment().model_copy(update={"processor": names[2]}))
    return folder


def renamed(folder: Path, copy: Path) -> None:
    """A copy of a folder in which every hostile name is the harmless one in its place."""
    names = dict(zip(HOSTILE, PLAIN, strict=True))

    def translated(value: object) -> object:
        if isinstance(value, dict):
            by_name = value.keys() <= names.keys()  # such as the images of each class
            return {names[k] if by_name else k: translated(each) for k, each in value.items()}
        if isinstance(value, list):
            return list(map(translated, value))
        return names.get(value, value) if isinstance(value, str) else value

    shutil.copytree(folder, copy)
    for path in copy.rglob("*.json"):
        path.write_text(json.dumps(translated(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")


def page_of_run(path: Path, names: Sequence[str]) -> str:
    folder = RunFolder(path)
    folder.write_command(" ".join(names[:40]))
    folder.write_recipe(folder.recipe.model_copy(update={"summary": names[3], "citation": names[4]}))
    return run_page.write_run_page(RunFolder(path)).read_text(encoding="utf-8")


def study_of(path: Path, names: Sequence[str]) -> StudyFolder:
    """The folder of a synthetic study in which every text is one of these names."""
    results, shown = study_results(np.random.default_rng(3))
    text, number = iter(names * 9), itertools.count()

    def named(row: RowResult) -> RowResult:
        against = row.difference and row.difference.model_copy(update={"against": next(text)})
        change = {
            "name": next(text),
            "change": next(text),
            "model": f"{next(number)}{next(text)}",
            "remark": next(text),
        }
        return row.model_copy(update={**change, "audits": (next(text),), "difference": against})

    repeated = [named(row) for _ in range(20) for row in results.rows]
    assert results.grid
    cells = tuple(
        GridCell(values=(next(text),), validation=cell.validation, test=cell.test, published=None, within_noise=False)
        for _ in range(40) for cell in results.grid.cells
    )  # fmt: skip
    grid = results.grid.model_copy(update={"axes": (next(text),), "cells": cells, "choice": next(text)})
    discussion = tuple(each.model_copy(update={"text": next(text)}) for each in results.discussion)
    warnings = tuple(f"note {name}." for name in names)
    texts = {"name": names[0], "title": names[1], "summary": names[2], "data": names[3], "warnings": warnings}
    folder = StudyFolder(path)
    folder.path.mkdir(parents=True)
    row = Row(name="a", change="b")
    declared = Study(name="toy", title=names[1], summary=names[2], citation=names[5], rows=(row,))
    folder.write_declaration(declared)
    shape = Shape(tuple(names[:2]), images=40)
    folder.write_data(data_of(shape).model_copy(update={"notes": tuple(names)}))
    folder.write_environment(environment())
    folder.write_command(" ".join(names[:40]))
    changed = {"rows": tuple(repeated), "grid": grid, "discussion": discussion}
    plan = AnsweredPlan(rows=(), models=(), keep_sealed=False, transductive=False)
    folder.write_results(results.model_copy(update={**texts, **changed}), plan)
    for row in repeated[:3]:
        folder.model(row.model).path.mkdir(parents=True, exist_ok=True)
        folder.model(row.model).write_recipe(Recipe.model_validate(small_content()))
        folder.model(row.model).member(0).write_history((epoch(1, 0.6), epoch(2, 0.8)))
    samples = np.zeros((2, 12, *shape.size), np.uint8)
    folder.write_pictures({"samples": samples, "class_means": samples[:, 0], "test": samples[0, :1].repeat(shown, 0)})
    return folder


def small_content() -> dict[str, object]:
    from committee.config import recipe_parsing

    return recipe_parsing.load("standard", ["training.epochs=2"]).model_dump()


def check_of(names: Sequence[str]) -> DatasetCheck:
    """A check of which every kind has findings with these names."""
    text = iter(names * 20)
    findings = []
    for kind in KINDS:
        single = kind in ("blank", "polarity", "outlier")
        for number in range(60):
            one = {"kind": kind, "label": next(text), "distance": 0.5}
            if kind not in ("small class", "alike"):
                one |= {"index": number, "name": next(text)}
                other = {"other_part": "train", "other_index": number, "other_name": next(text)}
                one |= {} if single else {**other, "other_label": next(text)}
            findings.append(Finding.model_validate(one))
    return DatasetCheck(
        data=names[0], train_images=60, test_images=60, notes=tuple(names), findings=tuple(findings), near_found=0.9
    )


def page_of_check(names: Sequence[str]) -> str:
    blank = np.zeros((60, 8, 8, 1), np.uint8)
    return check_page(check_of(names), blank, blank).render()


def empty(*names: str) -> Callable[..., dict[str, Figure]]:
    """Figures in which nothing is drawn: they have tests of their own, and hundreds of classes take long."""
    return lambda *_: {name: Figure(figsize=(4, 3)) for name in names}


def of_study(results: StudyResults, *_: object) -> dict[str, Figure]:
    return empty("row_accuracies", "curves", "rates", *(f"confusion_{row.name}" for row in results.rows[:6]))()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """The pages with hostile names, and with harmless ones."""
    folder = tmp_path_factory.mktemp("pages")
    many_classes(folder / "run0", HOSTILE)
    renamed(folder / "run0", folder / "run1")
    of_run = ("learning_loss", "size_accuracy", "size_loss", "headline", "confusion", "classes", "reliability")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_page, "page_figures", empty(*of_run))
        patch.setattr(run_page, "image_figures", empty("test_../../x"))
        patch.setattr(study_page, "figures", of_study)
        runs = [page_of_run(folder / f"run{n}", names) for n, names in enumerate((HOSTILE, PLAIN))]
        studies = [
            study_page.write_study_page(study_of(folder / f"study{n}", names)).read_text(encoding="utf-8")
            for n, names in enumerate((HOSTILE, PLAIN))
        ]
    checks = [page_of_check(names) for names in (HOSTILE, PLAIN)]
    assert {path.name for path in folder.iterdir()} == {"run0", "run1", "study0", "study1"}
    below = {path.name for path in folder.glob("*/*") if path.is_dir()}
    assert below == {"figures", "tables", "models", "members"}
    for path in folder.rglob("*.csv"):
        assert_safe_csv(path.read_text(encoding="utf-8"))
    assert_safe_markdown((folder / "study0" / "tables" / "study.md").read_text(encoding="utf-8"))
    return {"run": (runs[0], runs[1]), "study": (studies[0], studies[1]), "check": (checks[0], checks[1])}


@pytest.mark.parametrize("kind", ["run", "study", "check"])
def test_a_page_is_made_of_the_same_elements_whatever_the_names(kind: str, pages: dict[str, tuple[str, str]]) -> None:
    hostile, plain = pages[kind]
    assert_alike(hostile, plain)
    text = " ".join("".join(elements(hostile).text).split())
    missing = [name for name in HOSTILE if " ".join(visible(name, lines=True).split()) not in text]
    assert not missing or kind == "study"  # which shows a part of them


def injected(text: str, folder: Path) -> bool:
    """Whether a browser runs something of a page."""
    assert BROWSER
    (folder / "page.html").write_text(text, encoding="utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={folder}/profile", "--virtual-time-budget=2000", "--dump-dom", f"file://{folder}/page.html",
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False).stdout
    assert "</html>" in shown
    return re.search(r"<html[^>]*data-injected", shown) is not None


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_a_browser_runs_nothing_of_any_page(pages: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    whole = "\n".join(text.partition("<body>")[2].rpartition("</body>")[0] for text, _ in pages.values())
    head = pages["run"][0].partition("<body>")[0]
    assert not injected(f"{head}<body>{whole}</body></html>", tmp_path)
    unescaped = jinja2.Template("{{ name }}", autoescape=False).render(name=NAMES[0])
    assert injected(f"<html><body>{unescaped}</body></html>", tmp_path)  # or this test would notice nothing


# --- tables -----------------------------------------------------------------------------------------------------------

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-?inf|nan", re.IGNORECASE | re.ASCII)
FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def assert_safe_csv(text: str) -> None:
    """No cell is a formula, where semicolons, tabs or lines separate cells, too; every row is as long as the header."""
    assert hidden(text, "\n\t") == set()
    header, *others = csv.reader(io.StringIO(text, newline=""))
    assert {len(row) for row in others} <= {len(header)}
    for cell in (cell for row in (header, *others) for cell in row):
        parts = [] if NUMBER.fullmatch(cell) else [cell, *re.split(r"[;\t\n]", cell)]
        assert not [part for part in parts if part.lstrip()[:1] in FORMULAS and part.strip()], repr(cell)
        assert not cell.startswith(("\t", "\r"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cell_of_csv_is_text_or_a_number(family: str, tmp_path: Path) -> None:
    names = [name for name in NAMES if any(payload in name for payload in FAMILIES[family])]
    text = csv_text(["class", *names], [[name, -0.5, name, *[7] * (len(names) - 2)] for name in names])
    assert_safe_csv(text)
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[1] for row in read[1:]] == ["-0.5"] * len(names)
    assert len({csv_cell(name) for name in NAMES}) == len(NAMES)  # different names stay different
    run = RunFolder(tmp_path)
    run.write_misclassified("test", [(1, name, name, 0.25, 0.75, name) for name in names])
    CheckFolder(tmp_path).write_table(*rows(check_of(NAMES)))
    for path in (*tmp_path.rglob("*.csv"),):
        assert_safe_csv(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["cat", "7", "-1", "+1", "-0.5", "1e-5", "a-b", "a=b", "it's", "a; b", "\u306d\u3053"])
def test_harmless_names_are_as_they_are_everywhere(name: str) -> None:
    assert csv_cell(name) == visible(name) == name
    assert json.loads(json_text(name)) == name
    assert json_text(name) == json.dumps(name, ensure_ascii=False)
    assert file_name(name).removeprefix("-") == name.lstrip("-")


def predicted(names: Sequence[str]) -> Predictions:
    count = len(names)
    probabilities = np.full((count, count), 0.5 / count) + 0.5 * np.eye(count)
    nothing = np.full(count, np.nan)
    return Predictions(names, names, probabilities, nothing, nothing, np.empty(0, np.int64), "", [(NAMES[0], NAMES[1])])


def test_predictions_are_valid_and_safe_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = predicted(NAMES)
    for form in ("csv", "json"):
        write(found, form, tmp_path / f"a.{form}")
        write(found, form, None)
        assert hidden(capsys.readouterr().out, "\n\t") == set()
    assert_safe_csv((tmp_path / "a.csv").read_text(encoding="utf-8"))
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:-1]
    best = [max((name for name in row if name.startswith("p(")), key=lambda name: float(row[name])) for row in rows]
    assert best == [f"p({row['prediction']})" for row in rows]  # so that they can be joined by name
    records = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [record["prediction"] for record in records[:-1]] == list(NAMES)
    write(found, "table", None)
    assert hidden(capsys.readouterr().out, "\n") == set()
    parquet = pytest.importorskip("pyarrow.parquet")
    write_predictions(found, tmp_path / "a.parquet")
    stored = parquet.read_table(tmp_path / "a.parquet")
    kept = [name.encode(errors="backslashreplace").decode() for name in NAMES]
    assert stored["prediction"].to_pylist() == [*kept, None]


def assert_safe_markdown(text: str) -> None:
    """Nothing but tables, lists and the emphasis of the warnings."""
    assert hidden(text, "\n") == set()
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inner = [each for token in tokens for each in (token.children or [])]
    strange = {each.type for each in inner} - {"text", "strong_open", "strong_close", "softbreak", "text_special"}
    assert strange == set()
    assert not {token.type for token in tokens} & {"html_block", "heading_open", "fence", "code_block", "hr"}


def test_a_cell_of_markdown_is_its_name() -> None:
    lines = ["| a |", "| --- |", *(f"| {markdown(name)} |" for name in NAMES)]
    tokens = MarkdownIt("commonmark").enable("table").parse("\n".join(lines))
    shown = ["".join(each.content for each in token.children or []) for token in tokens if token.type == "inline"]
    assert shown[1:] == [visible(name).strip() for name in NAMES]


# --- the terminal -----------------------------------------------------------------------------------------------------


def test_terminal_lines_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(*NAMES)
    terminal.say(*NAMES, err=True)
    printed = capsys.readouterr()
    for text in printed:
        assert text.split("\n") == [*map(visible, NAMES), ""]
        assert hidden(text, "\n") == set()


def test_tables_on_the_terminal_show_names_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.show_study(study_of(tmp_path / "study", HOSTILE).results)
    members = many_members(tmp_path / "run")
    terminal.console(width=200).print(tables.members_table(members.results), "[bold]kept[/bold]")
    terminal.say(*tables.closing_lines(members.results))
    text = capsys.readouterr().out
    assert hidden(text, "\n") == set()
    assert "[red]red[/red]" in text
    assert "[bold]kept[/bold]" in text
    assert ":smile:" in text


def many_members(path: Path) -> RunFolder:
    folder = write_run(path, Shape(NAMES[:3], failed=True))
    failed = [each.model_copy(update={"remark": "[red]\x1b[31m"}) for each in folder.results.members]
    folder.write_results(folder.results.model_copy(update={"members": tuple(failed)}))
    return folder


@pytest.mark.parametrize("bars", [True, False])
def test_progress_shows_names_as_text(bars: bool, capsys: pytest.CaptureFixture[str]) -> None:
    clock = progress.Clock({(name, 0): (1, 1.0) for name in NAMES}, may_stop_early=False)
    shown = progress.Bars(clock, NAMES[0]) if bars else progress.Lines(clock)
    with shown:
        for name in NAMES:
            shown(StepProgress(0, 1, 1, 2, 0.5, name))
            shown(Failed(0, name, name))
    text = capsys.readouterr().err
    assert hidden(text, "\n") == set()
    assert "[red]red[/red] 00" in text


def test_representations_have_no_hidden_characters(digits: ImageDataset, tmp_path: Path) -> None:
    from dataclasses import replace

    for name in NAMES:
        for shown in (repr(replace(digits, name=name)), repr(RunFolder(tmp_path / name.replace("\0", "")))):
            assert hidden(shown) == set()


# --- figures ----------------------------------------------------------------------------------------------------------


@contextmanager
def no_mathematics() -> Iterator[None]:
    def parse(*_: object) -> None:
        raise AssertionError("a name was read as mathematics")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MathTextParser, "parse", parse)
        yield


def drawn(figure: Figure) -> None:
    figure.set_dpi(20)
    assert style.as_png(figure).startswith(b"\x89PNG")


FIGURES: dict[str, Callable[[Sequence[str]], Figure]] = {
    "confusion": lambda names: plots.confusion(np.eye(len(names), dtype=int).tolist(), names),
    "samples": lambda names: image_plots.samples_and_means(
        np.zeros((len(names), 12, 8, 8, 1), np.uint8), np.zeros((len(names), 8, 8, 1), np.uint8), names
    ),
    "rates": lambda names: plots.learning_rates({name: [(0, 0.1), (1, 0.2)] for name in names}, width=9.6),
    "rows": lambda names: study_plots.row_accuracies(named_rows(names), published=False),
}


def named_rows(names: Sequence[str]) -> list[RowResult]:
    row = study_results(np.random.default_rng(3))[0].rows[0]
    return [row.model_copy(update={"name": name}) for name in names]


@pytest.mark.parametrize("kind", FIGURES)
def test_figures_draw_any_name_as_text(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "DPI", 20)
    with no_mathematics():
        for start in range(0, len(NAMES), 60):
            drawn(FIGURES[kind](NAMES[start : start + 60]))


def test_labels_of_figures_are_short_and_one_line() -> None:
    for number, name in enumerate(NAMES):
        label = style.label(name, number, 16)
        assert len(label.replace(r"\$", "$")) <= 16
        assert hidden(label) == set()
        assert re.search(r"(?<!\\)\$", label) is None


# --- paths, commands, TOML --------------------------------------------------------------------------------------------


def test_file_names_stay_in_their_folder(tmp_path: Path) -> None:
    for name in NAMES:
        part = file_name(name)
        assert part == part.strip(" .")
        assert not part.startswith(("-", "."))
        assert not re.search(r'[\x00-\x1f/\\<>:"|?*]', part)
        assert 0 < len(part.encode()) <= 101
        assert not Path(part).is_reserved() if hasattr(Path, "is_reserved") and os.name == "nt" else True
        path = tmp_path / part
        path.write_bytes(b"")
        assert path.resolve().parent == tmp_path.resolve()
    assert [file_name(name) for name in ("con", "NUL.txt", "com1", "console")] == [
        "_con",
        "_NUL.txt",
        "_com1",
        "console",
    ]
    assert StudyFolder(tmp_path).model("../../x").path.parent == tmp_path / "models"


def test_commands_can_be_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setattr(sys, "argv", ["committee", "train", name, "--json"])
        command = options.command_line()
        assert shlex.split(command) == ["committee", "train", name, "--json"]
        assert shlex.split(shown_command(command)) == ["committee", "train", name]
    assert shown_command("committee train 'a --json b' --json") == "committee train 'a --json b'"


def test_toml_keeps_any_text(tmp_path: Path) -> None:
    names = [name for name in NAMES if name == name.encode(errors="ignore").decode()]
    changed = tuple(Row(name=f"row-{number}", change=name, remark=name) for number, name in enumerate(names))
    study = Study(name="a", title=names[0], summary=names[1], citation=names[2], rows=changed)
    folder = StudyFolder(tmp_path)
    folder.write_declaration(study)
    assert Study.model_validate(tomllib.loads(folder.declaration)) == study
