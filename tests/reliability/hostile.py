"""Run folders that nobody trained: copies of a real one with something wrong, and a manifest that fits it.

Everything here is written by the functions below, and none of it does harm: the numbers in a file say what a reader
would have to build, and it is our own checks that must say no.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Mutation = Callable[[Path], object]

WEIGHTS = "members/00/weights.safetensors"
PROBABILITIES = "members/00/train_probabilities.npy"


def sign(run: Path) -> None:
    """Write the sizes and digests of a run's files into its manifest."""
    manifest = json.loads((run / "run.json").read_text())
    found = [path for path in sorted(run.rglob("*")) if path.is_file() and not path.name.startswith((".", "run.json"))]
    manifest["files"] = {path.relative_to(run).as_posix(): entry(path.read_bytes()) for path in found}
    manifest.pop("digest", None)  # as up to version 0.6: who can write a manifest can write its digest, too
    (run / "run.json").write_text(json.dumps(manifest))


def entry(content: bytes) -> dict[str, int | str]:
    """What the manifest says of a file."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


# --- what is done to a run --------------------------------------------------------------------------------------------


def replaced(name: str, content: bytes | Callable[[bytes], bytes]) -> Mutation:
    """Another content of a file."""

    def mutate(run: Path) -> None:
        path = run / name
        path.write_bytes(content if isinstance(content, bytes) else content(path.read_bytes()))
        sign(run)

    return mutate


def put(name: str, *place: str | int, value: object = None) -> Mutation:
    """A value at a place of a JSON file."""

    def edited(content: bytes) -> bytes:
        whole = json.loads(content)
        inner = whole
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = value
        return json.dumps(whole).encode()

    return replaced(name, edited)


def dropped(name: str, key: str) -> Mutation:
    """A JSON file without one of its fields."""
    return replaced(
        name, lambda content: json.dumps({k: v for k, v in json.loads(content).items() if k != key}).encode()
    )


def text(name: str, old: str, new: str) -> Mutation:
    """A file with another text in place of one that it has."""

    def edited(content: bytes) -> bytes:
        assert old in content.decode(), old
        return content.decode().replace(old, new, 1).encode()

    return replaced(name, edited)


def header(change: Callable[[dict[str, Any]], object]) -> Mutation:
    """Weights with another header."""

    def edited(content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        table = json.loads(content[8 : 8 + length])
        change(table)
        return packed(json.dumps(table).encode(), content[8 + length :])

    return replaced(WEIGHTS, edited)


def packed(head: bytes, values: bytes, length: int | None = None) -> bytes:
    """A safetensors file of its parts."""
    return (len(head) if length is None else length).to_bytes(8, "little") + head + values


def spoilt(value: float) -> Mutation:
    """Weights whose last value is another."""
    return replaced(WEIGHTS, lambda content: content[:-4] + np.float32(value).tobytes())


def npy(kind: str, shape: str, values: bytes = b"", order: str = "False") -> bytes:
    """An NPY file of its parts."""
    head = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}"
    head += " " * (63 - (len(head) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + values


def listed(*names: str) -> Mutation:
    """A manifest that lists more names, with what a real file has."""

    def mutate(run: Path) -> None:
        manifest = json.loads((run / "run.json").read_text())
        manifest["files"] |= dict.fromkeys(names, manifest["files"]["command.txt"])
        (run / "run.json").write_text(json.dumps(manifest))

    return mutate


def manifest(old: str, new: str) -> Mutation:
    """A manifest with another text in place of one that it has."""

    def mutate(run: Path) -> None:
        content = (run / "run.json").read_text()
        assert old in content, old
        (run / "run.json").write_text(content.replace(old, new, 1))

    return mutate


def in_place_of(name: str, make: Callable[[Path], object]) -> Mutation:
    """Something else where a file was."""

    def mutate(run: Path) -> None:
        kept = run.parent / "kept"
        (run / name).rename(kept)
        make(run / name)

    return mutate


def linked_folder(run: Path) -> None:
    """The members elsewhere, behind a link."""
    shutil.move(run / "members", run.parent / "members")
    (run / "members").symlink_to(run.parent / "members")


CLASSES = json.dumps([f"c{number}" for number in range(3_000_000)])

HOSTILE: dict[str, tuple[Mutation, str]] = {
    # committee.json
    "no members": (put("committee.json", "members", value=[]), "members of those that the folder holds"),
    "a list for a table": (replaced("committee.json", b"[1, 2]"), "committee.json does not have the fields"),
    "a table for a list": (put("committee.json", "members", value={"0": 1}), "valid tuple"),
    "a temperature in words": (put("committee.json", "temperature", value="warm"), "valid number"),
    "a temperature as text": (put("committee.json", "temperature", value="1.5"), "valid number"),
    "temperature NaN": (put("committee.json", "temperature", value=float("nan")), "NaN is no finite number"),
    "temperature infinite": (put("committee.json", "temperature", value=float("inf")), "Infinity is no finite number"),
    "temperature beyond floats": (text("committee.json", '"temperature": ', '"temperature": 1e999, "x": '), "e999"),
    "temperature negative": (put("committee.json", "temperature", value=-1.0), "temperature: input should be greater"),
    "temperature zero": (put("committee.json", "temperature", value=0), "temperature: input should be greater"),
    "unknown combination": (put("committee.json", "combination", value="mode"), "combination: input should be 'mean'"),
    "weights too few": (
        replaced("committee.json", b'{"members": [0, 1], "combination": "weighted", "weights": [1.0]}'),
        "a weight of 0 or more for each of 2",
    ),
    "weights NaN": (
        replaced("committee.json", b'{"members": [0, 1], "combination": "weighted", "weights": [1.0, NaN]}'),
        "NaN is no finite number",
    ),
    "weights negative": (
        replaced("committee.json", b'{"members": [0, 1], "combination": "weighted", "weights": [2.0, -1.0]}'),
        "a weight of 0 or more for each of 2",
    ),
    "a missing key": (dropped("committee.json", "combination"), "combination: field required"),
    "member out of range": (put("committee.json", "members", value=[0, 7]), "members of those that the folder holds"),
    "member twice": (put("committee.json", "members", value=[0, 0]), "members of those that the folder holds"),
    "member negative": (put("committee.json", "members", value=[0, -1]), "members of those that the folder holds"),
    "a name twice": (text("committee.json", "{", '{"members": [0], '), "'members' stands twice"),
    "nested deeply": (replaced("committee.json", b"[" * 100_000 + b"]" * 100_000), "nested 100,000 deep"),
    "a number of 5,000 digits": (
        text("committee.json", '"temperature": ', f'"temperature": 1{"0" * 5000}, "x": '),
        "larger",
    ),
    "much memory": (replaced("images.json", b"[" + b"{}," * 5_000_000 + b"{}]"), "would take over 192 MiB"),
    "no text": (replaced("committee.json", b"\xff\xfe\x00"), "no text in UTF-8"),
    # data.json
    "100,000 pixels squared": (put("data.json", "shape", value=[100_000, 100_000, 1]), "images of 1 to 16,384 pixels"),
    "no pixels": (put("data.json", "shape", value=[0, 8, 1]), "images of 1 to 16,384 pixels"),
    "fewer than no pixels": (put("data.json", "shape", value=[-8, -8, 1]), "images of 1 to 16,384 pixels"),
    "another shape": (put("data.json", "shape", value=[8, 8, 3]), "should be F32"),
    "bits 0": (put("data.json", "bits", value=0), "8 or 16 bits"),
    "bits 1000": (put("data.json", "bits", value=1000), "8 or 16 bits"),
    "3,000,000 classes": (
        text("data.json", '"class_names": [', f'"class_names": {CLASSES}, "x": ['),
        "would take over",
    ),
    "a class twice": (put("data.json", "class_names", 1, value="0"), "names of their own"),
    "a class without a name": (put("data.json", "class_names", 1, value=""), "names of their own"),
    "other counts": (put("data.json", "train_images", value=10**15), "as many images together"),
    "precision is a function": (put("identity.json", "precision", value="save"), "a device and a precision"),
    # recipe.toml
    "gigantic widths": (
        text("recipe.toml", "widths = [\n    8,", "widths = [\n    4611686018427387904,"),
        "too many for",
    ),
    "wide": (text("recipe.toml", "widths = [\n    8,", "widths = [\n    9,"), "(9, 16, 3, 3)"),
    "recipe unknown field": (text("recipe.toml", "[training]", "[training]\nexec = 1"), "exec is unknown"),
    "recipe no text": (replaced("recipe.toml", b"\xff"), "no text in UTF-8"),
    "recipe nested deeply": (replaced("recipe.toml", b"a = " + b"[" * 20_000), "not valid TOML"),
    "epochs without end": (text("recipe.toml", "epochs = 1", "epochs = 4611686018427387904"), "training.epochs"),
    "recipe of a huge number": (text("recipe.toml", "epochs = 1", f"epochs = 0x{'f' * 5000}"), "below 2^63"),
    # weights
    "header too long": (replaced(WEIGHTS, lambda c: packed(c[8:], b"", 2**62)), "a header of 4,611,686"),
    "header no table": (replaced(WEIGHTS, lambda c: packed(b"[]", c)), "header is no table"),
    "overlapping": (header(lambda h: h.update({"0.offset": h["0.scale"]})), "overlap or leave a gap"),
    "out of range": (header(lambda h: h["0.scale"].update(data_offsets=[10**6, 10**6 + 4])), "overlap or leave a gap"),
    "offsets reversed": (header(lambda h: h["0.scale"].update(data_offsets=[4, 0])), "data_offsets are expected"),
    "shape not its bytes": (header(lambda h: h["0.scale"].update(shape=[100_000, 100_000])), "does not take 4 bytes"),
    "shape negative": (header(lambda h: h["0.scale"].update(shape=[-1, -1])), "data_offsets are expected"),
    "a tensor more": (
        header(lambda h: h.update({"x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})),
        "x should",
    ),
    "a tensor missing": (header(lambda h: h.update({"1.x": h.pop("1.weight")})), "1.weight should be"),
    "another type": (header(lambda h: h["0.scale"].update(dtype="I32")), "0.scale should be F32"),
    "an unknown type": (header(lambda h: h["0.scale"].update(dtype="object")), "data_offsets are expected"),
    "a tensor twice": (replaced(WEIGHTS, lambda c: packed(b'{"a":1,"a":2}', c)), "'a' stands twice"),
    "bytes left over": (replaced(WEIGHTS, lambda c: c + b"\0" * 8), "follow its header"),
    "weights NaN inside": (spoilt(float("nan")), "not finite"),
    "weights infinite": (spoilt(float("-inf")), "not finite"),
    "no weights": (replaced(WEIGHTS, b""), "too many for the 0 bytes"),
    # arrays
    "array larger than its file": (
        replaced(PROBABILITIES, npy("<f4", "(1000000000, 1000)", b"\0" * 64)),
        "other bytes",
    ),
    "array of objects": (replaced(PROBABILITIES, npy("|O", "(1,)", b"\0" * 8)), "header of an array of numbers"),
    "array in Fortran's order": (replaced(PROBABILITIES, npy("<f4", "(2, 2)", b"\0" * 16, "True")), "in C order"),
    "array of another shape": (replaced(PROBABILITIES, npy("<f4", "(2, 2)", b"\0" * 16)), "an array (1438, 10)"),
    "labels out of range": (
        replaced("train_labels.npy", npy("<i8", "(1438,)", b"\x7f" * 8 * 1438)),
        "labels from 0 to 9",
    ),
    "positions out of range": (
        replaced("members/00/validation.npy", npy("<i8", "(1,)", (10**9).to_bytes(8, "little"))),
        "rising positions",
    ),
    "pictures no zip": (replaced("pictures.npz", b"PK nothing"), "no NPZ file"),
    # results.json
    "other classes in the results": (put("results.json", "test", "classes", value=[]), "not of the members, classes"),
    "a picture that is not there": (
        put("results.json", "galleries", 0, "pictures", 0, "slot", value=10**9),
        "not of the members, classes",
    ),
    # the manifest, and what lies where it says
    "name absolute": (listed("/etc/hostname"), "no name of a file of this folder"),
    "name with ..": (listed("members/../../x"), "no name of a file of this folder"),
    "name with a backslash": (listed("members\\x"), "no name of a file of this folder"),
    "name empty": (listed(""), "no name of a file of this folder"),
    "name of a drive": (listed("C:x"), "no name of a file of this folder"),
    "names alike": (listed("COMMAND.txt"), "no name of a file of this folder"),
    "name of the manifest": (listed("run.json"), "no name of a file of this folder"),
    "name twice": (
        manifest('"command.txt"', '"command.txt": {"bytes": 1, "sha256": ""}, "command.txt"'),
        "stands twice",
    ),
    "a folder": (listed("members"), "as a file and as a folder"),
    "an empty folder": (lambda run: (listed("new")(run), (run / "new").mkdir()), "is no plain file"),
    "kind a list": (manifest('"kind": "run"', '"kind": ["run"]'), "of no kind that is known"),
    "size a lie": (
        manifest('"command.txt": {"bytes": ', '"command.txt": {"bytes": 9'),
        "is not the file that training",
    ),
    "a link": (in_place_of("committee.json", lambda path: path.symlink_to(path.parents[1] / "kept")), "no plain file"),
    "a linked folder": (linked_folder, "is a link"),
    "a pipe": (in_place_of("committee.json", os.mkfifo), "no plain file"),
    "the manifest a pipe": (in_place_of("run.json", os.mkfifo), "no plain file"),
}
"""What is wrong -> what does it, and words of the sentence that must refuse it."""
