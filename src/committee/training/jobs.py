"""A job is one member's training as a value; executing it yields events and leaves the member's files.

The contract of a runner: `run(jobs)` generates events. Every job ends with exactly one Finished or Failed event; where
and beside what it ran changes no bit of its files. Closed early, a runner ends what still trains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from committee.config.recipe import Recipe
from committee.data.dataset import LabelledImages, Labels, Pixels
from committee.folders import files as store
from committee.nn.devices import keep_freed_memory
from committee.nn.forward import Step, judge_of, judged_at_once
from committee.training.batches import as_float, joined, on_device
from committee.training.loop import fit
from committee.training.state import Fitted, NonFiniteLossError, Progress, State, Task

CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Job:
    """One member's training.

    Attributes:
        folder: the member's folder in the run.
        pixels, labels: NPY files of the data set's training images and labels, shared by all jobs.
        held_out: positions that the member must not train on.
        start: a weights file to go on from, or None; first_epoch then says how many epochs it has behind it.
        left_out: positions that the member neither trains on nor is judged by.
        pseudo: NPY files of pseudo-labelled images and their labels, or None.
        model: the model that the member belongs to, where several are trained together; its events carry it.
    """

    recipe: Recipe
    member: int
    seed: int
    folder: Path
    pixels: Path
    labels: Path
    held_out: NDArray[np.int64]
    classes: int
    device: str
    precision: str
    start: Path | None = None
    first_epoch: int = 0
    left_out: NDArray[np.int64] | None = None
    pseudo: tuple[Path, Path] | None = None
    model: str = ""


def share(images: LabelledImages, folder: Path, name: str = "") -> tuple[Path, Path]:
    """Write images and labels as NPY files that all jobs map into memory; returns the two paths."""
    files = (folder / f"{name}pixels.npy", folder / f"{name}labels.npy")
    np.save(files[0], images.pixels)
    np.save(files[1], images.labels)
    return files


@dataclass(frozen=True)
class EpochDone:
    """A member finished an epoch; `line` is its line of history.jsonl."""

    member: int
    line: dict[str, Any]
    model: str = ""


@dataclass(frozen=True)
class Finished:
    """A member is trained and stored; `epochs` were needed."""

    member: int
    epochs: int
    model: str = ""


@dataclass(frozen=True)
class Failed:
    """A member stopped and cannot be used."""

    member: int
    why: str
    model: str = ""


Event = Progress | EpochDone | Finished | Failed
Runner = Callable[[Sequence[Job]], Generator[Event]]


def opened(job: Job) -> tuple[Pixels, Labels, Task]:
    """The job's images and labels, mapped into memory, and its task."""
    pixels: Pixels = np.load(job.pixels, mmap_mode="c")  # copy on write: shared by all processes, never written to
    labels: Labels = np.load(job.labels)
    unseen = job.held_out if job.left_out is None else np.union1d(job.held_out, job.left_out)
    pseudo = LabelledImages(*(np.load(file, mmap_mode="c") for file in job.pseudo)) if job.pseudo else None
    task = Task(
        recipe=job.recipe,
        member=job.member,
        seed=job.seed,
        train=np.setdiff1d(np.arange(len(labels)), unseen, assume_unique=True),
        held_out=job.held_out,
        classes=job.classes,
        device=job.device,
        precision=job.precision,
        first_epoch=job.first_epoch,
        start=store.read_tensors(job.start) if job.start else None,
        pseudo=pseudo,
    )
    return pixels, labels, task


def execute(job: Job) -> Iterator[Event]:
    """Train one member where we are, from its checkpoint if there is one, and store it."""
    pixels, labels, task = opened(job)
    with one_thread():
        training = fit(pixels, labels, task, resume=store.read_checkpoint(job.folder))
        saved = time.monotonic()
        try:
            while True:
                event = next(training)
                if isinstance(event, State):
                    store.write_history(job.folder, event.history)
                    if time.monotonic() - saved > CHECKPOINT_SECONDS:
                        store.write_checkpoint(job.folder, event)
                        saved = time.monotonic()
                    yield EpochDone(job.member, event.history[-1], job.model)
                else:
                    yield replace(event, model=job.model)
        except StopIteration as end:
            store_member(job, task, end.value, pixels, labels)
            yield Finished(job.member, len(end.value.history), job.model)
        except NonFiniteLossError as error:
            why = f"{error}; a lower optimiser.lr may help"
            (job.folder / "checkpoint.safetensors").unlink(missing_ok=True)
            yield Failed(job.member, why, job.model)


@contextmanager
def one_thread() -> Iterator[None]:
    """Pin the CPU's threads to one and flush denormals, as every member has it wherever it runs; then restore.

    Sums are split among threads, so another number of threads would give other last bits. The process also keeps the
    memory that it frees from now on; see `machine.keep_freed_memory`.
    """
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


def store_member(job: Job, task: Task, fitted: Fitted, pixels: Pixels, labels: Labels) -> None:
    """The files of a trained member; member.json last."""
    tta = job.recipe.committee.tta
    judge = judge_of(fitted.network, job.device, job.precision)
    probabilities = member_probabilities(judge, pixels, job.device, tta)
    parts = {"train": task.train, "held_out": task.held_out}
    store.write_tensors(job.folder / "weights.safetensors", fitted.network.state_dict())
    store.write_array(job.folder / "held_out.npy", job.held_out)
    store.write_array(job.folder / "train_probabilities.npy", probabilities)
    facts = {
        "member": job.member,
        "status": "finished",
        "remark": fitted.remark,
        "epochs": len(fitted.history),
        "first_epoch": job.first_epoch,
        "kept_epoch": fitted.kept_epoch,
        "seconds": round(sum(line["seconds"] for line in fitted.history), 3),
        **{name: part_score(probabilities[part], labels[part]) for name, part in parts.items()},
    }
    store.write_json(job.folder / "member.json", facts)
    (job.folder / "checkpoint.safetensors").unlink(missing_ok=True)


def member_probabilities(judge: Step, pixels: Pixels, device: str, tta: str) -> NDArray[np.float32]:
    """One member's probabilities for images (image, height, width, channel): (image, class) float32.

    Args:
        judge: its network as `committee.nn.forward.judge_of` gives it, on the device.
        pixels: not empty; may be memory-mapped, since a batch is fetched at a time.
        device: where they are judged.
        tta: with "horizontal_flip" they are the mean over the images and their mirror images.
    """

    def of_batch(batch: Pixels) -> Tensor:
        seen = [batch, batch[:, :, ::-1]] if tta == "horizontal_flip" else [batch]
        logits = [judge(as_float(on_device(each.copy(), device))).cpu() for each in seen]
        return torch.stack([each.softmax(1) for each in logits]).mean(0)

    size = judged_at_once(device)
    batches = (pixels[start : start + size] for start in range(0, len(pixels), size))
    probabilities: NDArray[np.float32] = joined(map(of_batch, batches), len(pixels)).numpy()
    return probabilities


def part_score(probabilities: NDArray[np.float32], labels: Labels) -> dict[str, Any] | None:
    """Images, log-loss in nats and accuracy of one member on a part; None where the part is empty."""
    if len(labels) == 0:
        return None
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = float(-np.log(np.clip(own, 1e-12, 1)).mean())
    return {"images": len(labels), "loss": loss, "accuracy": float((probabilities.argmax(1) == labels).mean())}
