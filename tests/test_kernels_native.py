"""Every function of every path in C++, beside plain loops in float64: tests/kernels/check.cpp, compiled here.

The paths for 64-bit ARM are cross-compiled and run under qemu-user where both are installed (Debian has them as
g++-aarch64-linux-gnu and qemu-user): that shows that their results are right, and nothing about their speed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "src" / "committee" / "kernels"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


class Machine(NamedTuple):
    """One to compile for, by a compiler; what runs its programs, and the processors that this can be."""

    compiler: str
    runs: list[list[str]]


NATIVE = Machine(os.environ.get("CXX", "c++"), [[]])
EMULATOR = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu"]  # with the cross compiler's libraries
ARM = Machine("aarch64-linux-gnu-g++", [[*EMULATOR, cpu] for cpu in ("max", "cortex-a72")])


def compiled(machine: Machine, folder: Path, *flags: str, without: frozenset[str] = frozenset()) -> Path:
    """The program with all paths inside but those, whose functions it must not call; a file at a time on every core."""
    for command in (machine.compiler, *(run[0] for run in machine.runs if run)):
        if shutil.which(command) is None:
            pytest.skip(f"there is no {command} here")
    with (ROOT / "pyproject.toml").open("rb") as file:
        extension = tomllib.load(file)["tool"]["setuptools"]["ext-modules"][0]
    sources = [ROOT / each for each in extension["sources"] if Path(each).stem not in {"module", *without}]
    compile_file = [machine.compiler, *extension["extra-compile-args"], "-Wall", "-Wextra", "-Werror", *flags]

    def made(source: Path) -> Path:
        result = folder / f"{source.stem}.o"
        subprocess.run([*compile_file, f"-I{KERNELS}", "-c", source, "-o", result], check=True)
        return result

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(made, [ROOT / "tests" / "kernels" / "check.cpp", *sources]))
    linked = [] if "-fsanitize=address,undefined" in flags else ["-static"]
    if without:
        linked.append("-Wl,--unresolved-symbols=ignore-all")
    program = folder / "check"
    subprocess.run([machine.compiler, *flags, *linked, *objects, "-o", program], check=True)
    return program


def said(*command: str | Path) -> list[list[str]]:
    """The words of each line that a program prints; it must succeed."""
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # which an emulator cannot
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split(maxsplit=1) for line in done.stdout.splitlines()]


def digests(machine: Machine, program: Path, shapes: int, without: frozenset[str] = frozenset()) -> dict[str, str]:
    """Checks every path on every processor that has it -> the digest of its bits, which must be the same on all."""
    found: dict[str, str] = {}
    for run in machine.runs:
        for path, state in said(*run, program):
            if state == "supported" and path.replace("-", "_") not in without:
                digest = said(*run, program, path, "1", str(shapes))[-1][1]
                assert found.setdefault(path, digest) == digest, f"{path} has other bits on {run[-1]}"
    return found


def test_a_path_of_each_type_of_product_computes_what_plain_loops_do(tmp_path: Path) -> None:
    """On x86-64 avx2 and avx512bf16; compiling the others takes longer, so they have their turn in the long form."""
    without = frozenset({"amx", "amx_emulated", "avx512"} if platform.machine() == "x86_64" else ())
    digests(NATIVE, compiled(NATIVE, tmp_path, "-O1", without=without), 10, without)


def test_every_path_for_arm_computes_what_plain_loops_do_on_every_processor(tmp_path: Path) -> None:
    assert digests(ARM, compiled(ARM, tmp_path, "-O1"), 3).keys() == {"neonbf16", "neon"}


@pytest.mark.soak
@pytest.mark.parametrize("machine", [NATIVE, ARM], ids=["native", "ARM"])
def test_many_shapes_of_all_channels_with_the_same_bits_however_compiled(machine: Machine, tmp_path: Path) -> None:
    found = []
    for level in ("-O1", "-O3"):
        folder = tmp_path / level
        folder.mkdir()
        found.append(digests(machine, compiled(machine, folder, level), 100))
    assert found[0] == found[1]
    of_floats = [found[0][path] for path in ("avx512", "avx2", "neon") if path in found[0]]
    assert len(set(of_floats)) <= 1, "paths that multiply floats have the same bits as each other"


@pytest.mark.soak
@pytest.mark.parametrize("machine", [NATIVE, ARM], ids=["native", "ARM"])
def test_sanitizers_find_nothing_over_many_shapes(machine: Machine, tmp_path: Path) -> None:
    digests(machine, compiled(machine, tmp_path, "-O1", *SANITIZERS), 300 if machine is NATIVE else 20)
