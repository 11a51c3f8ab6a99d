"""ONNX Runtime for browsers, which is on npm alone: fetched by npm once, checked, kept, taken apart.

Only what runs on one thread is used: the module that loads it, with its glue inside, and the WebAssembly.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
import subprocess
import tarfile  # noqa: TID251  # npm's packages are tar files; members are read by name from a file of a known checksum
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from committee import disk
from committee.errors import CommitteeError
from committee.temporary import temporary_folder

VERSION = "1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
PACKAGE = f"onnxruntime-web@{VERSION}"
SIZE = 33_106_585  # bytes of the package
SCRIPT, WASM = "package/dist/ort.wasm.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.wasm"


@dataclass(frozen=True)
class WebRuntime:
    """The runtime: a module's text that sets `window.ort`, and the WebAssembly."""

    script: str
    wasm: bytes


def web_runtime(package: Path | None = None) -> WebRuntime:
    """The runtime, from npm's package.

    Args:
        package: its file, where it was fetched by hand; None takes it from the cache, or from npm.

    Raises:
        CommitteeError: it cannot be had, or is another one.
    """
    content = _read(package) if package else _cached()
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        script, wasm = (_member(archive, name) for name in (SCRIPT, WASM))
    return WebRuntime(_setting_ort(script.decode()), wasm)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, name  # by the checksum it is there
    return file.read()


def _setting_ort(module: str) -> str:
    """A module that sets `window.ort` instead of exporting."""
    module = re.sub(r"\n//# sourceMappingURL=\S*\s*$", "", module)
    exports = re.search(r"export\{([^}]*)\};?\s*$", module)
    assert exports is not None  # by the checksum
    pairs = [each.split(" as ") for each in exports[1].split(",")]
    names = {pair[-1]: pair[0] for pair in pairs}
    wanted = ", ".join(f"{name}: {names[name]}" for name in ("InferenceSession", "Tensor", "env"))
    return f'{module[: exports.start()]}window.ort = {{{wanted}}};window.dispatchEvent(new Event("committee-runtime"));'


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes() if path.stat().st_size == SIZE else b""
    except OSError as error:
        raise CommitteeError(
            f"{path}: npm's package {PACKAGE} is expected, got nothing readable ({error.strerror})"
        ) from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise CommitteeError(f"{path} is not npm's package {PACKAGE}; fetch it with: npm pack {PACKAGE}")
    return content


def _cached() -> bytes:
    place = platformdirs.user_cache_path("committee") / f"onnxruntime-web-{VERSION}.tgz"
    with contextlib.suppress(CommitteeError):
        return _read(place)
    npm = shutil.which("npm")
    by_hand = f"fetch it elsewhere with: npm pack {PACKAGE}, and give the file with --runtime"
    if npm is None:
        raise CommitteeError(f"a page needs ONNX Runtime for browsers, which npm has, and there is no npm; {by_hand}")
    with temporary_folder(2 * SIZE, "ONNX Runtime for browsers") as folder:
        command = [npm, "pack", PACKAGE, "--loglevel=error"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
        except subprocess.TimeoutExpired:
            raise CommitteeError(f"npm did not fetch {PACKAGE} within ten minutes; {by_hand}") from None
        found = list(folder.glob("*.tgz"))
        if done.returncode or not found:
            said = " ".join(done.stderr.split())[:200]
            raise CommitteeError(f"npm could not fetch {PACKAGE} ({said}); {by_hand}")
        content = _read(found[0])
    disk.make_folder(place.parent)
    disk.write(place, content)
    return content
