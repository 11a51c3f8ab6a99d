"""The check of submissions to docs/speedrun.md: what a program is given, timed, counted and refused for."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from committee.data.dataset import ImageDataset

BENCH = Path(__file__).parents[1] / "bench"
NEAREST_MEAN = """
import json, sys, time
import numpy as np
time.sleep(0.5)  # before the clock
print("ready", flush=True)
asked = json.loads(sys.stdin.readline())
data = np.load(asked["data"])
images, test = (data[name].reshape(len(data[name]), -1).astype(float) for name in ("images", "test_images"))
means = np.stack([images[data["labels"] == digit].mean(0) for digit in range(10)])
found = ((test[:, None] - means[None]) ** 2).sum(2).argmin(1)
print("seen", sorted(data), file=sys.stderr)
open("seen.json", "x").write("each run has a fresh folder")
np.save(asked["answers"], found)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def submissions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("submissions", BENCH / "submissions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["submissions"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def submission_in(folder: Path, program: str) -> Path:
    folder.mkdir()
    (folder / "run.py").write_text(program)
    about = 'name = "nearest mean"\nauthor = "A"\nmethod = "means"\n'
    (folder / "submission.toml").write_text(about + '[commands]\n"0.8" = ["python", "run.py"]\n')
    return folder


def checked(submissions: ModuleType, folder: Path, digits: ImageDataset, seeds: int, **options: Any) -> Any:
    train, test = (digits.train.part(np.arange(*part)) for part in ((0, 1000), (1000, 1300)))
    kept = folder.with_suffix(".jsonl")
    return submissions.check(submissions.read(folder), 0.8, seeds, train, test, kept, **options)


def test_answers_are_counted_in_their_own_order_and_runs_are_kept(
    submissions: ModuleType, digits: ImageDataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = submission_in(tmp_path / "means", NEAREST_MEAN)
    began = time.perf_counter()
    runs = checked(submissions, folder, digits, 2)
    beside = time.perf_counter() - began - sum(run.seconds for run in runs)
    images = digits.train.pixels[:, :, :, 0].reshape(len(digits.train), -1).astype(float)
    means = np.stack([images[:1000][digits.train.labels[:1000] == digit].mean(0) for digit in range(10)])
    found = ((images[1000:1300, None] - means[None]) ** 2).sum(2).argmin(1)
    expected = float((found == digits.train.labels[1000:1300]).mean())
    assert [run.accuracy for run in runs] == [pytest.approx(expected)] * 2
    assert runs[0].seed != runs[1].seed
    assert beside > 2 * 0.5  # what comes before `ready` does not count
    assert capfd.readouterr().err == "seen ['images', 'labels', 'test_images']\n" * 2
    again = checked(submissions, folder, digits, 3)
    assert again[:2] == runs
    assert capfd.readouterr().err.count("seen") == 1
    (folder / "run.py").write_text(NEAREST_MEAN + "# changed\n")
    assert not {run.seed for run in checked(submissions, folder, digits, 1)} & {run.seed for run in again}


@pytest.mark.parametrize(
    ("program", "limit", "said"),
    [
        ("print('ready')\nraise SystemExit(3)", 60, r"to print `done` within 60 seconds, and ended with status 3"),
        ("import time\ntime.sleep(60)", 0.5, r"to print `ready` within 0.5 seconds, and ended with status -9"),
        ("print('ready')\nprint(input() and 'done')", 60, r"to have written its classes to answers.npy before `done`"),
        (
            "import json\nimport numpy as np\nprint('ready', flush=True)\n"
            "np.save(json.loads(input())['answers'], np.ones((300, 10)))\nprint('done')",
            60,
            r"300 whole numbers, one a test image in the order given, got an array of float64 and shape \(300, 10\)",
        ),
    ],
)
def test_a_program_that_does_not_keep_to_the_protocol_is_refused_in_a_sentence(
    submissions: ModuleType, digits: ImageDataset, tmp_path: Path, program: str, limit: float, said: str
) -> None:
    folder = submission_in(tmp_path / "wrong", program)
    with pytest.raises(submissions.SubmissionError, match=said):
        checked(submissions, folder, digits, 1, limit=limit)


def test_a_target_is_reached_by_the_lower_end_of_the_interval_over_ten_seeds(
    submissions: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submission = submissions.read(submission_in(tmp_path / "means", NEAREST_MEAN))
    near = [submissions.Run(seed, 1.0, 0.805 + (0.02 if seed % 2 else -0.02)) for seed in range(10)]
    assert not submissions.verdict(submission, 0.8, near)["reached"]  # the mean alone would
    assert "not reached: the interval of the mean begins at 0.78992, below 0.800" in capsys.readouterr().out
    above = [submissions.Run(seed, 1.0, 0.82 + (0.02 if seed % 2 else -0.02)) for seed in range(10)]
    assert submissions.verdict(submission, 0.8, above)["reached"]
    assert not submissions.verdict(submission, 0.8, above[:9])["reached"]
    assert "an entry needs 10 seeds, got 9" in capsys.readouterr().out


def test_the_page_shows_the_fields_of_a_submission_and_ours_has_them(submissions: ModuleType) -> None:
    page = (BENCH.parent / "docs" / "speedrun.md").read_text()
    shown = tomllib.loads(page.split("```toml\n")[1].split("```")[0])
    ours = submissions.read(BENCH / "speedrun" / "committee-fast")
    assert set(shown) == {"name", "author", "method", "commands"}
    assert set(ours.commands) == {0.994, 0.996, 0.997}
    for path in (BENCH / "results").rglob("speedrun-committee-fast-*.json"):
        entry = json.loads(path.read_text())
        assert entry["digest"] == ours.digest, f"{path}: the submission has changed since it was checked"
