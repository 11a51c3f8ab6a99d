"""Commands measured side by side: in turn, several rounds, each in fresh processes; medians, ranges, ratios, JSON."""

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
PACKAGES = ("torch", "keras", "tensorflow-cpu", "jax", "lightning", "torchensemble", "numpy", "pandas", "pyarrow")


@dataclass(frozen=True)
class Setting:
    """One way to run a tool: a command whose last line is figures as JSON; of `copies` run at once they are added."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    copies: int = 1


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
                print(f"  {setting.name} failed: {(err.strip().splitlines() or ['no message'])[-1]}", flush=True)
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


def survey(tools: Mapping[str, Sequence[Setting]], figure: str) -> dict[str, dict[str, float]]:
    """The figure of every setting of every tool, each run once: tool -> setting's name -> figure, where it ran."""
    found: dict[str, dict[str, float]] = {}
    for tool, settings in tools.items():
        for setting in settings:
            if figures := measure(setting):
                found.setdefault(tool, {})[setting.name] = figures[figure]
                print(f"survey  {tool:24} {setting.name:44} {figures[figure]:10,.1f}", flush=True)
    return found


def best_settings(
    tools: Mapping[str, Sequence[Setting]], surveyed: Mapping[str, Mapping[str, float]]
) -> dict[str, Setting]:
    """Of each tool that ran the setting with the largest figure."""
    best = {tool: max(figures, key=lambda name: figures[name]) for tool, figures in surveyed.items()}
    return {tool: next(s for s in tools[tool] if s.name == name) for tool, name in best.items()}


def rounds(chosen: Mapping[str, Setting], figure: str, number: int) -> dict[str, list[float]]:
    """Every tool in turn, so many times."""
    values: dict[str, list[float]] = {tool: [] for tool in chosen}
    for turn in range(number):
        for tool, setting in chosen.items():
            if figures := measure(setting):
                values[tool].append(figures[figure])
                print(f"round {turn + 1}  {tool:24} {setting.name:44} {figures[figure]:10,.1f}", flush=True)
    return {tool: each for tool, each in values.items() if each}


def compare(values: Mapping[str, Sequence[float]], ours: str, unit: str) -> dict[str, Any]:
    """Medians, ranges, and our median over each other's; printed, and as a value."""
    medians = {tool: statistics.median(each) for tool, each in values.items()}
    summary = {}
    for tool, each in sorted(values.items(), key=lambda item: -medians[item[0]]):
        ratio = medians[ours] / medians[tool]
        summary[tool] = {"median": medians[tool], "lowest": min(each), "highest": max(each), "ours_over_it": ratio}
        print(f"{tool:24} {medians[tool]:10,.1f} {unit} ({min(each):,.1f} to {max(each):,.1f})   ours / it {ratio:.2f}")
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
