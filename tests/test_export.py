"""Exports answer as the trained committee, and a proof fails where it must."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from committee.cli.main import main
from committee.config import recipe_parsing as recipes
from committee.config.recipe import Recipe
from committee.config.study import load as load_study
from committee.data.dataset import ImageDataset
from committee.ensemble import onnx_committee
from committee.ensemble.classifier import load
from committee.ensemble.combine import CombinationRule
from committee.ensemble.committee import Committee, committee_of
from committee.errors import DataError, RunError
from committee.export.corners import corners
from committee.export.graph import ExportedCommittee, exportable, onnx_bytes
from committee.export.onnx_file import Exported, in_float32, proven, record_of, with_record
from committee.export.proof import prove
from committee.export.proof_file import packed, unpacked
from committee.folders.records import ImagesRecord
from committee.folders.run_folder import RunFolder
from committee.metrics import familiarity
from committee.nn.architectures import build
from committee.studies.plan import plan

pytest.importorskip("onnxscript")


def committee_with(
    recipe: Recipe, shape: tuple[int, int, int] = (28, 28, 1), bits: int = 8, members: int = 2
) -> Committee:
    """Members of a recipe's network with random weights and statistics; the corners are its training images."""
    height, width, channels = shape
    torch.manual_seed(0)
    networks = []
    for member in range(members):
        network = build(
            recipe.network.of_member(member), (channels, height, width), 5, torch.Generator().manual_seed(member)
        )
        network[0].scale.fill_(2**bits / 4)  # type: ignore[union-attr, operator]
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        networks.append(network.eval())
    known = familiarity.fit(corners(shape, 2**bits - 1, 60), None)
    rule = CombinationRule("mean", None, 0.8)
    names = ("a", "b", "c", "d", "e")
    return Committee(
        tuple(networks),
        names,
        shape,
        2**bits - 1,
        rule,
        tta=recipe.committee.tta,
        tta_confidence=recipe.committee.tta_confidence,
        images=ImagesRecord(familiarity=known),
    )


def proof_of(committee: Committee, run: RunFolder, graph: bytes | None = None) -> Exported:
    """The export of a committee, or another graph in its place, proven on a hundred images."""
    pixels = corners(committee.image_shape, committee.pixel_range, 1100)[1000:]
    return proven(graph or onnx_bytes(ExportedCommittee(committee)), record_of(run, committee), committee, None, pixels)


def networks() -> list[object]:
    """The shipped recipes; P3's deep network and the ladder's batch normalisation, as the studies declare them."""
    models = {name: {m.name: m.recipe for m in plan(load_study(name)).models} for name in ("ladder", "conv-committee")}
    chosen = {name: recipes.load(name) for name in ("fast", "standard", "best", "ensemble-cnn")}
    chosen |= {"P3-deep": models["conv-committee"]["deep-member"], "ladder-bn": models["ladder"]["batch-normalisation"]}
    short = {"ensemble-cnn": ()}  # beside the small run's export, which has the standard recipe's network
    return [pytest.param(recipe, id=name, marks=short.get(name, pytest.mark.soak)) for name, recipe in chosen.items()]


@pytest.mark.parametrize("recipe", networks())
def test_every_published_and_shipped_network_passes_the_proof(recipe: Recipe, run: RunFolder) -> None:
    proof = proof_of(committee_with(recipe), run).proof
    assert (proof.training_images.images, proof.corners.images, proof.reference.images) == (100, 1000, 100)
    assert proof.training_images.probabilities < 1e-5
    assert proof.alone.members < 1e-6


VARIANTS = {
    "colour-geometric": ((28, 28, 3), 8, [], CombinationRule("geometric", None, 1.3)),
    "64-pixels-vote": ((64, 64, 1), 8, [], CombinationRule("vote", None, 1.0)),
    "16-bits-all-views-weighted": (
        *((20, 12, 3), 16, ["committee.tta=flip_and_shifts", "committee.tta_confidence=0.55"]),
        CombinationRule("weighted", (0.2, 0.8), 0.7),
    ),
    "thin-transparent-geometric": ((9, 1, 4), 8, [], CombinationRule("geometric", None, 1.3)),
}
LONG = ("colour-geometric", "64-pixels-vote")


