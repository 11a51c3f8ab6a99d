"""Which kernels a process takes, and what depends on that: the precision, the record, who may go on, what is said."""

from __future__ import annotations

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from committee import kernels
from committee.cli.ends import note_missing_kernels
from committee.config import recipe_parsing as recipes
from committee.errors import CommitteeError, RunError
from committee.folders.records import Environment, RunIdentity
from committee.folders.run_folder import RunFolder
from committee.kernels import binding
from committee.nn import devices
from committee.nn.architectures import build, set_dropout_generator
from committee.nn.forward import Chain, steps_of, training_forward
from committee.report.formatting import fields
from committee.training.setting import Setting

RUNNABLE = binding.runnable_paths()


def test_the_best_path_is_chosen_unless_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        binding.Path("a", False, True, torch.bfloat16, {}),
        binding.Path("b", True, False, torch.bfloat16, {}),
        binding.Path("c", True, True, torch.bfloat16, {}),
        binding.Path("d", True, True, torch.float32, {}),
        binding.TORCH,
    ]
    monkeypatch.setattr(binding, "PATHS", made)
    assert binding.runnable_paths() == ["b", "c", "d", "torch"]
    with binding.use(""):
        assert (kernels.path(), kernels.available()) == ("c", True)
        with binding.use("d"):
            assert (kernels.path(), kernels.product_dtype()) == ("d", torch.float32)
        with binding.use("torch"):
            assert (kernels.path(), kernels.available()) == ("torch", False)
        assert kernels.path() == "c"
    for name in ("a", "e"):
        found = re.escape(f"installation have (b, c, d, torch); got '{name}'")
        with pytest.raises(CommitteeError, match=f"COMMITTEE_CPU must .* {found}"), binding.use(name):
            pass


def test_a_process_that_is_started_takes_the_path_of_its_parent() -> None:
    with binding.use("torch"), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(kernels.path).result() == "torch"


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RUNNABLE)
@pytest.mark.parametrize("in_hardware", [False, True])
def test_auto_is_bfloat16_with_kernels_and_where_torch_has_it_in_hardware(
    path: str, in_hardware: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: in_hardware)
    with binding.use(path):
        found = devices.pick_precision("auto", "cpu")
        assert found == ("bfloat16" if path != "torch" or in_hardware else "float32")
        setting = Setting(device="cpu").resolved(1)
        assert (setting.kernels(), setting.environment().kernels, setting.precision) == (path, path, found)
    assert devices.pick_precision("auto", "mps") == ("bfloat16" if in_hardware else "float32")
    assert Setting(device="mps").kernels() == "torch"


@pytest.mark.parametrize("path", RUNNABLE)
def test_layers_without_a_kernel_take_float32_where_the_cpu_has_no_bfloat16(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chains, layers of torch between them, and their gradients; widths of 24 have no kernel."""
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    recipe = recipes.load("standard", ["network.backbone=vgg", "network.widths=[16,24,32]"])
    draws = torch.Generator().manual_seed(0)
    network = build(recipe.network, (1, 12, 12), 3, draws).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels, labels = torch.rand(32, 1, 12, 12, generator=draws) * 255, torch.randint(3, (32,), generator=draws)
    seen: set[torch.dtype] = set()

    def see(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.add(given[0].dtype)

    for module in network:
        module.register_forward_pre_hook(see)
        if hasattr(module, "rate"):
            module.rate = 0.0  # the random numbers of dropout depend on the path
    set_dropout_generator(network, draws)
    exact = training_forward(network, "cpu", "float32")(pixels)
    functional.cross_entropy(exact, labels).backward()
    true = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    with binding.use(path), devices.single_threaded():
        chains = [step for step in steps_of(network, "cpu", "bfloat16") if isinstance(step, Chain)]
        logits = training_forward(network, "cpu", "bfloat16")(pixels).float()
        functional.cross_entropy(logits, labels).backward()
    assert (len(chains) > 1) == (path != "torch")
    assert seen == {torch.float32}
    assert torch.allclose(logits, exact, atol=0.03 * float(exact.detach().abs().max()))
    gradients = [parameter.grad for parameter in network.parameters()]
    off = [float((a - b).norm() / b.norm()) for a, b in zip(gradients, true, strict=True)]  # type: ignore[operator, union-attr]
    assert off[-1] < 0.03  # of the last layer
    assert max(off) < 1  # bfloat16 moves the maxima of pooling: torch's own is off by up to .6 here


# --- records ----------------------------------------------------------------------------------------------------------


def identity(kernels: str | None, seed: int = 0) -> RunIdentity:
    return RunIdentity(
        recipe={}, train_images="a" * 64, test_images="b" * 64, seed=seed, device="cpu", precision="bfloat16",
        kernels=kernels, committee="0.8.0", torch="2.13.0",
    )  # fmt: skip


def test_a_training_goes_on_only_with_the_kernels_it_was_begun_with(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(identity("avx2"))
    assert RunFolder(folder.path).holds(identity("avx2"))
    assert not RunFolder(folder.path).holds(identity("amx"))
    with pytest.raises(RunError, match=r"begun with the kernels avx2 and would go on with amx, .* COMMITTEE_CPU=avx2"):
        RunFolder(folder.path).check_free(identity("amx"))
    with pytest.raises(RunError, match=r"would go on with torch, .* COMMITTEE_CPU=avx2"):
        RunFolder(folder.path).check_free(identity("torch").model_copy(update={"precision": "float32"}))
    with pytest.raises(RunError, match=r"another training \(kernels was avx2, now amx; seed was 0, now 1\)"):
        RunFolder(folder.path).check_free(identity("amx", seed=1))


def test_a_training_of_an_older_version_goes_on_with_any_kernels(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(identity(None))
    RunFolder(folder.path).check_free(identity("amx"))


@pytest.mark.parametrize(("stored", "shown"), [("true", "yes"), ("false", "no"), ('"avx2"', "avx2")])
def test_the_environment_shows_the_kernels_also_of_an_older_version(stored: str, shown: str) -> None:
    record = Environment.model_validate_json(
        '{"committee": "0.7.0", "python": "3.11", "torch": "2", "numpy": "2", "system": "Linux", "processor": "a",'
        f'"cores": 2, "device": "cpu", "precision": "bfloat16", "kernels": {stored}, "workers": 2}}'
    )
    assert dict(fields(record))["kernels"] == shown


# --- a missing kernel -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "capability", "asked", "compiled", "missing"),
    [
        ("x86_64", "AVX2", "", False, True),
        ("x86_64", "AVX2", "torch", False, False),
        ("x86_64", "AVX2", "", True, False),
        ("x86_64", "DEFAULT", "", False, False),
        ("aarch64", "DEFAULT", "", False, True),
        ("riscv64", "DEFAULT", "", False, False),
    ],
)
def test_missing_kernels_are_told_where_there_are_some_and_nobody_declined_them(
    machine: str,
    capability: str,
    asked: str,
    compiled: bool,
    missing: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    never = binding.Path("never", False, False, torch.float32, {})
    monkeypatch.setattr(binding, "PATHS", (*([never] if compiled else []), binding.TORCH))
    with binding.use(asked):
        note_missing_kernels("cpu")
    said = capsys.readouterr().err
    assert said.count("\n") == missing
    assert ("two to three times as slowly" in said) == missing
