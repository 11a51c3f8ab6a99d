"""The pages: they say what a reader needs whatever a folder holds, stay small and offline, show names as text."""

from __future__ import annotations

import csv
import html
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
import jinja2.meta
import numpy as np
import pytest
from numpy.typing import NDArray

from committee.config import recipe_parsing
from committee.config.recipe import Recipe
from committee.config.study import Row, Study
from committee.data.summary import ClassCount
from committee.folders.records import AnsweredPlan, Environment, EpochRecord, RunData, RunIdentity
from committee.folders.run_folder import RunFolder
from committee.folders.study_folder import StudyFolder
from committee.metrics import error_analysis, scores
from committee.metrics import results as values
from committee.metrics.formatting import percent
from committee.metrics.repeats import Correctness, adjust_for_multiplicity, difference, score_repeats
from committee.metrics.results import Calibration, MemberResult, PartScore, Results, Scores, SizePoint, SizeTemperature
from committee.report import plots, run_sections, sentences, study_sections, style, tables
from committee.report.formatting import shown_command
from committee.report.page import templates
from committee.report.pictures import data_uris, displayable
from committee.report.run_content import Run, page_figures
from committee.report.run_page import write_run_page
from committee.report.study_page import write_study_page

NASTY = ("<script>alert(1)</script>", "$x_1$ & $5", "very long " * 30, "ねこ", "a\nb", '"quoted", =1+1')
FAILURE = "the loss was nan in epoch 1"
WARNING = "mirrored <digits> are not digits"
PUBLICATION = "A. Author & B. Author, “On <digits>”, 2017"


# --- real folders of small synthetic runs -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What a synthetic run is like; its members are right about nine times in ten."""

    names: tuple[str, ...] = NASTY
    members: int = 4
    sealed: bool = False
    holdout: bool = True
    failed: bool = False
    left_out: int = 0
    size: tuple[int, int, int] = (12, 10, 1)
    images: int = 240
    dtype: type = np.uint8
    limit: int = 6


def score_of(images: int, accuracy: float = 0.97) -> PartScore:
    return PartScore(images=images, loss=0.1, accuracy=accuracy)


def member(number: int, shape: Shape) -> MemberResult:
    own = score_of(shape.images)
    return MemberResult(
        member=number, status="finished", remark="ran all epochs", epochs=3, best_epoch=3, seconds=1.5, train=own,
        validation=own if shape.holdout else None, test=None if shape.sealed else own,
    )  # fmt: skip


def failed_member(number: int) -> MemberResult:
    return MemberResult(
        member=number, status="failed", remark=FAILURE, epochs=1, best_epoch=0, seconds=0.5,
        train=None, validation=None, test=None,
    )  # fmt: skip


def epoch(number: int, validation_accuracy: float | None, train_loss: float | None = None) -> EpochRecord:
    return EpochRecord(
        epoch=number, seconds=0.5, images_per_second=480.0, learning_rate=0.001,
        train_loss=1 / number if train_loss is None else train_loss, train_accuracy=1 - 0.3 / number,
        validation_loss=None if validation_accuracy is None else 1.2 / number, validation_accuracy=validation_accuracy,
    )  # fmt: skip


def predictions(shape: Shape, rng: np.random.Generator) -> NDArray[np.float64]:
    """(member, image, class)."""
    classes = len(shape.names)
    labels = np.arange(shape.images) % classes
    logits = rng.normal(size=(shape.members, shape.images, classes)) + 2.2 * np.eye(classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)


def results_of(shape: Shape, rng: np.random.Generator) -> tuple[Results, dict[str, int]]:
    """The figures of a run, and how many pictures of each part its galleries show."""
    labels, names = np.arange(shape.images) % len(shape.names), shape.names
    train, test = predictions(shape, rng), predictions(shape, rng)
    honest = train.copy()
    for number in range(shape.members):
        honest[number, np.arange(shape.images) % 2 == number % 2] = np.nan
    out_of_fold = np.nanmean(honest, axis=0) if shape.members > 1 else honest[0]
    known = np.isfinite(out_of_fold).all(axis=1)
    shown: dict[str, error_analysis.Galleries] = {}
    if not shape.sealed:
        shown["test"] = error_analysis.galleries(test.mean(axis=0), test, labels, part="test", limit=shape.limit)
    if shape.holdout:
        shown["train"] = error_analysis.galleries(out_of_fold, honest, labels, part="train", limit=shape.limit)
    sizes = tuple(
        SizePoint(members=n, subsets=3, accuracy=0.9 + n / 100, accuracy_low=0.88, accuracy_high=0.97, log_loss=0.3 / n)
        for n in range(1, shape.members + 1)
    )
    temperature = SizeTemperature(members=1, images=shape.images, temperature=1.1)
    opening = values.TestOpening(opened="2026-01-02T03:04:05+00:00", purpose="final evaluation", images=shape.images)
    results = Results(
        members=(
            *(member(number, shape) for number in range(shape.members)),
            *([failed_member(shape.members)] if shape.failed else []),
        ),
        left_out=shape.left_out,
        committee_train=scores.score(train.mean(axis=0), labels, names),
        out_of_fold=scores.score(out_of_fold[known], labels[known], names) if shape.holdout else None,
        out_of_fold_members=shape.members / 2 if shape.holdout else None,
        out_of_fold_remark="each image is predicted only by members that did not train on it",
        test=None if shape.sealed else scores.score(test.mean(axis=0), labels, names),
        calibration=Calibration(
            temperature=1.1, by_size=(temperature,), test_log_loss=None, test_calibration_error=None
        )
        if shape.holdout
        else None,
        size_curve_out_of_fold=sizes if shape.holdout else (),
        size_curve_test=() if shape.sealed else sizes,
        agreement=error_analysis.agreement(honest if shape.sealed else test, on="train" if shape.sealed else "test"),
        galleries=tuple(gallery for each in shown.values() for gallery in each.galleries),
        test_openings=() if shape.sealed else (opening,),
        seconds_training=12.0,
        seconds_total=13.0,
    )
    return results, {part: len(each.positions) for part, each in shown.items()}


