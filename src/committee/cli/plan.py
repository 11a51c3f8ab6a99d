"""The command plan: what a training would take, here and on a cluster, from a short measurement."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING

import click

from committee.cli.options import (
    RecipeOptions,
    TrainingOptions,
    changes_option,
    example,
    json_option,
    mirror_option,
    seconds,
    training_options,
)
from committee.terminal import console, say

if TYPE_CHECKING:
    from rich.table import Table

    from committee.runs.forecast import Forecast, PlanReport

GIB = 2**30
positive = click.FloatRange(0, min_open=True)


@click.command()
@click.argument("recipe")
@click.option("--data", required=True, help="The data set: a name or a path, as committee train takes it.")
@click.option("--members", type=click.IntRange(1, 10_000), help="Members of the committee.  [default: the recipe's]")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of each member.  [default: the recipe's]")
@click.option(
    "--nodes", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Machines, each like this one."
)
@mirror_option
@changes_option
@training_options
@click.option(
    "--mtbf",
    callback=seconds,
    metavar="TIME",
    help="Time between two failures of a node, such as 24h.  [default: none]",
)
@click.option(
    "--repair",
    callback=seconds,
    metavar="TIME",
    default="5m",
    show_default=True,
    help="Time until a node that failed works again.",
)
@click.option(
    "--spread",
    type=click.FloatRange(0, 0.5),
    default=0.03,
    show_default=True,
    help="How much members' times differ, on slower nodes or beside other work: standard deviation over mean.",
)
@click.option(
    "--bandwidth", type=positive, default=100.0, show_default=True, help="Between two nodes, megabytes a second."
)
@click.option("--price", type=positive, help="Of a core-hour, or of an accelerator's hour; adds the cost.")
@click.option("--watts", type=positive, help="That a node draws; adds the energy.")
@json_option
@example(
    "committee plan standard --data mnist-5k\n"
    "committee plan best --data photos/ --members 100 --nodes 10 --mtbf 24h --price 0.04"
)
def plan(
    recipe: str,
    data: str,
    members: int | None,
    epochs: int | None,
    nodes: int,
    mirror: bool,
    changes: tuple[str, ...],
    training_options: TrainingOptions,
    mtbf: float | None,
    repair: float,
    spread: float,
    bandwidth: float,
    price: float | None,
    watts: float | None,
    as_json: bool,
) -> None:
    """Say what training RECIPE would take, here and on more machines: time, memory, multiply-adds.

    Some seconds of training and the page of a tiny run are measured here; nothing is kept, and the test images stay
    sealed. The table has 1 to 1,000 members on 1 to 100 nodes like this machine, with as many workers each. It counts
    the start, every epoch's steps and validation, checkpoints, the data's way to the nodes, members' predictions and
    their way back, results and page; nodes that fail (--mtbf), and the last members, for which the others wait
    (--spread). A recipe that may stop early takes this time at most.
    """
    began = time.perf_counter()
    from committee.runs.forecast import Assumptions, plan_costs

    options = RecipeOptions(recipe, members, epochs, mirror, changes)
    chosen, dataset = options.load(), training_options.load(data)
    loading = time.perf_counter() - began
    assumed = Assumptions(mtbf or math.inf, repair, spread, bandwidth * 1e6, price, watts)
    setting = training_options.setting(data)
    say(f"Measuring how fast {chosen.name} trains here ...", err=True)
    report = plan_costs(dataset, chosen, setting, nodes, assumed, loading=loading)
    if as_json:
        say(json.dumps(report.model_dump(mode="json")))
        return
    for line in head_lines(report):
        say(line)
    say("")
    console().print(forecast_table(report))
    say("")
    for line in closing_lines(report):
        say(line)


def head_lines(report: PlanReport) -> list[str]:
    """What was measured, and what was asked for."""
    from committee.errors import counted
    from committee.metrics.formatting import duration

    sizes, costs, planned, environment = report.sizes, report.training, report.planned, report.environment
    parts = {
        "start": planned.loading_seconds,
        "data to the nodes": planned.data_seconds,
        "training": planned.training_seconds,
        "members collected": planned.collecting_seconds,
        "results and page": planned.end_seconds,
    }
    where = counted(planned.nodes, "node") if planned.nodes > 1 else "this machine"
    return [
        f"{report.recipe} on {report.data}: {sizes.images:,} images, {sizes.classes} classes; a network has "
        f"{sizes.parameters:,} parameters and {quantity(sizes.multiply_adds)} multiply-adds an image",
        f"Measured in {duration(report.measuring_seconds)}: {counted(costs.at_once, 'member')} at a time, "
        f"{costs.images_per_second:,.0f} images per second each, on {environment.device} ({environment.kernels}, "
        f"{environment.precision})",
        f"A member takes {duration(report.member_seconds)} and {quantity(report.member_multiply_adds)} multiply-adds.",
        f"{counted(planned.members, 'member')} on {where}: {duration(planned.seconds)} ("
        + ", ".join(f"{name} {duration(each)}" for name, each in parts.items() if each >= 0.05)
        + f"); {amounts(report, planned)}.",
    ]


def amounts(report: PlanReport, forecast: Forecast) -> str:
    """Everything but the time, in words."""
    said = [f"{hours(forecast.unit_hours)} {report.unit}-hours", f"{quantity(forecast.multiply_adds)} multiply-adds"]
    if forecast.first_node_bytes:
        said.append(f"{memory_text(forecast.first_node_bytes)} of memory")
    if forecast.nodes > 1 and forecast.node_bytes:
        said[-1] += f", {memory_text(forecast.node_bytes)} on each other node"
    if forecast.money is not None:
        said.append(f"cost {forecast.money:,.2f}")
    if forecast.kilowatt_hours is not None:
        said.append(f"{forecast.kilowatt_hours:,.3g} kWh")
    if forecast.failures:
        said.append(f"{forecast.failures:.2g} failures of a node")
    return ", ".join(said)


def forecast_table(report: PlanReport) -> Table:
    """Time, hours and idle workers, by members and nodes."""
    from rich.table import Table

    from committee.cli.tables import FRAME
    from committee.metrics.formatting import duration, percent
    from committee.terminal import plain

    columns = sorted({forecast.nodes for forecast in report.table})
    table = Table(show_edge=False, **FRAME)
    table.add_column("\nmembers", justify="right", no_wrap=True)
    for nodes in columns:
        table.add_column(f"{nodes:,}\nnode{'s' * (nodes > 1)}", justify="right", no_wrap=True)
    for members in sorted({forecast.members for forecast in report.table}):
        row = [forecast for forecast in report.table if forecast.members == members]
        cells = [
            plain(duration(each.seconds), "").append_text(
                plain(f"{hours(each.unit_hours)} h", percent(each.idle, 0), style="dim")
            )
            for each in row
        ]
        table.add_row(plain(f"{members:,}"), *cells)
    return table


def closing_lines(report: PlanReport) -> list[str]:
    """What the table's figures are, and what they rest on."""
    from committee.errors import counted
    from committee.metrics.formatting import percent

    failing = "none fails (--mtbf)" if report.mtbf is None else f"one fails every {report.mtbf / 3600:,.3g} hours"
    lines = [
        f"Each cell: the time until the page is there; {report.unit}-hours taken; the share of workers' time while "
        "members train in which they have none.",
        f"Nodes like this machine with {report.training.at_once} at a time, of which {failing}; times differ by "
        f"{percent(report.spread, 0)}; {report.bandwidth / 1e6:,.0f} MB a second between nodes.",
    ]
    if report.planned.first_node_bytes:
        highest = {each.members: max(each.first_node_bytes, each.node_bytes) for each in report.table}
        each = ", ".join(f"{memory_text(size)} for {counted(members, 'member')}" for members, size in highest.items())
        lines.append(f"Memory of the first node: {each}.")
    died = max(forecast.died for forecast in report.table)
    if died >= 0.05:
        lines.append(f"Up to {died:.2g} members lose their node three times; the same command trains them.")
    return lines


def quantity(number: float) -> str:
    """A large number in three digits: "6.23 million"."""
    for name, size in (("quadrillion", 1e15), ("trillion", 1e12), ("billion", 1e9), ("million", 1e6)):
        if number >= size:
            return f"{number / size:,.3g} {name}" if number < 1000 * size else f"{number / size:,.0f} {name}"
    return f"{number:,.0f}"


def hours(number: float) -> str:
    """Hours in two digits or more: "0.034", "1.2", "1,350"."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def memory_text(size: int) -> str:
    """Bytes as people read them: "512 MiB", "2.3 GiB"."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / 2**20:,.0f} MiB"
