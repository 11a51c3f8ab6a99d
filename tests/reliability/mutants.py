"""Changes of a run that its formats' parsers reach: `python mutants.py RUN FIRST COUNT` loads them, watched.

Each mutant is a run folder, or a bundle, with one to three changes and a manifest that fits them. Its number decides
it, so that a case can be seen again. An audit hook is the canary: while a mutant is loaded, Python must not execute or
import anything new, start a process, open a socket, unpickle, or write outside of the temporary folder.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORBIDDEN = ("exec", "compile", "import", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.")
FORBIDDEN += (
    "pickle.",
    "marshal.",
    "ctypes.dlopen",
    "code.__new__",
    "os.symlink",
    "os.link",
    "os.chmod",
    "shutil.move",
)

VALUES: tuple[Callable[[random.Random], Any], ...] = (
    lambda r: None,
    lambda r: r.random() < 0.5,
    lambda r: r.choice((-1, 0, 1, 2, 7, 255, 2**31, 2**53, 2**63 - 1, 2**63, 10**25, -(2**63))),
    lambda r: r.choice((0.5, -0.0, 1e-300, 1e19, 1e300, float("nan"), float("inf"), -float("inf"))),
    lambda r: r.choice(
        ("", "0", "1.5", "x" * 5000, "\0", "../x", "/etc/hostname", "__class__", "save", "\ud7ff", "cuda")
    ),
    lambda r: [],
    lambda r: {},
    lambda r: [[0] * r.randrange(5) for _ in range(r.randrange(40))],
    lambda r: {"__reduce__": ["os.system", ["true"]]},
    lambda r: r.randrange(-10, 10),
    lambda r: r.uniform(-2, 2),
)


def places(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where in a JSON value something stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inner for place in places(each, (*at, key)))]


def changed_json(value: Any, r: random.Random) -> str:
    """The text of a JSON value with something else at one place."""
    if not isinstance(value, (dict, list)):
        return json.dumps(r.choice(VALUES)(r))
    value = copy.deepcopy(value)
    *above, last = r.choice(places(value)[1:] or [("",)])
    inner = value
    for step in above:
        inner = inner[step]
    match r.randrange(8):
        case 0:
            del inner[last]
        case 1 if isinstance(inner, dict):
            inner[r.choice((f"{last}x", "__class__", str(last).upper()))] = inner.pop(last)
        case 2:
            inner[last] = [inner[last]] * r.choice((1, 2, 50))
        case 3 if isinstance(inner, dict):
            marked = json.dumps({**value, "TWIN": 0}) if inner is value else json.dumps(value)
            return marked.replace('"TWIN"', json.dumps(last), 1)
        case 4 if isinstance(inner, list) and len(inner) > 1:
            r.shuffle(inner)
        case _:
            inner[last] = r.choice(VALUES)(r)
    return json.dumps(value)


def changed_bytes(content: bytes, r: random.Random, limit: int | None = None) -> bytes:
    """Bytes with a few others, fewer or more of them; `limit` keeps to the first ones."""
    changed = bytearray(content)
    for _ in range(r.randrange(1, 4)):
        at = r.randrange(max(1, min(len(changed), limit or len(changed))))
        match r.randrange(5):
            case 0:
                del changed[at : at + r.randrange(1, 64)]
            case 1:
                changed[at:at] = r.randbytes(r.randrange(1, 16))
            case 2:
                changed[at : at + 4] = r.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\xc0\x7f", b"\0\0\x80\xff"))
            case _:
                changed[at : at + 1] = r.randbytes(1)
    return bytes(changed)


def changed_toml(content: bytes, r: random.Random) -> bytes:
    """A recipe with a line less, twice, or of another value."""
    lines = content.decode().splitlines()
    at = r.randrange(len(lines))
    name, equals, _ = lines[at].partition(" = ")
    match r.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(r.randrange(len(lines)), lines[at])
        case 2 | 3 if equals:
            values = ("0", "-1", "1e400", "nan", '""', '"classes"', "[]", "[1, 2]", "{}", "true", "9223372036854775807")
            lines[at] = f"{name} = {r.choice((*values, '1' * 30, '1979-05-27', '0.5', '7', '1000000'))}"
        case _:
            return changed_bytes(content, r)
    return "\n".join(lines).encode()


def changed_tensors(content: bytes, r: random.Random) -> bytes:
    """A safetensors file of another header, length or values."""
    length = int.from_bytes(content[:8], "little")
    head, values = content[8 : 8 + length], content[8 + length :]
    match r.randrange(4):
        case 0:
            return r.choice((0, 1, length - 1, length + 1, 2**31, 2**63)).to_bytes(8, "little") + head + values
        case 1:
            return content[: 8 + length] + changed_bytes(values, r)
        case _:
            head = changed_json(json.loads(head), r).encode()
            return len(head).to_bytes(8, "little") + head + values


def changed_array(content: bytes, r: random.Random) -> bytes:
    """An NPY file of another header or values."""
    if r.random() < 0.5:
        return changed_bytes(content, r, r.choice((128, None)))
    old, new = r.choice(
        (
            (b"<f4", r.choice((b"|O8", b"<f8", b"<i4", b"<c8", b"|V4", b"<U1"))),
            (b"<i8", r.choice((b"|O8", b"<f8", b"<u8", b"<M8", b">i8"))),
            (b"<f8", r.choice((b"|O8", b"<i8", b">f8"))),
            (b"False", b"True"),
            (b"(", r.choice((b"(-1,", b"(0,", b"(1,", b"(10**9,", b"((", b"(99999999999,"))),
            (b"}", r.choice((b"", b"'x': 1}", b"} or __import__('os')"))),
        )
    )
    return content.replace(old, new, 1)


def changed_member(name: str, content: bytes, r: random.Random) -> bytes:
    """A file of a run with something else in it, by its format."""
    if name.endswith(".json"):
        return changed_json(json.loads(content), r).encode() if r.random() < 0.9 else changed_bytes(content, r)
    if name.endswith(".toml"):
        return changed_toml(content, r)
    if name.endswith(".safetensors"):
        return changed_tensors(content, r)
    return changed_array(content, r) if name.endswith(".npy") else changed_bytes(content, r)


class Mutants:
    """The mutants of a run, in a temporary folder of their own."""

    def __init__(self, run: Path, bundle: Callable[[Path, Path], object]) -> None:
        memory = Path("/dev/shm")
        self.above = Path(tempfile.mkdtemp(prefix="mutants-", dir=memory if memory.is_dir() else None))
        tempfile.tempdir = str(self.above)
        self.run, self.file = Path(shutil.copytree(run, self.above / "run")), self.above / "run.committee"
        self.contents = {
            path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()
        }
        bundle(run, self.file)
        self.bundled = self.file.read_bytes()
        self.manifest = json.loads(self.contents["run.json"])
        self.manifest.pop("digest", None)  # which would end every mutant at once; who forges a manifest leaves it out
        self.names = [name for name in self.contents if name != "run.json"]
        self.changed: list[str] = []

    def make(self, number: int) -> tuple[Path, str]:
        """A mutant, and what was changed."""
        r = random.Random(number)
        for name in self.changed:
            (self.run / name).write_bytes(self.contents[name])
        if r.random() < 0.1:
            self.changed = []
            where = r.choice((None, len(self.bundled) - 2000))
            changed = changed_bytes(self.bundled[where:], r)
            self.file.write_bytes(self.bundled[: where or 0] + changed)
            return self.file, "a bundle"
        named = [name for name in self.names if name.startswith("members/")] if r.random() < 0.3 else self.names
        self.changed = ["run.json", *r.sample(named, min(len(named), r.choice((1, 1, 1, 2, 3))))]
        manifest = {**self.manifest, "files": dict(self.manifest["files"])}
        for name in self.changed[1:]:
            content = changed_member(name, self.contents[name], r)
            (self.run / name).write_bytes(content)
            manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        text = changed_json(manifest, r) if r.random() < 0.05 else json.dumps(manifest)
        (self.run / "run.json").write_text(text)
        return self.run, ", ".join(self.changed)


class Canary:
    """What Python does while it is on; a hook cannot be taken away again."""

    def __init__(self, folder: Path) -> None:
        self.on, self.seen = False, list[str]()
        self.own = str(folder)
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on:
            return
        if event.startswith(FORBIDDEN):
            self.seen.append(f"{event} {str(arguments)[:100]}")
        elif event == "open" and isinstance(arguments[2], int):
            writes = arguments[2] & (1 | 2 | 64 | 512 | 1024)  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND
            if writes and not str(arguments[0]).startswith(self.own):
                self.seen.append(f"{event} {arguments}")


def main(run: Path, first: int, count: int) -> None:
    """Load mutants; what is neither refused nor sound ends the process with a traceback and the mutant's number."""
    import numpy as np

    from committee.ensemble.committee import load
    from committee.errors import RunError
    from committee.folders.bundle import write_bundle
    from committee.folders.run_folder import RunFolder

    mutants = Mutants(run, lambda folder, path: write_bundle(RunFolder(folder), path))
    sound = load(mutants.run, device="cpu")
    pixels = np.arange(2 * np.prod(sound.image_shape)).reshape(2, *sound.image_shape).astype(np.uint8)
    sound.predict_proba(pixels)
    load(mutants.file, device="cpu")
    warm_up()
    canary, refused, slowest = Canary(mutants.above), 0, 0.0
    try:
        for number in range(first, first + count):
            path, what = mutants.make(number)
            began, canary.on = time.perf_counter(), True
            try:
                committee = load(path, device="cpu")
                if committee.image_shape == sound.image_shape and committee.pixel_range == 255:
                    assert np.isfinite(committee.predict_proba(pixels)).all(), "a prediction that is not finite"
            except RunError as error:
                refused += 1
                if "\n" in str(error) or len(str(error)) > 2000:
                    raise RuntimeError(f"mutant {number}: {what}: no sentence") from error
            except BaseException as error:
                error.add_note(f"mutant {number}: {what}")
                raise
            finally:
                canary.on = False
            slowest = max(slowest, time.perf_counter() - began)
            assert not canary.seen, f"mutant {number}: {what}: {canary.seen}"
    finally:
        shutil.rmtree(mutants.above)
    print(f"{count:,} mutants, {refused:,} refused, {count - refused:,} sound; the slowest {slowest:.3f} s")


def warm_up() -> None:
    """Import what messages need, so that an import afterwards is one too many."""
    import difflib  # noqa: F401


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
