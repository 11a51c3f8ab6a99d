"""OpenVINO, ExecuTorch and LiteRT answer as the trained committee, say what they lost, and fail the proof if wrong.

LiteRT's converter wants another PyTorch, so that it is tested where COMMITTEE_LITERT names a Python that has it.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from committee.cli.main import main
from committee.data.dataset import ImageDataset
from committee.ensemble.committee import Committee, committee_of
from committee.errors import RunError
from committee.export.conversion import converted
from committee.export.converted_committee import FORMATS
from committee.export.graph import ExportedCommittee
from committee.export.onnx_file import in_float32, record_of
from committee.folders.run_folder import RunFolder

pytest.importorskip("onnxscript")
LITERT = os.environ.get("COMMITTEE_LITERT")


def installed(ending: str) -> bool:
    return bool(LITERT) if ending == ".tflite" else importlib.util.find_spec(FORMATS[ending].package) is not None


def python_of(ending: str) -> list[str]:
    return ["--python", str(LITERT)] if ending == ".tflite" else []


def formats(*long: str) -> list[object]:
    """All of them, where their converters are; those whose converters take long in the long tests only."""
    missing = pytest.mark.skipif
    marks = {
        each: [missing(not installed(each), reason="no converter"), *([pytest.mark.soak] * (each in long))]
        for each in FORMATS
    }
    return [pytest.param(each, marks=marks[each]) for each in FORMATS]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("ending", formats(".pte"))
def test_a_format_is_proven_says_what_it_lost_and_is_verified(ending: str, run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / f"digits{ending}"
    call = CliRunner().invoke
    done = call(
        main,
        ["export", str(run.path), str(path), "digits", "--coverage", ".9", "--precision", ".9", *python_of(ending)],
    )
    assert done.exit_code == 0, done.output
    assert "Proven on 1,438 training images and 1,000 corners: 0 labels differ" in done.output
    assert f"for {FORMATS[ending].name}" in done.output
    assert "Lost: " in done.output
    place = path.with_name(f"digits{ending}.proof.json")
    stored = json.loads(place.read_text())
    assert stored["proof"]["training_images"]["probabilities"] < 1e-5
    assert stored["committee"]["class_names"] == [str(each) for each in range(10)]
    again = call(main, ["verify", str(path), "digits", *python_of(ending)])
    assert again.exit_code == 0, again.output
    assert "1,438 training images and 1,000 corners, 0 labels differ" in again.output
    place.write_text(json.dumps(stored | {"file": "0" * 64}))
    assert "is not the file" in call(main, ["verify", str(path), "digits", *python_of(ending)]).output
    assert "which predict and serve take" in call(main, ["predict", str(path), str(place)]).output


WRONG: dict[str, Callable[[Committee], Committee]] = {
    "temperature": lambda c: replace(c, rule=replace(c.rule, temperature=c.rule.temperature * 1.1)),
    "dropped member": lambda c: replace(c, networks=(c.networks[0], c.networks[0])),
}


@pytest.mark.parametrize("wrong", list(WRONG))
@pytest.mark.timeout(400)
@pytest.mark.parametrize("ending", formats(".pte", ".tflite"))
def test_the_proof_fails_on_a_wrong_conversion(ending: str, wrong: str, run: RunFolder, digits: ImageDataset) -> None:
    right = in_float32(committee_of(run, run.committee.members, "cpu"))
    right = replace(right, images=right.images.model_copy(update={"familiarity": None}))  # not what is wrong here
    module, record = ExportedCommittee(WRONG[wrong](right)), record_of(run, right)
    python = Path(LITERT) if LITERT and ending == ".tflite" else None
    with pytest.raises(RunError, match=r"does not, .* probabilities differ by up to"):
        converted(module, record, right.answer, None, digits.train.pixels[:10], ending, python)


def test_a_converter_that_is_missing_or_fails_is_told_in_a_sentence(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python that is asked has neither converter nor NumPy, then is no Python."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {os.sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    result = CliRunner().invoke(
        main, ["export", str(run.path), str(tmp_path / "a.pte"), "digits", "--python", str(bare)]
    )
    assert result.exit_code == 2
    assert "pip install 'committee[executorch]'" in result.stderr
    assert not (tmp_path / "a.pte").exists()
    refused = CliRunner().invoke(main, ["export", str(run.path), str(tmp_path / "a.pte"), "--quantize", "int8"])
    assert "are for NAME.onnx and NAME.html" in refused.stderr
