"""The report: it renders whatever a run may hold, stays small and offline, and shows names from data as text."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from committee.metrics import error_analysis, scores
from committee.metrics import results as values
from committee.metrics.results import Calibration, MemberResult, PartScore, Results, SizePoint, SizeTemperature
from committee.report import plots, run_page, sentences, style, tables
from committee.report.formatting import shown_command
from committee.report.pictures import data_uris, displayable

NASTY = ("<script>alert(1)</script>", "$x_1$ & $5", "very long " * 30, "ねこ", "a\nb", '"quoted", =1+1')


def synthetic(
    names: tuple[str, ...] = NASTY,
    members: int = 4,
    *,
    sealed: bool = False,
    held_out: bool = True,
    failed: bool = False,
    size: tuple[int, int, int] = (12, 10, 1),
    images: int = 240,
    dtype: type = np.uint8,
    limit: int = 6,
) -> dict[str, Any]:
    """What `write_report` takes, from random members that are right about nine times in ten."""
    generator = np.random.default_rng(1)
    classes = len(names)
    labels = np.arange(images) % classes

    def judge() -> np.ndarray:
        logits = generator.normal(size=(members, images, classes)) + 2.2 * np.eye(classes)[labels]
        return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)

    train, test = judge(), judge()
    asked = train.copy()
    for member in range(members):
        asked[member, np.arange(images) % 2 == member % 2] = np.nan
    honest = np.nanmean(asked, axis=0) if members > 1 else asked[0]
    known = np.isfinite(honest).all(axis=1)
    shown = [] if sealed else [error_analysis.galleries(test.mean(axis=0), test, labels, part="test", limit=limit)]
    shown += [error_analysis.galleries(honest, asked, labels, part="train", limit=limit)] if held_out else []
    score = PartScore(images=images, loss=0.1, accuracy=0.97)
    rows = [
        MemberResult(
            member=number,
            status="finished",
            remark="ran all epochs",
            epochs=3,
            kept_epoch=3,
            seconds=1.5,
            train=score,
            held_out=score if held_out else None,
            test=None if sealed else score,
        )
        for number in range(members)
    ]
    line = {"seconds": 0.5, "images_per_second": 480.0, "learning_rate": 0.001}
    history = [
        {
            **line,
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "validation_loss": 1.2 / epoch if held_out else None,
            "validation_accuracy": 1 - 0.2 / epoch if held_out else None,
        }
        for epoch in (1, 2, 3)
    ]
    histories = [history] * members
    if failed:
        nothing = {"train": None, "held_out": None, "test": None}
        remark = "the loss was nan in epoch 1"
        rows.append(
            MemberResult(member=members, status="failed", remark=remark, epochs=0, kept_epoch=0, seconds=0, **nothing)
        )
        histories = [*histories, [{**history[0], "train_loss": float("nan")}]]
    sizes = tuple(
        SizePoint(members=n, subsets=3, accuracy=0.9 + n / 100, accuracy_low=0.88, accuracy_high=0.97, log_loss=0.3 / n)
        for n in range(1, members + 1)
    )
    results = Results(
        members=tuple(rows),
        committee_train=scores.judge(train.mean(axis=0), labels, names),
        out_of_fold=scores.judge(honest[known], labels[known], names) if held_out else None,
        out_of_fold_members=members / 2 if held_out else None,
        out_of_fold_remark="each image is judged only by members that did not train on it",
        test=None if sealed else scores.judge(test.mean(axis=0), labels, names),
        calibration=Calibration(
            temperature=1.1,
            by_size=(SizeTemperature(members=1, images=images, temperature=1.1),),
            test_log_loss=None,
            test_calibration_error=None,
        )
        if held_out
        else None,
        size_curve_out_of_fold=sizes if held_out else (),
        size_curve_test=() if sealed else sizes,
        agreement=error_analysis.agreement(asked if sealed else test, on="train" if sealed else "test"),
        galleries=tuple(gallery for each in shown for gallery in each.galleries),
        test_openings=()
        if sealed
        else (values.TestOpening(opened="2026-01-02T03:04:05+00:00", purpose="final judgement", images=images),),
        seconds_training=12.0,
        seconds_total=13.0,
    )
    top = np.iinfo(dtype).max
    pictures = {
        "samples": generator.integers(top, size=(classes, 12, *size), dtype=dtype),
        "class_means": generator.integers(top, size=(classes, *size), dtype=dtype),
    }
    for each in shown:
        part = each.galleries[0].part
        pictures[part] = generator.integers(top, size=(len(each.positions), *size), dtype=dtype)
    kind = "folds" if held_out else "none"
    facts = {
        "title": "toy: a committee <b>",
        "dataset": {
            "name": "toy",
            "source": "https://example.org/toy.zip",
            "shape": list(size),
            "counts": {name: {"train": 3, "test": 3} for name in names},
            "digest": "d" * 64,
            "notes": ["a note with <i>"],
        },
        "recipe": {"name": "toy", "holdout": {"kind": kind, "folds": 2}, "training": {"keep": "last", "patience": 0}},
        "recipe_toml": 'name = "toy"',
        "recipe_digest": "e" * 64,
        "environment": {"torch": "2.13.0", "threads": 1},
        "seed": 0,
        "command": "committee train toy --set 'x=<y>'",
        "version": "0.1.0",
    }
    return {"results": results, "facts": facts, "class_names": names, "histories": histories, "pictures": pictures}


def judged(rights: tuple[int, ...], wrongs: tuple[int, ...]) -> values.Scores:
    """A judgement of so many right and wrong answers of each class; a wrong one is always the first other class."""
    labels = np.repeat(np.arange(len(rights)), np.add(rights, wrongs))
    answers = np.concatenate(
        [[c] * right + [int(c == 0)] * wrong for c, (right, wrong) in enumerate(zip(rights, wrongs, strict=True))]
    ).astype(int)
    chances = 0.99 * np.eye(len(rights))[answers] + 0.01 / len(rights)
    return scores.judge(chances, labels, tuple(f"kind {c}" for c in range(len(rights))))


def perfect(images: int = 10) -> dict[str, Any]:
    """A run of three members that are right on every image from the second epoch on."""
    run = synthetic(("kind 0", "kind 1"), members=3, images=images)
    judgement = judged((images // 2, images // 2), (0, 0))
    score = PartScore(images=images, loss=1e-5, accuracy=1.0)
    every = {"train": score, "held_out": score, "test": score}
    results = run["results"]
    sizes = tuple(
        point.model_copy(update={"accuracy": 1.0, "accuracy_low": 1.0, "accuracy_high": 1.0, "log_loss": 1e-5 / n})
        for n, point in enumerate(results.size_curve_test, start=1)
    )
    change = {"test": judgement, "out_of_fold": judgement, "size_curve_test": sizes, "size_curve_out_of_fold": sizes}
    change |= {"members": tuple(member.model_copy(update=every) for member in results.members)}
    epochs = [{**line, "validation_accuracy": min(1.0, 0.4 + 0.3 * line["epoch"])} for line in run["histories"][0]]
    return run | {"results": results.model_copy(update=change), "histories": [epochs] * 3}


def write_run(folder: Path, run: dict[str, Any]) -> str:
    return run_page.write_report(folder, **run).read_text(encoding="utf-8")


def write(folder: Path, **choices: Any) -> str:
    return write_run(folder, synthetic(**choices))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write(folder, failed=True)
    return folder


def test_the_page_is_one_file_that_asks_for_nothing_else(full: Path) -> None:
    page = (full / "report.html").read_text(encoding="utf-8")
    addresses = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']([^"']*)""", page)
    assert len(addresses) > 50
    assert [address[:40] for address in addresses if not address.startswith(("data:image/", "#"))] == []
    assert "@import" not in page
    assert "url(" not in page
    for fragment in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{fragment}"' in page