def data_of(shape: Shape) -> RunData:
    each = shape.images // len(shape.names)
    return RunData(
        name="toy", images=2 * shape.images, train_images=shape.images, test_images=shape.images,
        classes=len(shape.names), class_names=shape.names, shape=shape.size, bits=8,
        counts={name: ClassCount(train=each, test=each) for name in shape.names},
        digest="d" * 64, train_digest="a" * 64, test_digest="b" * 64, test_images_also_in_train=0,
        source="https://example.org/toy.zip", warnings=(WARNING,), notes=("a note with <i>",),
    )  # fmt: skip


def environment() -> Environment:
    return Environment(
        committee="0.5.0", python="3.11", torch="2.13.0", numpy="2.4", system="Linux", processor="a <fast> one",
        cores=2, device="cpu", precision="float32", kernels="avx2", workers=2,
    )  # fmt: skip


def write_run(path: Path, shape: Shape = Shape(), *changes: str) -> RunFolder:
    """The folder of a run as evaluation leaves it, without its page; `changes` are those of the recipe."""
    rng = np.random.default_rng(1)
    folder = RunFolder(path)
    planned = shape.members + shape.failed + shape.left_out
    holdout = "holdout.folds=2" if shape.holdout else "holdout.kind=none"
    recipe = recipe_parsing.load("standard", [f"committee.members={planned}", holdout, "training.epochs=3", *changes])
    identity = RunIdentity(
        recipe=recipe.content(), train_images="a" * 64, test_images="b" * 64, seed=7, device="cpu",
        precision="float32", committee="0.5.0", torch="2.13.0",
    )  # fmt: skip
    results, shown = results_of(shape, rng)
    folder.begin(identity)
    folder.write_recipe(recipe)
    folder.write_data(data_of(shape))
    folder.write_environment(environment())
    folder.write_command("committee train toy --json --set 'x=<y>' --set x=--jsonl")
    folder.write_results(results)
    for number in range(shape.members):
        accuracies = [1 - 0.2 / (n + 1) if shape.holdout else None for n in range(3)]
        folder.member(number).write_history(tuple(epoch(n, each) for n, each in enumerate(accuracies, start=1)))
    if shape.failed:
        folder.member(shape.members).write_history((epoch(1, 0.1, train_loss=float("nan")),))
    top, size, classes = np.iinfo(shape.dtype).max, shape.size, len(shape.names)
    parts = {part: rng.integers(top, size=(number, *size), dtype=shape.dtype) for part, number in shown.items()}
    samples = rng.integers(top, size=(classes, 12, *size), dtype=shape.dtype)
    folder.write_pictures({"samples": samples, "class_means": samples[:, 0], **parts})
    return folder


def read_run(path: Path) -> RunFolder:
    return RunFolder(path)


def page_of(folder: RunFolder) -> str:
    return write_run_page(folder).read_text(encoding="utf-8")


def write_page(path: Path, shape: Shape = Shape(), *changes: str) -> str:
    return page_of(write_run(path, shape, *changes))


def scored(rights: tuple[int, ...], wrongs: tuple[int, ...]) -> Scores:
    """Scores with so many correct and wrong predictions of each class; a wrong one is always the first other class."""
    labels = np.repeat(np.arange(len(rights)), np.add(rights, wrongs))
    choices = np.concatenate(
        [[c] * right + [int(c == 0)] * wrong for c, (right, wrong) in enumerate(zip(rights, wrongs, strict=True))]
    ).astype(int)
    probabilities = 0.99 * np.eye(len(rights))[choices] + 0.01 / len(rights)
    return scores.score(probabilities, labels, tuple(f"kind {c}" for c in range(len(rights))))


