"""The run folder: every file that a training leaves, written whole or not at all, read back with its checks.

Layout: docs/architecture.md. Plain files only (TOML, JSON, JSONL, NPY, safetensors), never pickle. The manifest
`run.json` holds every other file's size and SHA-256 and is written last: a folder without it is an unfinished run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from committee.errors import RunError
from committee.training.state import State

SCHEMA = 2
MANIFEST = "run.json"


def member_folder(run: Path, member: int) -> Path:
    """Where one member's files are."""
    return run / "members" / f"{member:02d}"


def member_file(run: Path, member: int) -> Path:
    """The file that is there once a member is finished or has failed."""
    return member_folder(run, member) / "member.json"


# --- writing and reading single files ---------------------------------------------------------------------------------


def _replace(path: Path, write: Any) -> None:
    """Write through a temporary neighbour, so that the file is either the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    _replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """A JSON file, whole or not at all; infinite or undefined numbers are an error."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file of a run.

    Raises:
        RunError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; is {path.parent} a folder that committee train wrote?") from error
    except ValueError as error:
        raise RunError(f"{path} is not valid JSON ({error}); restore it or train again") from error


def write_array(path: Path, array: NDArray[Any]) -> None:
    """An NPY file, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    _replace(path, write)


def read_array(path: Path) -> NDArray[Any]:
    """An NPY file of a run.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path} is missing or damaged ({error}); restore it or train again") from error
    return array


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An NPZ file, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    _replace(path, write)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an NPZ file of a run; an empty dictionary where there is none."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any] | None = None) -> None:
    """A safetensors file, whole or not at all; `numbers` go into its header as JSON."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {"numbers": json.dumps(numbers)} if numbers is not None else None
    _replace(path, lambda temporary: save_file(plain, temporary, metadata=header))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is missing or damaged ({error}); restore it or train again") from error


# --- a member while it trains -----------------------------------------------------------------------------------------


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """`history.jsonl`: a line an epoch."""
    write_text(folder / "history.jsonl", "".join(json.dumps(line) + "\n" for line in history))


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The lines of `history.jsonl`; none where the member never finished an epoch."""
    path = folder / "history.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write_checkpoint(folder: Path, state: State) -> None:
    """All of a state: what a resume needs to end with the same bits."""
    slots = state.optimiser["state"]
    tensors = {f"network/{name}": tensor for name, tensor in state.network.items()}
    tensors |= {f"kept/{name}": tensor for name, tensor in state.kept.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in state.average.items()}
    tensors |= {
        f"optimiser/{slot}/{name}": value
        for slot, values in slots.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    numbers = {"state": state.numbers, "groups": state.optimiser["param_groups"], "history": state.history}
    write_tensors(folder / "checkpoint.safetensors", tensors, numbers)


def read_checkpoint(folder: Path) -> State | None:
    """The state that `write_checkpoint` stored, or None where there is none."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "kept": {}, "average": {}}
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(path).items():
        part, _, rest = name.partition("/")
        if part == "optimiser":
            slot, _, field = rest.partition("/")
            slots.setdefault(int(slot), {})[field] = tensor
        else:
            parts[part][rest] = tensor
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        numbers = json.loads(json.loads(file.read(length))["__metadata__"]["numbers"])
    return State(
        network=parts["network"],
        kept=parts["kept"],
        average=parts["average"],
        optimiser={"state": slots, "param_groups": numbers["groups"]},
        history=numbers["history"],
        **numbers["state"],
    )


# --- the whole run ----------------------------------------------------------------------------------------------------


def begin(run: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder for a training, or enter one that holds the same training.

    Raises:
        RunError: the folder holds another training or other files, or cannot be written.
    """
    check_free(run, identity)
    try:
        write_json(run / "identity.json", identity)
    except OSError as error:
        raise RunError(f"{run} cannot be written ({error.strerror}); give another --out") from error


def check_free(run: Path, identity: Mapping[str, Any]) -> None:
    """Say no to a folder that holds something else than this training; nothing is written.

    Raises:
        RunError: the folder holds another training, or other files.
    """
    if (run / "identity.json").exists():
        if differences := differing(read_json(run / "identity.json"), identity):
            raise RunError(
                f"{run} holds another training ({'; '.join(differences)}); give another --out, or delete the folder"
            )
    elif run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise RunError(f"{run} exists and is not a run folder; give another --out")


def differing(was: Mapping[str, Any], now: Mapping[str, Any], form: str = "{name} was {was}, now {now}") -> list[str]:
    """In words, which entries of two identities differ; digests are not spelled out, a recipe's fields are."""
    words = []
    for name in sorted({*was, *now}):
        before, after = was.get(name), now.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            words += [f"{name}: {difference}" for difference in differing(before, after, form)]
        elif any(isinstance(value, str) and len(value) == 64 for value in (before, after)):
            words.append(f"other {name}")
        else:
            was_value, now_value = ("its default" if value is None else value for value in (before, after))
            words.append(form.format(name=name, was=was_value, now=now_value))
    return words


def write_manifest(run: Path, summary: Mapping[str, Any]) -> None:
    """`run.json`: the summary and every other file's size and SHA-256; written last."""
    files = {}
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.name != MANIFEST and not path.name.startswith("."):
            content = path.read_bytes()
            files[path.relative_to(run).as_posix()] = {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
    write_json(run / MANIFEST, {"schema": SCHEMA, **summary, "files": files})


def read_manifest(run: Path, *, kinds: Collection[str] = ("run",)) -> dict[str, Any]:
    """The manifest of a finished run.

    Args:
        run: its folder.
        kinds: what else may be there: "study" (a study's folder), "model" (one of its models).

    Raises:
        RunError: not a run folder, an unfinished run, one that another version wrote, or of another kind.
    """
    if not run.is_dir():
        models = sorted(path.name for path in run.parent.iterdir() if path.is_dir()) if run.parent.is_dir() else []
        there = f"; {run.parent} has {', '.join(models)}" if run.parent.name == "models" and models else ""
        raise RunError(f"there is no run folder {run}{there}; give a folder that committee train wrote")
    if not (run / MANIFEST).exists():
        if (run / "identity.json").exists():
            raise RunError(f"{run} is an unfinished run; give the same committee train command again to finish it")
        raise RunError(f"{run} is not a run folder: it has no {MANIFEST}; give a folder that committee train wrote")
    manifest: dict[str, Any] = read_json(run / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise RunError(f"{run} has schema {manifest.get('schema')}, but this version reads {SCHEMA}; update committee")
    kind = "model" if "model" in manifest else "study" if "study" in manifest else "run"
    if kind not in kinds:
        wanted = {
            "study": f"{run} is the folder of a study; give one of its models, {run / 'models'}/NAME (its sealed test "
            "images are opened by its committee study command without --keep-sealed)",
            "model": f"{run} is a model of a study, and judged there; give a folder that committee train wrote",
            "run": f"{run} is the folder of a run; give the folder of a study",
        }
        raise RunError(wanted[kind])
    return manifest


def verify(run: Path) -> None:
    """Compare every weights file with the manifest.

    Raises:
        RunError: a file is missing or is not the one that training wrote.
    """
    for name, facts in read_manifest(run, kinds=("run", "model"))["files"].items():
        if not name.endswith(".safetensors"):
            continue
        path = run / name
        if not path.exists():
            raise RunError(f"{path} is missing, but {MANIFEST} lists it; restore it or train again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != facts["sha256"]:
            raise RunError(f"{path} is not the file that training wrote (SHA-256 differs); restore it or train again")


def weights_digest(run: Path) -> str:
    """SHA-256 over the members' weights files of a finished run: equal digests, equal members."""
    files = read_manifest(run)["files"]
    weights = [facts["sha256"] for name, facts in sorted(files.items()) if name.endswith("/weights.safetensors")]
    return hashlib.sha256("".join(weights).encode()).hexdigest()


def free_folder(parent: Path, name: str, identity: Mapping[str, Any]) -> Path:
    """The folder for a training that was given none: the one that holds it already, else the first free name."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        path = folder / "identity.json"
        if not folder.exists() or (path.exists() and not differing(read_json(path), identity)):
            return folder
        number += 1
