"""A trial on this machine, a recipe, a data set's sizes -> what any number of members takes on any number of nodes.

All nodes are like this machine. The first one loads the data, hands them on, and evaluates the run at its end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from committee.config.recipe import Recipe
from committee.config.record import Record
from committee.data.dataset import ImageDataset
from committee.data.summary import describe
from committee.folders.records import Environment
from committee.nn.devices import cores
from committee.runs import cost
from committee.runs.cluster import Member, Nodes, makespan
from committee.runs.cost import Sizes
from committee.runs.trial import EndCosts, TrainingCosts, end_costs, training_costs
from committee.training.setting import Setting

MEMBERS = (1, 10, 100, 1_000)
NODES = (1, 3, 10, 30, 100)
BANDWIDTH = 100e6  # bytes a second between nodes, of a network of 1 Gbit/s


@dataclass(frozen=True)
class Assumptions:
    """What cannot be measured here.

    Attributes:
        mtbf, repair, spread: as in `runs.cluster.Nodes`.
        bandwidth: bytes a second between two nodes.
        price: of a core-hour, or of an accelerator's hour; None where nobody asks for money.
        watts: that a node draws; None where nobody asks for energy.
    """

    mtbf: float = math.inf
    repair: float = 300.0
    spread: float = 0.03
    bandwidth: float = BANDWIDTH
    price: float | None = None
    watts: float | None = None


class Forecast(Record):
    """What so many members take on so many nodes.

    Attributes:
        seconds: of all of it, the sum of the next five: starting and loading; the data's way to the other nodes;
            training, failures included; members' way back; results and page.
        idle: the share of all workers' time, while members train, in which they have none.
        unit_hours: hours of cores, or of accelerators, that are taken; those of other nodes until training ends.
        failures: of nodes while members train; `died` of the members are left for the same command to train.
        first_node_bytes: own memory of the first node at its highest: while members train, or at the end.
        node_bytes: of each other node.
        money, kilowatt_hours: where a price, or the watts of a node, are given.
    """

    members: int
    nodes: int
    seconds: float
    loading_seconds: float
    data_seconds: float
    training_seconds: float
    collecting_seconds: float
    end_seconds: float
    idle: float
    unit_hours: float
    failures: float
    died: float
    multiply_adds: int
    first_node_bytes: int
    node_bytes: int
    money: float | None = None
    kilowatt_hours: float | None = None


@dataclass(frozen=True)
class CostModel:
    """Everything that a forecast follows from.

    Attributes:
        units: cores of a node, or 1 accelerator.
        loading: seconds until the data set is read and described.
        checkpoint_seconds: as in `Setting`.
    """

    recipe: Recipe
    sizes: Sizes
    training: TrainingCosts
    end: EndCosts
    units: int
    loading: float
    checkpoint_seconds: float = 30.0
    assumptions: Assumptions = Assumptions()

    @property
    def member_seconds(self) -> float:
        """Of one member on a warm worker."""
        return cost.member_seconds(self.training, self.recipe, self.sizes, self.checkpoint_seconds)

    def forecast(self, members: int, nodes: int) -> Forecast:
        """What so many members take on so many nodes."""
        assumed, sizes, workers = self.assumptions, self.sizes, self.training.at_once
        crowd = Nodes(nodes, workers, assumed.mtbf, assumed.repair, spread=assumed.spread)
        member = Member(self.member_seconds, max(self.checkpoint_seconds, 1.0), self.training.start)
        training = makespan(members, member, crowd)
        used = min(nodes, math.ceil(members / workers))  # nodes that get a member
        data = math.ceil(math.log2(used)) * sizes.images * sizes.image_bytes / assumed.bandwidth
        last_wave = min(members, crowd.slots) - min(members, workers)
        collecting = last_wave * cost.member_bytes(sizes) / assumed.bandwidth
        end = cost.end_seconds(self.end, self.training, self.recipe, sizes, members, cores())
        until_trained = self.loading + data + training.seconds + collecting
        hours = self.units * (nodes * until_trained + end) / 3600
        watts = None if assumed.watts is None else assumed.watts * hours / self.units / 1000
        while_training = cost.node_bytes(self.training, sizes, min(workers, members))
        return Forecast(
            members=members,
            nodes=nodes,
            seconds=until_trained + end,
            loading_seconds=self.loading,
            data_seconds=data,
            training_seconds=training.seconds,
            collecting_seconds=collecting,
            end_seconds=end,
            idle=max(1 - training.busy / (crowd.slots * training.seconds), 0.0),
            unit_hours=hours,
            failures=training.failures,
            died=training.died,
            multiply_adds=members * cost.member_multiply_adds(self.recipe, sizes),
            first_node_bytes=max(while_training, cost.end_bytes(self.end, sizes, members)),
            node_bytes=while_training,
            money=None if assumed.price is None else assumed.price * hours,
            kilowatt_hours=watts,
        )

    def table(self, members: Sequence[int] = MEMBERS, nodes: Sequence[int] = NODES) -> tuple[Forecast, ...]:
        """A forecast for each pair, members by members."""
        return tuple(self.forecast(each, many) for each in members for many in nodes)


class PlanReport(Record):
    """`committee plan --json`.

    Attributes:
        measuring_seconds: that the trials here took.
        member_seconds, member_multiply_adds: of one member.
        unit: "core", or "accelerator".
        planned: what was asked for.
    """

    recipe: str
    recipe_digest: str
    data: str
    environment: Environment
    sizes: Sizes
    training: TrainingCosts
    end: EndCosts
    mtbf: float | None
    repair: float
    spread: float
    bandwidth: float
    measuring_seconds: float
    member_seconds: float
    member_multiply_adds: int
    unit: str
    planned: Forecast
    table: tuple[Forecast, ...]


def plan_costs(
    dataset: ImageDataset,
    recipe: Recipe,
    setting: Setting,
    nodes: int = 1,
    assumptions: Assumptions | None = None,
    *,
    loading: float = 0.0,
) -> PlanReport:
    """Measure here for some seconds, and forecast the recipe's members on these nodes and a table of others.

    Args:
        dataset: its training images are tried; its test images stay sealed.
        recipe: what would be trained.
        setting: where and how; its workers are those of each node.
        nodes: like this machine.
        assumptions: None takes the defaults.
        loading: seconds that the program took until the data set was there.

    Raises:
        TrainingError: a trial failed.
        RecipeError: the network does not fit the images.
    """
    assumed, began, members = assumptions or Assumptions(), time.perf_counter(), recipe.committee.members
    describe(dataset)
    described = time.perf_counter() - began
    sizes = cost.sizes_of(dataset, recipe)
    resolved = setting.resolved(members * nodes)
    training, end = training_costs(dataset, recipe, resolved), end_costs(dataset, recipe, resolved)
    on_cpu = resolved.device == "cpu"
    model = CostModel(
        recipe=recipe,
        sizes=sizes,
        training=training,
        end=end,
        units=cores() if on_cpu else 1,
        loading=loading + described,
        checkpoint_seconds=setting.checkpoint_seconds,
        assumptions=assumed,
    )
    return PlanReport(
        recipe=recipe.name,
        recipe_digest=recipe.digest(),
        data=dataset.name,
        environment=resolved.environment(),
        sizes=sizes,
        training=training,
        end=end,
        mtbf=assumed.mtbf if math.isfinite(assumed.mtbf) else None,
        repair=assumed.repair,
        spread=assumed.spread,
        bandwidth=assumed.bandwidth,
        measuring_seconds=round(time.perf_counter() - began, 3),
        member_seconds=model.member_seconds,
        member_multiply_adds=cost.member_multiply_adds(recipe, sizes),
        unit="core" if on_cpu else "accelerator",
        planned=model.forecast(members, nodes),
        table=model.table(),
    )