def perfect(path: Path, images: int = 10) -> RunFolder:
    """A run of three members that are right on every image from the second epoch on."""
    folder = write_run(path, Shape(("kind 0", "kind 1"), members=3, images=images))
    everything = scored((images // 2, images // 2), (0, 0))
    own = score_of(images, 1.0)
    sizes = tuple(
        point.model_copy(update={"accuracy": 1.0, "accuracy_low": 1.0, "accuracy_high": 1.0, "log_loss": 1e-5 / n})
        for n, point in enumerate(folder.results.size_curve_test, start=1)
    )
    members = tuple(
        each.model_copy(update={"train": own, "validation": own, "test": own}) for each in folder.results.members
    )
    change = {"test": everything, "out_of_fold": everything, "size_curve_test": sizes, "members": members}
    folder.write_results(folder.results.model_copy(update={**change, "size_curve_out_of_fold": sizes}))
    for number in range(3):
        folder.member(number).write_history(tuple(epoch(n, min(1.0, 0.4 + 0.3 * n)) for n in (1, 2, 3)))
    return folder


# --- reading pages ----------------------------------------------------------------------------------------------------


def text_of(page: str) -> str:
    """What a reader sees of a page, in one line."""
    body = re.sub(r"<style>.*?</style>|</?(?:b|code)>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def section(page: str, key: str) -> str:
    """What a reader sees of one section."""
    found = re.search(rf'<section id="{key}">(.*?)</section>', page, flags=re.DOTALL)
    assert found, f"there is no section {key}"
    return text_of(found.group(1))


def header(page: str) -> str:
    return text_of(page.partition("<nav")[0])


def contents(page: str) -> list[str]:
    """The keys in the table of contents."""
    return re.findall(r'<li><a href="#([^"]+)">', page.partition("<nav")[2].partition("</nav>")[0])


def assert_whole(page: str) -> None:
    """Nothing of a template, of Python or of a missing figure shows, and what comes from data is text."""
    assert page.rstrip().endswith("</html>")
    text = text_of(page)
    for remnant in ("{{", "}}", "{%", "%}", "{#", "Undefined", "object at 0x", "None", "Markup("):
        assert remnant not in text, remnant
    assert "nan" not in text.replace(FAILURE, "").lower().split()
    assert "<script" not in page
    for key in contents(page):
        assert section(page, key)
    assert re.findall(r'<section id="([^"]+)">', page) == contents(page)
    for fragment in re.findall(r'href="#([^"]+)"', page):
        assert page.count(f'id="{fragment}"') == 1, fragment


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that a page can show."""
    folder = write_run(tmp_path_factory.mktemp("run") / "run", Shape(failed=True, left_out=2))
    write_run_page(folder)
    return folder.path


@pytest.fixture
def page(full: Path) -> str:
    return (full / "report.html").read_text(encoding="utf-8")


# --- a run's report ---------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_that_asks_for_nothing_else(page: str) -> None:
    addresses = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']([^"']*)""", page)
    assert len(addresses) > 50
    assert [address[:40] for address in addresses if not address.startswith(("data:image/", "#"))] == []
    assert "@import" not in page
    assert "url(" not in page


def test_names_from_data_are_text(page: str) -> None:
    assert "<i>" not in page.replace("<i style=", "")
    assert "&lt;script&gt;" in page
    assert "A note with &lt;i&gt;" in page
    assert "ねこ" in page
    for figure in (plots.confusion(np.eye(len(NASTY), dtype=int).tolist(), NASTY), plots.classes(())):
        assert not any("$x_1$" in text.get_text() for text in figure.findobj(style.Text))


@pytest.mark.parametrize(
    ("shape", "missing"),
    [
        (Shape(), set()),
        (Shape(failed=True, left_out=2), set()),
        (Shape(sealed=True), set()),
        (Shape(members=1), {"size", "disagreement"}),
        (Shape(holdout=False), set()),
        (
            Shape(holdout=False, sealed=True, members=1),
            {"size", "errors", "galleries", "confidence", "disagreement"},
        ),
        (Shape(names=tuple(f"class {number}" for number in range(70)), images=210, members=2), set()),
        (Shape(size=(8, 8, 4), dtype=np.uint16), set()),
    ],
    ids=["plain", "failed", "sealed", "one-member", "no-holdout", "nothing-to-evaluate", "many-classes", "16-bit"],
)
def test_any_kind_of_run_renders(tmp_path: Path, shape: Shape, missing: set[str]) -> None:
    folder = write_run(tmp_path / "run", shape)
    page, results = page_of(folder), folder.results
    assert_whole(page)
    missing = missing | {"student"}  # tests/test_distillation.py has one
    assert contents(page) == [each.key for each in run_sections.SECTIONS if each.key not in missing]
    head = header(page)
    assert f"{WARNING[0].upper()}{WARNING[1:]}." in head
    if found := results.test or results.out_of_fold:
        interval = found.accuracy_interval
        assert f"{percent(found.accuracy)} of {found.images:,}".replace("\u00a0", " ") in head
        assert f"95 % interval {percent(interval.low)} to {percent(interval.high)}".replace("\u00a0", " ") in head
        shown = "test images are classified correctly" if results.test else "classified correctly out of fold"
        assert shown in head
        for row in found.classes:
            assert f'title="{html.escape(row.name, quote=False).replace(chr(34), "&#34;")}"' in page
    else:
        assert "Not evaluated yet" in head
    assert ("The test images are still sealed." in head) == shape.sealed
    planned = shape.members + shape.failed + shape.left_out
    failure = f"1 of {planned} members failed and is not part of the committee: member 4 ({FAILURE})"
    assert (failure in head) == shape.failed
    assert (f"2 of {planned} planned members were not ready" in head) == bool(shape.left_out)
    assert ("a single network" in head) == (shape.members == 1)
    for name in shape.names[:3]:
        assert html.escape(name[:15], quote=False) in page
    assert "f" * 64 not in page
    assert folder.recipe.digest() in section(page, "record")


def test_every_section_shows_what_its_heading_promises(page: str) -> None:
    promised = {
        "protocol": ("split into 2 equal folds", "Lakshminarayanan et al. 2017", "Wilson 1927"),
        "members": ("fewer", "validation loss", "97.00 %", FAILURE, "weights were kept: the last one", "overfitting"),
        "size": ("committees of each size",),
        "errors": ("240 test images", "true → predicted", "precision", "recall", "F1"),
        "galleries": ("The most confident errors", "The first errors", "The least certain images", "of 4 differ"),
        "confidence": (
            "240 test images, after calibration",
            "expected calibration error",
            "Guo et al. 2017",
            "Brier 1950",
            "temperature",
            "less confident",
        ),
        "disagreement": ("All members predict the same class for", "240 test images", "two members differ on"),
        "data": ("6 classes of images of 12 × 10 pixels: 240 training images", "https://example.org/toy.zip", "40"),
        "record": ("2026-01-02 03:04:05 UTC", "final evaluation", "deep ensembles", "a <fast> one", "seed", "d" * 64),
    }
    assert set(promised) | {"student"} == {each.key for each in run_sections.SECTIONS}
    for key, texts in promised.items():
        for text in texts:
            assert text in section(page, key), (key, text)
    alts = re.findall(r'<img class="plot[^>]*alt="([^"]*)"', page)
    assert len(alts) == 10


def test_an_unknown_name_in_a_template_is_an_error() -> None:
    for text in ("{{ page.unknown }}", "{% if unknown %}x{% endif %}", "{% for each in page.unknown %}{% endfor %}"):
        with pytest.raises(jinja2.UndefinedError):
            templates().from_string(text).render(page=object())
    environment = templates()
    for name in environment.list_templates(extensions=["html"]):
        assert environment.loader
        source = environment.parse(environment.loader.get_source(environment, name)[0])
        assert jinja2.meta.find_undeclared_variables(source) <= {"page", "css", "layouts"}, name


@pytest.mark.parametrize(
    ("sections", "template"),
    [(run_sections.SECTIONS, "run_sections.html"), (study_sections.SECTIONS, "study_sections.html")],
    ids=["run", "study"],
)
def test_every_section_has_a_macro_and_a_title(
    sections: tuple[type[run_sections.RunSection | study_sections.StudySection], ...], template: str
) -> None:
    macros = vars(templates().get_template(template).module)
    for each in sections:
        assert each.key in macros
        assert each.title
    assert len({each.key for each in sections}) == len(sections)


def test_a_new_section_needs_a_dataclass_and_a_macro(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unwritten(run_sections.RunSection):
        key, title = "unwritten", "A section without a macro"

        @classmethod
        def of(cls, run: Run) -> Unwritten:
            return cls()

    monkeypatch.setattr("committee.report.run_page.SECTIONS", (*run_sections.SECTIONS, Unwritten))
    with pytest.raises(jinja2.UndefinedError, match="unwritten"):
        write_run_page(read_run(full))


def test_every_figure_and_table_of_the_page_is_a_file_too(full: Path) -> None:
    results = read_run(full).results
    figures = {path.stem for path in (full / "figures").glob("*.png")}
    assert figures >= {"learning_loss", "learning_accuracy", "size_accuracy", "reliability", "confusion", "agreement"}
    assert figures >= {"confused_pairs", "classes", "samples", "class_means", "headline", "test_first_errors"}
    with (full / "tables" / "members.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == [*["member"] * 4, "failed", "mean", "spread", "out_of_fold", "committee"]
    assert float(rows[0]["test_accuracy"]) == 0.97
    assert float(rows[6]["test_accuracy"]) == pytest.approx(0)
    assert results.test
    assert results.out_of_fold
    assert float(rows[-1]["test_accuracy"]) == results.test.accuracy
    assert float(rows[-2]["validation_accuracy"]) == results.out_of_fold.accuracy
    assert rows[4]["remark"] == FAILURE
    with (full / "tables" / "confusion.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    assert table[0][1:] == list(NASTY)
    assert [int(cell) for cell in table[1][1:]] == list(results.test.confusion[0])
    with (full / "tables" / "history.csv").open(encoding="utf-8", newline="") as file:
        history = list(csv.DictReader(file))
    assert [(row["member"], row["epoch"]) for row in history[:4]] == [("0", "1"), ("0", "2"), ("0", "3"), ("1", "1")]
    assert float(history[2]["train_loss"]) == 1 / 3
    names = {path.stem for path in (full / "tables").glob("*.csv")}
    assert names >= {"classes", "confused_pairs", "sizes", "mistakes", "history", "reliability", "agreement"}


def test_while_the_test_is_sealed_the_page_shows_out_of_fold_figures(tmp_path: Path) -> None:
    page = write_page(tmp_path / "run", Shape(sealed=True))
    assert "out of fold, by members that did not train on them" in header(page)
    assert "comes from training images, predicted out of fold" in header(page)
    assert "never been opened" in section(page, "protocol")
    assert "training images, predicted out of fold" in section(page, "errors")
    assert "predicted out of fold, before calibration" in section(page, "confidence")
    assert "training images that two or more members did not train on" in section(page, "disagreement")
    assert "Never." in section(page, "record")
    assert "test images are classified correctly" not in page


def test_members_that_died_and_sealed_test_images_are_told_in_one_box(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Shape(sealed=True))
    why = "its worker process was killed by SIGKILL, the third time"
    for number, are_dead in ((1, "1 of 4 members died, so that the committee has only 3"),
                             (2, "2 of 4 members died, so that the committee has only 2")):  # fmt: skip
        dead = {"status": "died", "remark": why, "train": None, "validation": None, "best_epoch": 0}
        members = [row.model_copy(update=dead if row.member < number else {}) for row in folder.results.members]
        folder.write_results(folder.results.model_copy(update={"members": tuple(members)}))
        head = header(page_of(folder))
        assert f"a committee of {4 - number} of 4 members" in head
        missing = "missing member" if number == 1 else "2 missing members"
        each = " ".join(f"Member {member}: {why}." for member in range(number))
        told = f"{are_dead}. {each} The same command trains the {missing}. The test images are still sealed. "
        assert told in head
        assert head.count("committee evaluate") == 1
        assert "opens them for the committee as it is and writes this report again" in head
        assert page_of(folder).count('class="notice" role="alert"') == 1


def test_a_distance_between_curves_is_explained_where_there_are_two(tmp_path: Path) -> None:
    for sealed in (False, True):
        page = write_page(tmp_path / str(sealed), Shape(sealed=sealed))
        assert ("distance between the two curves" in section(page, "size")) is not sealed


def test_the_out_of_fold_accuracy_below_the_headline_has_its_interval(full: Path, page: str) -> None:
    found = read_run(full).results.out_of_fold
    assert found
    interval = f"95 % interval {percent(found.accuracy_interval.low)} to {percent(found.accuracy_interval.high)}"
    below = header(page).partition("out of fold")[2]
    assert below.startswith(f" {percent(found.accuracy)} {interval}; 240 training images".replace("\u00a0", " "))


def test_a_published_recipe_is_cited(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Shape(("a", "b"), members=2, images=20))
    assert "follows a published" not in page_of(folder)
    folder.write_recipe(folder.recipe.model_copy(update={"citation": PUBLICATION}))
    page = page_of(folder)
    assert PUBLICATION in header(page)
    assert PUBLICATION in section(page, "record").partition("References")[2]
    assert "On <digits>" not in page


# --- sentences --------------------------------------------------------------------------------------------------------


def recipe(*changes: str) -> Recipe:
    return recipe_parsing.load("standard", list(changes))


def test_the_protocol_says_what_was_chosen_on_which_images(full: Path) -> None:
    results = read_run(full).results
    twice = results.model_copy(update={"test_openings": results.test_openings * 2})
    chosen = recipe(
        "holdout.kind=fraction", "training.checkpoint=best_validation_accuracy", "training.patience=3",
        "schedule.name=plateau", "schedule.warmup=0", "committee.tta=horizontal_flip",
    )  # fmt: skip
    text = " ".join(sentences.protocol(twice, chosen))
    for words in (
        "opened its 240 test images 2 times",
        "trust the first opening",
        "20\u00a0% of the training",
        "early stopping",
        "learning rate was reduced and which",
        "best validation accuracy",
        "optimistic",
        "Test-time augmentation",
    ):
        assert words in text
    text = " ".join(sentences.protocol(results, recipe()))
    assert "opened its 240 test images once, on 2026-01-02 (purpose: final evaluation)" in text
    assert "nothing was chosen on validation images" in text
    assert "optimistic" not in text
    assert "augmentation" not in text
    alone = sentences.protocol(results, recipe("committee.members=1"))
    assert not any("deep ensemble" in sentence for sentence in alone)


@pytest.mark.parametrize(
    ("rights", "wrongs", "guessing"),
    [
        ((20, 0), (0, 20), True),  # always the first class
        ((0, 20), (20, 0), True),
        ((12, 12), (8, 8), True),  # 60 %, and half is within the interval
        ((85, 1), (5, 9), True),  # 86 % where 90 % is for nothing, and 1 of 10 found
        ((90, 3), (0, 7), False),  # 93 % where 90 % is for nothing, but no false alarm among 3 of 10 found
        ((386, 9), (2, 3), False),  # 98.8 % where 97 % is for nothing, but 9 of 12 defects found
        ((30, 30), (10, 10), False),
        ((2, 2), (0, 0), False),
        ((6, 6, 6), (4, 4, 4), False),  # 60 % of three classes
    ],
)
def test_guessing_is_told_from_learning(rights: tuple[int, ...], wrongs: tuple[int, ...], guessing: bool) -> None:
    assert tables.no_better_than_guessing(scored(rights, wrongs)) is guessing


@pytest.mark.parametrize(
    ("rights", "wrongs", "verdict", "accuracy"),
    [
        ((20, 0), (0, 20), "This committee is no better than guessing.", "50.00"),
        ((12, 12), (8, 8), "This committee is not shown to be better than guessing.", "60.00"),
    ],
)
def test_a_committee_that_only_guesses_is_told_so_at_the_top(
    rights: tuple[int, ...], wrongs: tuple[int, ...], verdict: str, accuracy: str, tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "run", Shape(("cat", "dog"), members=2, images=40))
    folder.write_results(folder.results.model_copy(update={"test": scored(rights, wrongs)}))
    page = page_of(folder)
    head = header(page)
    assert verdict in head
    assert "Always predicting “cat” would be right for 50.00 % of these images" in head
    assert f"the committee is right for {accuracy} % (95 % interval " in head
    assert "--set training.batch_size=16" in head
    assert "fewer" not in section(page, "members")


def test_the_command_is_shown_without_the_option_json(page: str) -> None:
    assert "committee train toy --set 'x=<y>' --set x=--jsonl" in section(page, "record")
    assert shown_command("committee train toy --json") == "committee train toy"


def test_percentages_never_round_to_certainty() -> None:
    assert percent(0.99) == "99.00\u00a0%"
    assert percent(0.999999) == "99.99\u00a0%"
    assert percent(1.0) == "100.00\u00a0%"
    assert percent(0.00001) == "< 0.01\u00a0%"
    assert percent(0.0) == "0.00\u00a0%"


# --- figures and images -----------------------------------------------------------------------------------------------


def test_labels_of_figures_are_short_plain_and_drawable() -> None:
    assert style.label("$x_1$", 0) == r"\$x_1\$"
    assert style.label("a\nb", 0) == "a b"
    assert style.label("abcdefgh", 0, 5) == "abcd…"
    assert style.label("\U00012000", 7) == "class 7"  # cuneiform
    assert style.label("", 3) == "class 3"


def test_class_names_that_figures_cannot_show_are_explained(tmp_path: Path) -> None:
    page = write_page(tmp_path / "a", Shape(("cat", "\U00012000"), images=20))
    assert "Figures label such a class by its number" in section(page, "errors")
    assert "“class 1” is \U00012000." in section(page, "errors")
    assert "Figures label" not in write_page(tmp_path / "b", Shape(("cat", "dog"), images=20))


def test_the_page_stays_small_with_large_photographs(tmp_path: Path) -> None:
    write_page(tmp_path / "run", Shape(("cat", "dog", "emu", "fox"), size=(96, 96, 3), images=400, limit=50))
    assert (tmp_path / "run" / "report.html").stat().st_size < 6_000_000


def test_pictures_are_made_smaller_only_where_they_must() -> None:
    images = list(np.random.default_rng(0).integers(255, size=(20, 64, 64, 3), dtype=np.uint8))
    assert all(uri.startswith("data:image/png") for uri in data_uris(images, 10**6))
    tight = data_uris(images, 30_000)
    assert all(uri.startswith("data:image/jpeg") for uri in tight)
    assert sum(map(len, tight)) <= 30_000


def test_images_of_any_kind_can_be_shown() -> None:
    grey = np.array([[[0], [128], [255]]], dtype=np.uint8)
    assert displayable(grey).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
    deep = np.array([[[0], [1000], [2000]]], dtype=np.uint16)  # twelve bits in sixteen: the brightest is white
    assert displayable(deep)[0, :, 0].tolist() == [0, 128, 255]
    clear = np.array([[[255, 0, 0, 0], [255, 0, 0, 255]]], dtype=np.uint8)
    assert displayable(clear)[0].tolist() == [[219] * 3, [255, 0, 0]]


def test_a_perfect_committee_is_drawn_whole_and_no_accuracy_axis_passes_100(tmp_path: Path) -> None:
    folder = perfect(tmp_path / "run", images=10)
    figures = page_figures(Run.read(folder))
    for name, horizontal in (("headline", True), ("classes", True), ("size_accuracy", False)):
        axes = figures[name].axes[0]
        assert (axes.get_xlim() if horizontal else axes.get_ylim())[1] == 1
        assert not any(line.get_clip_on() for line in axes.get_lines())
    axes = figures["learning_accuracy"].axes[0]
    heights = axes.transAxes.inverted().transform(axes.transData.transform([(1, 0.95), (1, 1.0)]))[:, 1]
    assert 0.6 < heights[0] < 0.97
    assert heights[1] == pytest.approx(heights[0])  # no error is drawn where half an error of ten would be
    assert axes.get_ylim()[0] < 0.7
    assert axes.yaxis.get_major_formatter()(axes.get_yticks()[-1]) == "100 %"
    for name, figure in figures.items():
        figure.canvas.draw()
        for each in figure.axes:
            assert not each.yaxis.get_offset_text().get_text(), name
            assert each.get_legend() is None, name  # legends are beside the axes, where they cover nothing
    page = page_of(folder)
    assert "there was no error for a committee to correct" in section(page, "members")
    assert "guessing" not in page


@pytest.mark.parametrize("images", [1, 3, 50, 10_000])
def test_accuracy_scales_suit_any_number_of_images(images: int) -> None:
    for accuracies in ([1.0], [0.0], [0.0, 1.0], [1 - 1 / images] * 2):
        history = [epoch(number, value) for number, value in enumerate(accuracies, start=1)]
        figure = plots.accuracy_curves([history], [len(history)], accuracies[-1], images)
        figure.canvas.draw()
        low, high = figure.axes[0].get_ylim()
        assert low <= min(accuracies) <= max(accuracies) <= high


def test_few_members_need_no_matrix(tmp_path: Path) -> None:
    for members, there in ((2, False), (3, False), (4, True)):
        folder = tmp_path / str(members)
        page = write_page(folder, Shape(("a", "b"), members=members, images=20))
        assert ("Matrix of the share" in page) == (folder / "figures" / "agreement.png").exists() == there
        assert "All members predict the same class" in section(page, "disagreement")
        assert (folder / "tables" / "agreement.csv").exists()


# --- a study's page ---------------------------------------------------------------------------------------------------


def repeats(rng: np.random.Generator, number: int, accuracy: float) -> NDArray[np.float64]:
    """(repeat, image): 1 correct, 0 wrong."""
    return (rng.random((number, 200)) < accuracy).astype(float)


def row_result(name: str, right: NDArray[np.float64], members: int = 1) -> values.RowResult:
    score = score_repeats(right)
    return values.RowResult(
        name=name, change=f"{name} & <more>", model=name, members=members, parameters=1234, multiply_adds=9, epochs=3,
        seconds=2.0, validation=score, test=score, member_test=(0.9, 0.92) if members > 1 else (), published=0.95,
        published_members=None, published_parameters=1200, difference=None,
        lr_reductions=(values.LRReduction(member=0, epoch=2, lr=0.0005),), audits=(), stopped=False,
        transductive=False, remark="", confusion=((90, 10), (5, 95)), galleries=(),
        curve=((0.5, 0.6), (0.8, 0.85)),
    )  # fmt: skip


def study_results(rng: np.random.Generator) -> tuple[values.StudyResults, int]:
    """A study of two repeated rows, a committee, and a row that an audit stopped; and the number of its pictures."""
    rights = [repeats(rng, 3, 0.8), repeats(rng, 3, 0.95), repeats(rng, 1, 0.97)]
    rows = [row_result("plain", rights[0]), row_result("deep", rights[1]), row_result("both", rights[2], members=2)]
    compared = adjust_for_multiplicity(
        [
            None,
            difference(Correctness(rights[1]), Correctness(rights[0]), against="plain", on="test"),
            difference(Correctness(rights[2]), Correctness(rights[2]), against="deep", on="test"),
        ]
    )
    labels = np.arange(40) % 2
    probabilities = np.where(rng.random((40, 1)) < 0.8, np.eye(2)[labels], np.eye(2)[1 - labels]) * 0.8 + 0.1
    slots: dict[int, int] = {}
    galleries = error_analysis.study_galleries(
        probabilities, probabilities[None], labels, rng, part="test", names=None, every_error=True,
        slot_of=lambda position: slots.setdefault(position, len(slots)),
    )  # fmt: skip
    rows = [row.model_copy(update={"difference": d}) for row, d in zip(rows, compared, strict=True)]
    rows[2] = rows[2].model_copy(update={"galleries": galleries, "transductive": True})
    nothing = {"validation": None, "test": None, "confusion": (), "curve": (), "stopped": True}
    rows.append(row_result("self", rights[0]).model_copy(update={**nothing, "audits": ("3 of 9 labels are right",)}))
    cell = score_repeats(rights[1])
    results = values.StudyResults(
        name="toy-study", title="A study <of toys>", summary="what helps", data="toy", protocol="published",
        warnings=("QUICK FORM: few images", WARNING), rows=tuple(rows),
        grid=values.GridResult(
            axes=("optimiser.lr",), best=0, choice="0.01 was chosen.", confusion=((9, 1), (0, 10)), confusion_on="test",
            cells=(
                values.GridCell(values=("0.01",), validation=cell, test=cell, published=0.9, within_noise=False),
                values.GridCell(values=("0.1",), validation=cell, test=cell, published=None, within_noise=True),
            ),
        ),
        published_on="", discussion=(
            values.Finding(kind="overall", text="It helps & <so on>."), values.Finding(kind="method", text="Holm.")
        ),
        test_openings=(values.TestOpening(opened="2026-01-02T03:04:05+00:00", purpose="the study", images=200),),
        seconds=99.0,
    )  # fmt: skip
    return results, len(slots)


def write_study(path: Path) -> StudyFolder:
    rng = np.random.default_rng(3)
    results, shown = study_results(rng)
    folder = StudyFolder(path)
    folder.path.mkdir(parents=True)
    shape = Shape(("cat", "<b>dog</b>"), images=40)
    study = Study(
        name="toy-study", title=results.title, summary=results.summary, citation=PUBLICATION,
        rows=tuple(Row(name=row.name, change=row.change) for row in results.rows),
    )  # fmt: skip
    folder.write_declaration(study)
    folder.write_data(data_of(shape))
    folder.write_environment(environment())
    folder.write_command("committee study toy-study --json --quick")
    folder.write_results(results, AnsweredPlan(rows=(), models=(), keep_sealed=False, transductive=False))
    for row in results.rows[:3]:
        folder.model(row.model).path.mkdir(parents=True, exist_ok=True)
        folder.model(row.model).write_recipe(recipe("training.epochs=3"))
        folder.model(row.model).member(0).write_history((epoch(1, 0.6), epoch(2, 0.8)))
    samples = rng.integers(255, size=(2, 12, *shape.size), dtype=np.uint8)
    folder.write_pictures({"samples": samples, "class_means": samples[:, 0], "test": samples[0, :1].repeat(shown, 0)})
    return folder


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    folder = write_study(tmp_path_factory.mktemp("study") / "study")
    write_study_page(folder)
    return folder


@pytest.fixture
def study_page(study_folder: StudyFolder) -> str:
    return study_folder.page.read_text(encoding="utf-8")


def test_a_study_page_is_whole_and_shows_names_as_text(study_page: str) -> None:
    assert_whole(study_page)
    assert contents(study_page) == [each.key for each in study_sections.SECTIONS]
    head = header(study_page)
    assert "A study <of toys>" in head
    assert "QUICK FORM: few images." in head
    assert f"{WARNING[0].upper()}{WARNING[1:]}." in head
    assert "<of toys>" not in study_page
    assert "<more>" not in study_page
    assert "&lt;b&gt;dog&lt;/b&gt;" in study_page


def test_a_study_cites_the_published_work_and_its_methods(study_page: str) -> None:
    assert PUBLICATION in header(study_page)
    references = section(study_page, "record").partition("References")[2].partition("Environment")[0]
    for name in (PUBLICATION, "Wilson", "McNemar", "Tango", "Holm", "Lakshminarayanan"):
        assert name in references
    text = section(study_page, "record")
    for citation in ("Wilson 1927", "McNemar 1947", "Tango 1998", "Holm 1979"):
        assert citation in text


def test_every_accuracy_of_a_study_has_its_interval_and_its_repeats(study_folder: StudyFolder, study_page: str) -> None:
    table = section(study_page, "table")
    for row in study_folder.results.rows[:3]:
        assert row.test
        low, high = 100 * row.test.interval.low, 100 * row.test.interval.high
        spread = "" if row.test.spread is None else f"± {100 * row.test.spread:.2f} "
        figure = f"{percent(row.test.mean)} {spread}{low:.2f} to {high:.2f}".replace("\u00a0", " ")
        assert table.count(figure) == 2  # validation and test
    assert "published 1,200" in table
    assert "TRANSDUCTIVE" in table
    assert "not trained: see the audit" in table
    assert "1 × 2" in table
    found = study_folder.results.rows[1].difference
    assert found
    assert found.verdict == "better"
    assert f"{100 * found.points:+.2f} {100 * found.interval.low:+.2f} to {100 * found.interval.high:+.2f}" in table
    grid = section(study_page, "grid")
    for text in ("0.01 was chosen.", "chosen", "not distinguishable from it", "90.00 %"):
        assert text in grid
    assert study_folder.results.grid
    cell = study_folder.results.grid.cells[0].validation
    figure = f"± {100 * (cell.spread or 0):.2f} {100 * cell.interval.low:.2f} to {100 * cell.interval.high:.2f}"
    assert grid.count(f"{percent(cell.mean)} {figure}".replace("\u00a0", " ")) == 4  # validation and test of two cells


def test_a_study_page_says_what_happened_to_every_row(study_page: str) -> None:
    details = section(study_page, "details")
    for text in (
        "The learning rate was reduced: member 0 to 0.0005 after epoch 2.",
        "Transductive: this row saw the test images",
        "Pseudo-labels, round 1: 3 of 9 labels are right.",
        "This row was not trained",
        "All errors",
        "The most confident errors of each true class",
    ):
        assert text in details
    record = section(study_page, "record")
    for text in ("Published protocol", "optimistic", "were opened once", "committee study toy-study --quick"):
        assert text in record
    assert "It helps & <so on>." in section(study_page, "found")
    assert "Holm." in section(study_page, "discussion")
    assert "Holm." not in section(study_page, "found")


def test_a_study_without_a_grid_a_citation_or_opened_test_images(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study")
    rows = tuple(
        row.model_copy(update={"test": None, "member_test": (), "difference": None, "galleries": (), "published": None})
        for row in folder.results.rows
    )
    change = {"rows": rows, "grid": None, "test_openings": (), "discussion": (), "protocol": "honest"}
    plan = AnsweredPlan(rows=(), models=(), keep_sealed=True, transductive=False)
    folder.write_results(folder.results.model_copy(update=change), plan)
    study = Study(name="toy-study", title="Toys", summary="", rows=(Row(name="plain", change=""),))
    folder.write_declaration(study)
    page = write_study_page(folder).read_text(encoding="utf-8")
    assert_whole(page)
    assert {"found", "grid"}.isdisjoint(contents(page))
    assert "these are validation accuracies" in header(page)
    assert "Published work" not in page
    assert "have never been opened" in section(page, "record")
    assert "Never." in section(page, "record")
    assert "of 200 images" in section(page, "table")
    assert "test accuracy" not in section(page, "curves").lower()
    for name in ("Holm", "McNemar", "Tango", "Welch"):
        assert name not in section(page, "record")


def test_the_table_of_a_study_is_a_file_too(study_folder: StudyFolder) -> None:
    results = study_folder.results
    with (study_folder.tables / "study.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["plain", "deep", "both", "self", "0.01", "0.1"]
    assert results.rows[1].test
    assert float(rows[1]["test"]) == results.rows[1].test.mean
    assert float(rows[1]["test_low"]) == results.rows[1].test.interval.low
    assert rows[1]["verdict"] == "better"
    assert all(row["warnings"] == f"QUICK FORM: few images; {WARNING}" for row in rows)
    text = (study_folder.tables / "study.md").read_text(encoding="utf-8")
    assert text.startswith("**QUICK FORM: few images**")
    assert len({line.count("|") for line in text.splitlines() if line.startswith("| ")}) == 2  # the table and the grid
    assert {path.stem for path in study_folder.figures.glob("*.png")} >= {
        *("row_accuracies", "curves", "rates", "confusion_plain", "grid_confusion")
    }


@pytest.mark.parametrize(("best_epochs", "shown"), [((3, 3), False), ((2, 3), True)])
def test_the_best_epoch_has_a_column_where_it_is_not_always_the_last(best_epochs: tuple[int, ...], shown: bool) -> None:
    rows = [tables.SummaryRow("member", str(i), epochs=3, best_epoch=best) for i, best in enumerate(best_epochs)]
    assert ("best_epoch" in dict(tables.shown_columns(rows))) is shown
