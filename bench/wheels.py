"""Build what is published, into dist/: the sdist, and manylinux wheels for x86_64 and aarch64. `make wheels`.

A wheel holds all paths of its architecture and serves Python 3.11 and later (its module keeps to the stable ABI). Both
are built from the sdist on this machine, one of them by a cross compiler; auditwheel reads the versions of glibc that
their symbols need, and tags them. The wheel for this machine is then installed where there is no compiler, and the demo
must train there, on kernels. The other one's code is tested by tests/kernels/check.cpp, in an emulator.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
ARCHITECTURES = ("x86_64", "aarch64")
MODULE = "committee/kernels/_native.abi3.so"


def run(*command: str | Path, folder: Path = ROOT, environment: Mapping[str, str] | None = None) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, cwd=folder, env={**os.environ, **(environment or {})}, check=True)


def only(folder: Path, pattern: str) -> Path:
    """The file of a folder that was just made."""
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def compiler_for(architecture: str) -> str:
    """A C++ compiler that makes code for the architecture."""
    name = "g++" if architecture == platform.machine() else f"{architecture}-linux-gnu-g++"
    if not shutil.which(name):
        sys.exit(f"wheels: there is no {name}; install it (Debian: g++-{architecture.replace('_', '-')}-linux-gnu)")
    return name


def build(sdist: Path, architecture: str, compiler: str) -> Path:
    """The wheel for an architecture, in dist/."""
    settings = {
        "CC": compiler,
        "CXX": compiler,
        "CPPFLAGS": "-DPy_LIMITED_API=0x030b0000",
        "LDFLAGS": "-Wl,-s",
        "SETUPTOOLS_EXT_SUFFIX": ".abi3.so",
        "_PYTHON_HOST_PLATFORM": f"linux-{architecture}",
    }
    with TemporaryDirectory() as name:
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir", "--wheel-dir", name]
        option = "--config-settings=--build-option=--py-limited-api=cp311"
        run(*pip, option, sdist, environment=settings)
        wheel = only(Path(name), "*.whl")
        if MODULE not in zipfile.ZipFile(wheel).namelist():  # setuptools goes on without an optional module
            sys.exit(f"wheels: {compiler} could not compile the kernels; `{' '.join(pip[1:4])} -v {sdist}` shows why")
        run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", DIST, wheel)
    return only(DIST, f"*_{architecture}.whl")


def check(wheel: Path) -> None:
    """Install a wheel into an environment without a compiler and train the demo; its record must name kernels."""
    without_compiler = {"CC": "/bin/false", "CXX": "/bin/false", "PYTHONPATH": ""}
    with TemporaryDirectory() as name:
        folder = Path(name)
        programs = folder / "venv" / "bin"
        run(sys.executable, "-m", "venv", programs.parent)
        pip: list[str | Path] = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run(*pip, "--constraint", ROOT / "constraints.txt", f"{wheel}[train,samples]", environment=without_compiler)
        demo = ("train", "mnist-5k", "--recipe", "standard", "--out", "run")
        run(programs / "committee", *demo, folder=folder, environment=without_compiler)
        kernels = json.loads((folder / "run" / "environment.json").read_text())["kernels"]
    if kernels == "torch":
        sys.exit(f"wheels: {wheel.name} trained without kernels on this processor, which may have none of its paths")
    print(f"{wheel.name} trains on the kernels {kernels} where there is no compiler.")


def main() -> None:
    compilers = {architecture: compiler_for(architecture) for architecture in ARCHITECTURES}
    run(sys.executable, "-m", "build", "--sdist", "--outdir", DIST)
    sdist = only(DIST, "*.tar.gz")
    wheels = {architecture: build(sdist, architecture, compiler) for architecture, compiler in compilers.items()}
    check(wheels[platform.machine()])
    print("Built:", *(path.relative_to(ROOT) for path in (sdist, *wheels.values())))


if __name__ == "__main__":
    main()