def test_names_from_data_are_text(full: Path) -> None:
    page = (full / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>" not in page.partition("</h1>")[0]
    assert "&lt;script&gt;" in page
    assert "A note with &lt;i&gt;" in page
    assert "ねこ" in page
    for figure in (plots.confusion(synthetic()["results"].test.confusion, NASTY), plots.classes(())):
        assert not any("$x_1$" in text.get_text() for text in figure.findobj(style.Text))


def test_labels_of_figures_are_short_plain_and_drawable() -> None:
    assert style.label("$x_1$", 0) == r"\$x_1\$"
    assert style.label("a\nb", 0) == "a b"
    assert style.label("abcdefgh", 0, 5) == "abcd…"
    assert style.label("\U00012000", 7) == "class 7"  # cuneiform
    assert style.label("", 3) == "class 3"


def test_every_figure_and_table_of_the_page_is_a_file_too(full: Path) -> None:
    figures = {path.stem for path in (full / "figures").glob("*.png")}
    assert figures >= {"learning_loss", "learning_accuracy", "size_accuracy", "reliability", "confusion", "agreement"}
    assert figures >= {"confused_pairs", "classes", "samples", "class_means", "headline", "test_first_errors"}
    with (full / "tables" / "members.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == [*["member"] * 4, "failed", "mean", "spread", "out_of_fold", "committee"]
    assert float(rows[0]["test_accuracy"]) == 0.97
    assert float(rows[6]["test_accuracy"]) == pytest.approx(0)
    results = synthetic()["results"]
    assert float(rows[-1]["test_accuracy"]) == results.test.accuracy
    assert float(rows[-2]["held_out_accuracy"]) == results.out_of_fold.accuracy
    assert rows[4]["remark"] == "the loss was nan in epoch 1"
    with (full / "tables" / "confusion.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    assert table[0][1:] == list(NASTY)
    assert [int(cell) for cell in table[1][1:]] == list(synthetic()["results"].test.confusion[0])
    names = {path.stem for path in (full / "tables").glob("*.csv")}
    assert names >= {"classes", "confused_pairs", "sizes", "mistakes", "history", "reliability", "agreement"}


def test_the_headline_is_the_test_accuracy_with_its_interval(full: Path) -> None:
    page = (full / "report.html").read_text(encoding="utf-8")
    test = synthetic()["results"].test
    interval = test.accuracy_interval
    for fraction in (test.accuracy, interval.low, interval.high):
        assert f"{100 * fraction:.2f}" in page.partition("<nav")[0]
    assert "opened once by this run, on 2026-01-02" in page
    assert "1 of 5 members failed" in page


def test_the_protocol_says_what_chose_what_and_how_often_the_test_was_opened() -> None:
    run = synthetic()
    recipe = {"holdout": {"kind": "fraction", "fraction": 0.2}, "training": {"keep": "best_validation_accuracy"}}
    twice = run["results"].model_copy(update={"test_openings": run["results"].test_openings * 2})
    text = " ".join(sentences.protocol(twice, {"recipe": recipe}))
    for words in (
        "opened 2 times",
        "trust the first",
        "20\u00a0% of the training",
        "best held out accuracy",
        "flattering",
    ):
        assert words in text
    text = " ".join(sentences.protocol(run["results"], run["facts"]))
    assert "opened once" in text
    assert "nothing was chosen" in text
    assert "flattering" not in text


def test_while_the_test_is_sealed_the_page_says_so_and_shows_out_of_fold(tmp_path: Path) -> None:
    page = write(tmp_path, sealed=True)
    head = page.partition("<nav")[0]
    assert "still sealed" in head
    assert "out of fold" in head
    assert "never been opened" in page
    assert "test images are classified correctly" not in page


@pytest.mark.parametrize(
    "choices",
    [
        {"members": 1},
        {"held_out": False},
        {"held_out": False, "sealed": True, "members": 1},
        {"names": tuple(f"class {number}" for number in range(70)), "images": 210, "members": 2},
        {"size": (8, 8, 4), "dtype": np.uint16},
    ],
    ids=["one-member", "no-hold-out", "nothing-to-judge-by", "many-classes", "16-bit-colour"],
)
def test_any_kind_of_run_renders(tmp_path: Path, choices: dict[str, Any]) -> None:
    page = write(tmp_path, **choices)
    assert page.rstrip().endswith("</html>")
    assert ("Not judged yet" in page) == bool(choices.get("sealed"))
    assert "nan" not in re.sub(r"data:image[^\"]+", "", page).lower().split()


def test_the_page_stays_small_with_large_photographs(tmp_path: Path) -> None:
    write(tmp_path, names=("cat", "dog", "emu", "fox"), size=(96, 96, 3), images=400, limit=50)
    assert (tmp_path / "report.html").stat().st_size < 6_000_000


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


def test_percentages_never_round_to_certainty() -> None:
    assert tables.percent(0.99) == "99.00\u00a0%"
    assert tables.percent(0.999999) == "99.99\u00a0%"
    assert tables.percent(1.0) == "100.00\u00a0%"
    assert tables.percent(0.00001) == "< 0.01\u00a0%"
    assert tables.percent(0.0) == "0.00\u00a0%"


def test_a_perfect_committee_is_drawn_whole_and_no_accuracy_axis_passes_100(tmp_path: Path) -> None:
    run = perfect(images=10)
    figures = run_page._plots(run["results"], run["class_names"], run["histories"])
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
    page = write_run(tmp_path, run)
    assert "no error left" in page
    assert "guessing" not in page


@pytest.mark.parametrize("images", [1, 3, 50, 10_000])
def test_accuracy_scales_suit_any_number_of_images(images: int) -> None:
    for accuracies in ([1.0], [0.0], [0.0, 1.0], [1 - 1 / images] * 2):
        history = [{"epoch": epoch, "validation_accuracy": value} for epoch, value in enumerate(accuracies, start=1)]
        figure = plots.accuracy_curves([history], [len(history)], accuracies[-1], images)
        figure.canvas.draw()
        low, high = figure.axes[0].get_ylim()
        assert low <= min(accuracies) <= max(accuracies) <= high


def test_few_members_need_no_matrix(tmp_path: Path) -> None:
    for members, there in ((2, False), (3, False), (4, True)):
        folder = tmp_path / str(members)
        folder.mkdir()
        page = write(folder, members=members, names=("a", "b"), images=20)
        assert ("Matrix of the share" in page) == (folder / "figures" / "agreement.png").exists() == there
        assert "All members asked agree" in page
        assert (folder / "tables" / "agreement.csv").exists()


def test_class_names_that_figures_cannot_show_are_explained(tmp_path: Path) -> None:
    page = write(tmp_path, names=("cat", "\U00012000"), images=20)
    assert "figures call such a class by its number" in page
    assert "“class 1” is \U00012000." in page
    assert "figures call" not in write(tmp_path, names=("cat", "dog"), images=20)


def test_the_command_is_shown_without_the_option_json(tmp_path: Path) -> None:
    run = synthetic(("a", "b"), members=1, images=20)
    run["facts"]["command"] = "committee train toy --json --epochs 1 --set x=--jsonl"
    assert "<pre>committee train toy --epochs 1 --set x=--jsonl</pre>" in write_run(tmp_path, run)
    assert shown_command("committee train toy --json") == "committee train toy"


@pytest.mark.parametrize(
    ("rights", "wrongs", "guessing"),
    [
        ((20, 0), (0, 20), True),  # always the first class
        ((0, 20), (20, 0), True),
        ((12, 12), (8, 8), True),  # 60 %, and half is within the interval
        ((90, 3), (0, 7), True),  # 93 % where 90 % is for nothing
        ((30, 30), (10, 10), False),
        ((2, 2), (0, 0), False),
        ((6, 6, 6), (4, 4, 4), False),  # 60 % of three classes
    ],
)
def test_guessing_is_told_from_learning(rights: tuple[int, ...], wrongs: tuple[int, ...], guessing: bool) -> None:
    assert tables.no_better_than_guessing(judged(rights, wrongs)) is guessing


@pytest.mark.parametrize(
    ("rights", "wrongs", "verdict"),
    [
        ((20, 0), (0, 20), "This committee learnt nothing beyond guessing:"),
        ((12, 12), (8, 8), "It is not shown that this committee learnt anything beyond guessing:"),
    ],
)
def test_a_committee_that_only_guesses_is_told_so_at_the_top(
    rights: tuple[int, ...], wrongs: tuple[int, ...], verdict: str, tmp_path: Path
) -> None:
    run = synthetic(("cat", "dog"), members=2, images=40)
    run["results"] = run["results"].model_copy(update={"test": judged(rights, wrongs)})
    page = write_run(tmp_path, run)
    head = page.partition("<nav")[0]
    assert verdict in head
    assert "always answering “cat” would be right on 50.00\u00a0%" in head
    assert "--set training.batch_size=16" in head
    assert "voting together" not in page
