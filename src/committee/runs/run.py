"""From a data set and a recipe to a finished run folder: the order of the stages.

`train` trains the members that the folder lacks, wherever the setting says, then concludes (conclude.py). `evaluate`
concludes again, with the test images of a run that kept them sealed.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.runs.evaluation import conclude, read_results
from committee.data.dataset import ImageDataset, LabelledImages
from committee.data.summary import describe
from committee.data.splits import held_out_parts
from committee.errors import RunError, TrainingError
from committee.metrics.results import Results
from committee.nn.architectures import plan
from committee.config.recipe import Recipe
from committee.nn import devices
from committee.training.executors import inline
from committee.training.executors import processes
from committee.training.executors import stacked
from committee.folders import files as store
from committee.training.jobs import Event, Failed, Finished, Job, Runner, share


@dataclass(frozen=True)
class Setting:
    """Everything besides recipe and data that decides where and how a run is trained.

    Attributes:
        seed: the root of all randomness.
        device, precision: "auto", or one of `committee.nn.devices`.
        workers: processes on the CPU, 0 for one a core; changes no result.
        command: how the run was started, for its record.
        reload: the arguments of `load_dataset` that give the data set again, for `committee evaluate`.
    """

    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int = 0
    command: str = "committee.train(...), in Python"
    reload: tuple[tuple[str, Any], ...] = ()


def train(
    dataset: ImageDataset,
    recipe: Recipe,
    out: str | Path,
    setting: Setting | None = None,
    *,
    keep_sealed: bool = False,
    continued: Path | None = None,
    pseudo: LabelledImages | None = None,
    deadline: float = math.inf,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Results:
    """Train a committee into a run folder; members that are already there are kept.

    Args:
        dataset: its training images are used, its test images only at the end.
        recipe: what to train.
        out: the run folder: a new one, or one that the same training began or finished.
        setting: seed, device, precision, workers; None takes the defaults.
        keep_sealed: leave the test images sealed.
        continued: a finished run whose members are trained on for the recipe's epochs.
        pseudo: images with labels that a committee gave them; they join every batch.
        deadline: the `time.monotonic()` from which members that still train are given up, once as many are finished
            as train at a time.
        on_event: called with every event of the training.

    Raises:
        RunError: the folder holds another training, or `continued` does not fit.
        DataError: a class has fewer images than there are folds.
        RecipeError: the network does not fit the images.
        TrainingError: no member could be trained.
        TypeError: `dataset` or `recipe` is something else, such as a name.
    """
    for given, wanted, maker in ((dataset, ImageDataset, "load_dataset"), (recipe, Recipe, "load_recipe")):
        if not isinstance(given, wanted):
            got = f"expected an object of the class {wanted.__name__}, got {type(given).__name__}"
            raise TypeError(f"train: {got}; committee.{maker}(...) gives one")
    began = time.monotonic()
    out, setting = Path(out), settled(setting or Setting(), recipe.committee.members)
    parts = checked_parts(dataset, recipe, setting)
    store.begin(out, identity_of(dataset, recipe, setting, continued, pseudo))
    if (out / store.MANIFEST).exists():
        return read_results(out)
    store.write_text(out / "recipe.toml", recipe.to_toml())
    store.write_json(out / "environment.json", devices.describe(setting.device, setting.precision, setting.workers))
    store.write_json(out / "data.json", describe(dataset) | {"reload": dict(setting.reload)})
    store.write_array(out / "train_labels.npy", dataset.train.labels)
    clock = out / "seconds_training.json"  # of all sessions, where the run was interrupted
    before = store.read_json(clock) if clock.exists() else 0.0
    try:
        train_members(dataset, recipe, out, setting, parts, continued, pseudo, deadline, on_event)
    finally:
        seconds = before + time.monotonic() - began
        store.write_json(clock, round(seconds, 3))
    open_for = None if keep_sealed else "the end of training"
    return conclude(out, dataset, open_for=open_for, seconds_training=seconds, command=setting.command)


def checked_parts(dataset: ImageDataset, recipe: Recipe, setting: Setting) -> list[NDArray[np.int64]]:
    """What each member holds out; looks first whether recipe and images fit each other, before anything is written.

    Raises:
        DataError: a class has fewer images than there are folds.
        RecipeError: the network does not fit the images.
    """
    height, width, channels = dataset.image_shape
    plan(recipe.network, (channels, height, width), len(dataset.class_names))
    labels, members = dataset.train.labels, recipe.committee.members
    return held_out_parts(labels, recipe.holdout, members, setting.seed, dataset.class_names)


def settled(setting: Setting, members: int) -> Setting:
    """The setting with every "auto" decided for this machine, and no more workers than members to train."""
    device = devices.pick_device(setting.device)
    precision = devices.pick_precision(setting.precision, device)
    workers = setting.workers or (devices.cores() if device == "cpu" else 1)
    return replace(setting, device=device, precision=precision, workers=min(workers, members))


def identity_of(
    dataset: ImageDataset,
    recipe: Recipe,
    setting: Setting,
    continued: Path | None,
    pseudo: LabelledImages | None = None,
) -> dict[str, Any]:
    """What makes a training this one: with the same identity, the same weights."""
    train_digest, test_digest = dataset.part_digests()
    environment = devices.describe(setting.device, setting.precision, setting.workers)
    return {
        "recipe": recipe.content(),
        "training images": train_digest,
        "test images": test_digest,
        "seed": setting.seed,
        "device": setting.device,
        "precision": setting.precision,
        "committee": environment["committee"],
        "torch": environment["torch"],
        "goes on from": store.weights_digest(continued) if continued else None,
        "pseudo-labels": pseudo.digest() if pseudo else None,
    }


def train_members(
    dataset: ImageDataset,
    recipe: Recipe,
    out: Path,
    setting: Setting,
    parts: Sequence[NDArray[np.int64]],
    continued: Path | None,
    pseudo: LabelledImages | None,
    deadline: float,
    on_event: Callable[[Event], None],
) -> None:
    """Train every member that the run folder does not hold yet; a failed one is recorded and the others go on.

    Past the deadline, members that still train are given up, once as many are finished as train at a time.

    Raises:
        TrainingError: all members failed.
    """
    missing = [m for m in range(len(parts)) if not (store.member_file(out, m)).exists()]
    if not missing:
        return
    with tempfile.TemporaryDirectory(prefix="committee-", ignore_cleanup_errors=True) as shared:
        jobs = list(make_jobs(dataset, recipe, out, setting, parts, missing, Path(shared), continued, pseudo))
        failed: dict[int, str] = {}
        finished = len(parts) - len(missing)
        with closing(pick_runner(setting, len(jobs))(jobs)) as events:
            for event in events:
                on_event(event)
                failed |= {event.member: event.why} if isinstance(event, Failed) else {}
                finished += isinstance(event, Finished)
                if time.monotonic() > deadline and finished >= setting.workers:
                    break
    late = [m for m in missing if m not in failed and not store.member_file(out, m).exists()]
    if len(failed) == len(parts):  # nothing is recorded, so that the same command tries again
        raise TrainingError(f"no member could be trained: {failed[missing[0]]}")
    states = {m: ("failed", why) for m, why in failed.items()} | dict.fromkeys(late, ("late", "the budget was over"))
    for member, (status, why) in states.items():
        (store.member_folder(out, member) / "checkpoint.safetensors").unlink(missing_ok=True)
        store.write_json(store.member_file(out, member), {"member": member, "status": status, "remark": why})


def make_jobs(
    dataset: ImageDataset,
    recipe: Recipe,
    out: Path,
    setting: Setting,
    parts: Sequence[NDArray[np.int64]],
    members: Sequence[int],
    shared: Path,
    continued: Path | None,
    pseudo: LabelledImages | None,
) -> Iterator[Job]:
    """One job for each of these members; the images go to `shared` as files that all workers map into memory."""
    pixels, labels = share(dataset.train, shared)
    files = share(pseudo, shared, "pseudo-") if pseudo else None
    for member in members:
        start, first_epoch = start_of(continued, member, parts[member]) if continued else (None, 0)
        yield Job(
            recipe=recipe,
            member=member,
            seed=setting.seed,
            folder=store.member_folder(out, member),
            pixels=pixels,
            labels=labels,
            held_out=parts[member],
            classes=len(dataset.class_names),
            device=setting.device,
            precision=setting.precision,
            start=start,
            first_epoch=first_epoch,
            pseudo=files,
        )


def start_of(continued: Path, member: int, held_out: NDArray[np.int64]) -> tuple[Path, int]:
    """The weights file from which a member goes on, and how many epochs it has behind it.

    Raises:
        RunError: that run has no such member, or it held out other images.
    """
    folder = store.member_folder(continued, member)
    if not (folder / "weights.safetensors").exists():
        raise RunError(f"{folder} holds no finished member to go on from; give --members as in that run, or train anew")
    if not np.array_equal(store.read_array(folder / "held_out.npy"), held_out):
        raise RunError(
            f"member {member} of {continued} held out other images; go on with the same data, seed, members and "
            "hold-out, so that no member is judged on images it has seen"
        )
    fact = store.read_json(folder / "member.json")
    return folder / "weights.safetensors", fact["first_epoch"] + fact["epochs"]


def pick_runner(setting: Setting, jobs: int) -> Runner:
    """On the CPU processes, where more than one can work; on CUDA all members at once; else one after the other."""
    workers = min(setting.workers, jobs)
    if setting.device == "cuda":
        return stacked.run
    return partial(processes.run, workers=workers) if setting.device == "cpu" and workers > 1 else inline.run


def evaluate(run: Path, dataset: ImageDataset) -> Results:
    """Open the test images of a run that kept them sealed, and write its results and report anew.

    Raises:
        RunError: the folder is not a finished run, or it was trained on other images.
    """
    store.read_manifest(run)
    identity = store.read_json(run / "identity.json")
    train_digest, test_digest = dataset.part_digests()
    if (train_digest, test_digest) != (identity["training images"], identity["test images"]):
        raise RunError(
            f"{run} was trained on other images than {dataset.name} has now; give the data set of the training"
        )
    command = (run / "command.txt").read_text(encoding="utf-8").strip()
    return conclude(
        run,
        dataset,
        open_for="committee evaluate",
        seconds_training=store.read_json(run / "seconds_training.json"),
        command=command,
    )