@pytest.mark.parametrize(
    ("shape", "bits", "changes", "rule"),
    [pytest.param(*each, id=name, marks=[pytest.mark.soak] * (name in LONG)) for name, each in VARIANTS.items()],
)
def test_shapes_depths_and_rules_pass_the_proof(
    shape: tuple[int, int, int], bits: int, changes: list[str], rule: CombinationRule, run: RunFolder
) -> None:
    recipe = recipes.load("standard", ["network.widths=[16,16,16]", *changes])
    proof_of(replace(committee_with(recipe, shape, bits), rule=rule), run)


def scaled(committee: Committee) -> Committee:
    networks = tuple(exportable(network) for network in committee.networks)
    networks[0][0].scale *= 1.02  # type: ignore[index, union-attr, operator]
    return replace(committee, networks=networks)


def reordered(committee: Committee) -> Committee:
    networks = tuple(exportable(network) for network in committee.networks)
    for network in networks:
        last = next(module for module in reversed(list(network.modules())) if isinstance(module, torch.nn.Linear))
        with torch.no_grad():
            last.weight[:2], last.bias[:2] = last.weight[:2].flip(0), last.bias[:2].flip(0)
    return replace(committee, networks=networks)


def mirrored(committee: Committee) -> Committee:
    class Mirror(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flip(3)

    return replace(committee, networks=tuple(torch.nn.Sequential(Mirror(), n) for n in committee.networks))


WRONG: dict[str, Callable[[Committee], Committee]] = {
    "scaling": scaled,
    "class order": reordered,
    "temperature": lambda c: replace(c, rule=replace(c.rule, temperature=c.rule.temperature * 1.1)),
    "mirrored axis": mirrored,
    "dropped member": lambda c: replace(c, networks=(c.networks[0], c.networks[0])),
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_the_proof_fails_on_a_wrong_export(wrong: str, run: RunFolder, exported: Path) -> None:
    """The file stays and the committee changes, which is as far apart and needs no export."""
    committee = WRONG[wrong](in_float32(committee_of(run, run.committee.members, "cpu")))
    with pytest.raises(RunError, match="should answer as the trained committee and does not"):
        proof_of(committee, run, exported.read_bytes())


def test_dropout_that_onnx_runtime_hides_is_seen_by_the_reference(run: RunFolder, exported: Path) -> None:
    """A network left in training mode keeps its dropout in the file, ONNX Runtime leaves it out."""
    onnx = pytest.importorskip("onnx")
    committee = in_float32(committee_of(run, run.committee.members, "cpu"))
    graph = onnx.load_model_from_string(exported.read_bytes())
    gemm = next(node for node in graph.graph.node if node.op_type == "Gemm")
    true, rate = onnx.helper.make_tensor("on", 9, [], [True]), onnx.helper.make_tensor("rate", 1, [], [0.5])
    graph.graph.initializer.extend([true, rate])
    dropout = onnx.helper.make_node("Dropout", [gemm.input[0], "rate", "on"], ["dropped"])
    gemm.input[0] = "dropped"
    graph.graph.node.insert(list(graph.graph.node).index(gemm), dropout)
    content = graph.SerializeToString()
    file = onnx_committee.from_bytes(with_record(content, record_of(run, committee)), "x")
    with pytest.raises(RunError, match="does not, on"):
        prove(file, content, committee.answer, None, corners((8, 8, 1), 255, 100))


def test_the_file_is_one_classifier_like_the_run(exported: Path, run: RunFolder, digits: ImageDataset) -> None:
    theirs, ours = load(exported), load(run.path)
    assert isinstance(theirs, onnx_committee.OnnxCommittee)
    pixels = digits.train.pixels[:50]
    assert theirs.predict(pixels) == ours.predict(pixels)
    assert theirs.class_names == ours.class_names
    assert np.abs(theirs.predict_proba(pixels) - ours.predict_proba(pixels)).max() < 0.05  # the run's are of bfloat16
    assert theirs.predict(pixels[:0]) == []
    assert theirs.record.proof is not None
    stored = json.loads(exported.with_suffix(".proof.json").read_text())
    assert stored["proof"] == theirs.record.proof.model_dump(mode="json")
    assert theirs.record.out_of_fold == run.manifest.out_of_fold
    assert theirs.record.train_digest == run.data.train_digest
    with pytest.raises(DataError, match="images must be an array"):
        theirs.predict(np.zeros((1, 9, 9, 1), np.uint8))


def test_verify_repeats_the_proof_elsewhere(exported: Path, run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(exported.read_bytes())
    proof = exported.with_suffix(".proof.json").read_text()
    path.with_suffix(".proof.json").write_text(proof)
    verify = CliRunner().invoke
    done = verify(main, ["verify", str(path), "digits"])
    assert done.exit_code == 0, done.output
    assert "1,438 training images and 1,000 corners, 0 labels differ" in done.output
    assert "holds others" in verify(main, ["verify", str(path), "mnist-5k"]).output
    stored = json.loads(proof)
    answers = unpacked(stored["training_images"], 1438, 10)
    path.with_suffix(".proof.json").write_text(json.dumps(stored | {"training_images": packed(answers[::-1])}))
    assert "does not, on training images" in verify(main, ["verify", str(path), "digits"]).output
    path.with_suffix(".proof.json").write_text(json.dumps(stored | {"training_images": packed(answers[1:])}))
    assert "is damaged" in verify(main, ["verify", str(path), "digits"]).output
    path.with_suffix(".proof.json").write_text(json.dumps(stored | {"file": "0" * 64}))
    assert "is not the file" in verify(main, ["verify", str(path), "digits"]).output


def test_in_8_bits_company_changes_nothing_and_what_8_bits_change_is_measured(
    run: RunFolder, digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("committee.export.quantize.SECONDS", 0.02)
    path, call = tmp_path / "small.onnx", CliRunner().invoke
    done = call(main, ["export", str(run.path), str(path), "digits", "--quantize", "int8"])
    assert done.exit_code == 0, done.output
    assert "In 8 bits: " in done.output
    small = load(path)
    assert isinstance(small, onnx_committee.OnnxCommittee)
    pixels = digits.train.pixels[:70]
    together = small.answer(pixels).members
    alone = np.concatenate([small.answer(pixels[[position]]).members for position in range(len(pixels))], axis=1)
    assert np.abs(together - alone).max() < 1e-6
    cost = small.record.quantization
    assert cost is not None
    assert cost.images == 1438
    assert cost.labels_changed < 30
    assert cost.accuracy_float > 0.8
    assert cost.difference == pytest.approx(cost.accuracy - cost.accuracy_float)
    assert cost.difference_interval.low <= cost.difference <= cost.difference_interval.high
    verified = call(main, ["verify", str(path), "digits"])
    assert verified.exit_code == 0, verified.output


def test_files_that_are_no_export_are_told_so(exported: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    whole = exported.read_bytes()
    model = onnx.load_model_from_string(whole)
    del model.metadata_props[:]
    cases = {
        b"": "is no ONNX file",
        whole[: len(whole) // 2]: "is no ONNX file",
        model.SerializeToString(): "another program",
        whole.replace(b'"pixel_range":255', b'"pixel_range":254'): "does not fit",
        whole.replace(b'"format":1', b'"format":2'): "does not know",
    }
    for content, sentence in cases.items():
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(RunError, match=sentence):
            load(tmp_path / "x.onnx")
    with pytest.raises(RunError, match=r"none\.onnx"):
        load(tmp_path / "none.onnx")


def test_predicting_with_a_file_needs_no_torch(exported: Path, tmp_path: Path) -> None:
    """And is quick; measured in docs/export.md."""
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8, 1), np.uint8))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from committee.cli.main import main\n"
        f"main(['predict', {str(exported)!r}, {str(tmp_path / 'images.npy')!r}, '--format', 'csv'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    code = code.replace(str(exported), str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'committee[train]'" in done.stderr
