"""Commands measured side by side: in turn, several rounds, each in fresh processes; medians, ranges, ratios, JSON.

Where asked to, rounds go on while any tool's figures lie further apart than SPREAD, and all tools may be held to an
older processor's instructions (`use_isa`); which instructions they found is part of the result (`features`).
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SPREAD = 0.15  # (largest - smallest) / median of a tool's rounds from which on there are further ones
ISAS = {
    "avx2": {
        "COMMITTEE_CPU": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",  # in PyTorch and in TensorFlow
        "ATEN_CPU_CAPABILITY": "avx2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    }
}
PACKAGES = ("torch", "keras", "tensorflow-cpu", "jax", "lightning", "torchensemble", "numpy", "pandas", "pyarrow")


@dataclass(frozen=True)
class Setting:
    """One way to run a tool: a command whose last line is figures as JSON; of `copies` run at once they are added."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    copies: int = 1


def use_isa(name: str) -> None:
    """Hold this process and all that it starts, ours and peers, to the instructions of one of ISAS; "" changes nothing.

    To be called before torch is imported.
    """
    limits = dict(ISAS[name]) if name else {}
    if flags := limits.pop("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    os.environ.update(limits)


def features() -> dict[str, str]:
    """What a fresh process finds of the processor: torch's own kernels, torch's oneDNN, and our kernels' path."""
    script = """
import torch
from committee import kernels
print("torch:", torch.backends.cpu.get_cpu_capability())
print("committee:", kernels.path())
torch.conv2d(torch.ones(16, 16, 28, 28), torch.ones(16, 16, 3, 3))
"""
    environment = {**os.environ, "ONEDNN_VERBOSE": "1"}
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    patterns = {"torch": r"^torch: (.*)", "oneDNN": r"info,cpu,isa:(.*)", "committee": r"^committee: (.*)"}
    found = {name: re.search(pattern, said.stdout, re.MULTILINE) for name, pattern in patterns.items()}
    instructions = {name: match[1].strip() if match else "not said" for name, match in found.items()}
    print("processor features in use:", "; ".join(f"{name} {each}" for name, each in instructions.items()), flush=True)
    return instructions


def measure(setting: Setting, limit: float = 900.0) -> dict[str, float] | None:
    """The sums of all figures over all copies; None where it fails or takes longer than the limit, in seconds."""
    environment = {**os.environ, **setting.environment}
    running = [
        subprocess.Popen(
            [sys.executable, *setting.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(setting.copies)
    ]
    totals: dict[str, float] = {}
    try:
        for process in running:
            out, err = process.communicate(timeout=limit)
            if process.returncode:
                message = (err.strip().splitlines() or ["no message"])[-1]
                print(f"  {setting.name} failed with {process.returncode}: {message}", flush=True)
                return None
            for figure, value in json.loads(out.strip().splitlines()[-1]).items():
                totals[figure] = totals.get(figure, 0.0) + value
    except subprocess.TimeoutExpired:
        print(f"  {setting.name} took longer than {limit:.0f} s", flush=True)
        return None
    finally:
        for process in running:
            process.kill()
    return totals


def survey_all(tools: Mapping[str, Sequence[Setting]]) -> dict[str, dict[str, dict[str, float]]]:
    """All figures of every setting of every tool, each run once: tool -> setting's name -> figures, where it ran."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for tool, settings in tools.items():
        for setting in settings:
            if figures := measure(setting):
                found.setdefault(tool, {})[setting.name] = figures
                said = "".join(f"{value:10,.{1 if value > 100 else 3}f}" for value in figures.values())
                print(f"survey  {tool:24} {setting.name:44} {said}", flush=True)
    return found


def one_figure(surveyed: Mapping[str, Mapping[str, Mapping[str, float]]], figure: str) -> dict[str, dict[str, float]]:
    """Of a survey of all figures one."""
    return {tool: {name: each[figure] for name, each in found.items()} for tool, found in surveyed.items()}


def survey(tools: Mapping[str, Sequence[Setting]], figure: str) -> dict[str, dict[str, float]]:
    """The figure of every setting of every tool, each run once: tool -> setting's name -> figure, where it ran."""
    return one_figure(survey_all(tools), figure)


def best_settings(
    tools: Mapping[str, Sequence[Setting]], surveyed: Mapping[str, Mapping[str, float]], least: bool = False
) -> dict[str, Setting]:
    """Of each tool that ran the setting with the largest figure, or with the least."""
    pick = min if least else max
    best = {tool: pick(figures, key=lambda name: figures[name]) for tool, figures in surveyed.items()}
    return {tool: next(s for s in tools[tool] if s.name == name) for tool, name in best.items()}


def spread(values: Sequence[float]) -> float:
    """(largest - smallest) / median."""
    return (max(values) - min(values)) / statistics.median(values)


def rounds(chosen: Mapping[str, Setting], figure: str, number: int, most: int = 0) -> dict[str, list[float]]:
    """Every tool in turn, so many times; while any tool's spread is above SPREAD further times, up to `most` in all."""
    values: dict[str, list[float]] = {tool: [] for tool in chosen}
    turn = 0
    while turn < number or (turn < most and any(spread(each) > SPREAD for each in values.values() if each)):
        turn += 1
        for tool, setting in chosen.items():
            if figures := measure(setting):
                values[tool].append(figures[figure])
                decimals = 1 if figures[figure] > 100 else 3
                print(f"round {turn}  {tool:24} {setting.name:44} {figures[figure]:10,.{decimals}f}", flush=True)
    return {tool: each for tool, each in values.items() if each}


def best_peer(summary: Mapping[str, Mapping[str, float]], ours: str, least: bool = False) -> str | None:
    """The tool besides ours with the largest median of a comparison, or with the least; None where there is none."""
    medians = {tool: each["median"] for tool, each in summary.items() if tool != ours}
    return (min if least else max)(medians, key=lambda tool: medians[tool], default=None)


def compare(values: Mapping[str, Sequence[float]], ours: str, unit: str) -> dict[str, dict[str, float]]:
    """Medians, ranges, spreads, and our median over each other's; printed, and as a value."""
    medians = {tool: statistics.median(each) for tool, each in values.items()}
    summary: dict[str, dict[str, float]] = {}
    for tool, each in sorted(values.items(), key=lambda item: -medians[item[0]]):
        ratio = medians[ours] / medians[tool]
        apart, decimals = spread(each), 1 if medians[tool] > 100 else 3
        summary[tool] = {"median": medians[tool], "lowest": min(each), "highest": max(each), "ours_over_it": ratio}
        summary[tool] |= {"spread": apart, "rounds": len(each)}
        print(
            f"{tool:24} {medians[tool]:10,.{decimals}f} {unit} ({min(each):,.{decimals}f} to "
            f"{max(each):,.{decimals}f}; {len(each)} rounds, spread {apart:.0%})   ours / it {ratio:.2f}"
        )
        if apart > SPREAD:
            print(f"{'':24} the spread of {tool} stayed above {SPREAD:.0%}")
    return summary


def write(name: str, content: Mapping[str, Any]) -> None:
    """bench/results/PROCESSOR/NAME.json, or NAME-cuda.json on a GPU, with versions and machine."""
    from committee.nn.devices import cores
    from committee.training.setting import Setting as TrainingSetting

    setting = TrainingSetting().resolved(cores())
    environment = setting.environment()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    folder = RESULTS / re.sub(r"[^a-z0-9]+", "-", environment.processor.lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"{name}.json" if setting.device == "cpu" else f"{name}-{setting.device}.json")
    about = {"versions": versions, "environment": environment.model_dump()}
    path.write_text(json.dumps({**content, **about}, indent=1) + "\n")
    print(f"written: bench/results/{folder.name}/{path.name}")
