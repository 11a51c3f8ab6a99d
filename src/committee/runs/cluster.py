"""Members on nodes that fail and come back: how long until all of them are trained, as a formula.

Members go to the next free worker, as the executors give them out. A node fails after an exponentially distributed
time; its members lose what they did since their last checkpoint, are noticed to be missing, and go to the next free
worker; the node is back after its repair. `makespan` is a renewal calculation: how many members have begun by a time
follows from how long one takes; the last of those that run when none is left to begin decides. `runs.simulation` plays
the same event by event, and the tests compare the two.

Exponential failures and what they cost follow Daly 2006, "A higher order estimate of the optimum checkpoint interval
for restart dumps", doi 10.1016/j.future.2004.11.016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]

PARTS = 64  # of a member's time, in which the calculation goes forward
WAVES = 60  # that are calculated; those before are each a mean member long
FAILURES = 12  # of one member that are counted
MOST_STARTS = 3  # of a member whose worker is killed, as the executors have it


@dataclass(frozen=True)
class Nodes:
    """Equal nodes.

    Attributes:
        count: how many.
        workers: members that a node trains at a time.
        mtbf: seconds between two failures of one node, on average; infinite where none fails.
        repair: seconds until a node that failed works again.
        noticed: seconds until its members begin elsewhere.
        spread: standard deviation of a member's time over its mean: slower nodes, other work on them.
    """

    count: int = 1
    workers: int = 1
    mtbf: float = math.inf
    repair: float = 300.0
    noticed: float = 30.0
    spread: float = 0.03

    @property
    def slots(self) -> int:
        """Members that train at a time."""
        return self.count * self.workers


@dataclass(frozen=True)
class Member:
    """One member's training.

    Attributes:
        seconds: on a warm worker, without failures.
        checkpoint: seconds between two checkpoints.
        start: seconds of a worker's start.
    """

    seconds: float
    checkpoint: float = 30.0
    start: float = 3.0


@dataclass(frozen=True)
class Makespan:
    """What becomes of members on nodes.

    Attributes:
        seconds: from the workers' start to the end of the last member.
        busy: seconds of all workers together that members take; the rest of their time they are idle or broken.
        failures: of nodes while members train.
        died: members whose worker was killed MOST_STARTS times; the same command trains them.
    """

    seconds: float
    busy: float
    failures: float
    died: float


def makespan(members: int, member: Member, nodes: Nodes) -> Makespan:
    """How long so many members take, on average."""
    rate = member.seconds / nodes.mtbf
    lost = lost_seconds(member, nodes)
    taken = member.seconds + rate * lost
    occupied = taken + rate * nodes.repair  # of a worker, whose node's repairs are part of its members' time
    waves = math.ceil(members / nodes.slots)
    skipped = max(waves - WAVES, 0)
    left = members - skipped * nodes.slots
    step = member.seconds / PARTS
    horizon = step * math.ceil((min(waves, WAVES) + 2) * (occupied + 4 * (lost + nodes.repair) * rate) / step + 64)
    times = np.arange(0.0, horizon + _longest(member, nodes, lost + nodes.repair), step)
    begun = _beginnings(left, nodes.slots, _distribution(times + step / 2, member, nodes, lost + nodes.repair))
    # A worker is free for a member of a node that failed once fewer run than there are workers: it waits for the repair
    # only where all are busy.
    crowded = min(members, nodes.slots) == nodes.slots and members % nodes.slots == 0
    waiting = _waiting(member, nodes) if crowded else nodes.noticed
    last = _distribution(
        times, member, nodes, lost - nodes.noticed + max(waiting, nodes.noticed), min(members, nodes.workers)
    )
    seconds = _expected_last(begun, last, step, min(members, nodes.slots)) + skipped * occupied + member.start
    return Makespan(
        seconds=seconds,
        busy=members * taken,
        failures=nodes.count * seconds / (nodes.mtbf + nodes.repair) if math.isfinite(nodes.mtbf) else 0.0,
        died=members * _poisson_tail(MOST_STARTS, rate),
    )


def lost_seconds(member: Member, nodes: Nodes) -> float:
    """What a failure costs a member besides waiting for its node: work since its checkpoint, notice, a new start."""
    interval = min(member.checkpoint, member.seconds)
    return interval / 2 + nodes.noticed + member.start


def _waiting(member: Member, nodes: Nodes) -> float:
    """How long a member waits for a worker where all are busy with members that end together: for its own node's
    repair, or for the others' end, whichever is earlier.
    """
    if nodes.repair >= member.seconds:
        return member.seconds / 2
    return nodes.repair * (1 - nodes.repair / (2 * member.seconds))


def _poisson_tail(least: int, mean: float) -> float:
    """The probability of at least so many events."""
    return 1 - sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(least))


def _longest(member: Member, nodes: Nodes, loss: float) -> float:
    """Hardly any member takes longer than this."""
    failures = min(4 + 4 * member.seconds / nodes.mtbf, FAILURES) if math.isfinite(nodes.mtbf) else 0
    return member.seconds * (1 + 6 * nodes.spread) + failures * loss


def _distribution(times: Times, member: Member, nodes: Nodes, loss: float, together: int = 1) -> Times:
    """The probability that a member has ended after each of these times, with so long a loss for each failure.

    Args:
        together: members on one node, which fail together: all of them have ended with the probability's power.
    """
    rate = member.seconds / nodes.mtbf
    weights = [math.exp(-rate) * rate**k / math.factorial(k) for k in range(FAILURES + 1)]
    found = np.zeros_like(times)
    for k, weight in enumerate(weights):
        if weight > 1e-9:
            left = np.maximum(times - k * loss, 1e-9) / member.seconds
            found += weight / sum(weights) * _normal((left - 1) / max(nodes.spread, 1e-6)) ** together
    return found ** (1 / together)


def _normal(values: Times) -> Times:
    """The standard normal distribution's probability below each value."""
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in np.clip(values, -40, 40)])


def _beginnings(members: int, slots: int, ended: Times) -> Times:
    """How many members begin at each time: as many as there are workers at once, then one whenever one ends."""
    shares = np.diff(ended, prepend=0.0)
    support = np.flatnonzero(shares > 1e-9)
    first, last = max(int(support[0]), 1), int(support[-1]) + 1
    kernel = shares[first:last][::-1]
    begun = np.zeros(len(ended))
    begun[0] = min(members, slots)
    total = begun[0]
    for now in range(first, len(begun)):
        if total >= members:
            break
        low = max(now - last + 1, 0)
        window = begun[low : now - first + 1]
        begun[now] += min(float(window @ kernel[len(kernel) - len(window) :]), members - total)
        total += begun[now]
    return begun


def _expected_last(begun: Times, ended: Times, step: float, running: int) -> float:
    """When the last member has ended, on average: the integral of the probability that one has not.

    Of the members in the order of their beginnings, each is a unit of what `_beginnings` gives: one that begins at
    several times with some probability each.

    Args:
        begun: (time,), members that begin then.
        ended: (time,), the probability that a member has ended so long after it began.
        step: seconds between two times.
        running: how many members run side by side; those that began last decide.
    """
    all_ended, member, filled, left = np.ones(len(begun)), np.zeros(len(begun)), 0.0, float(running)
    for start in np.flatnonzero(begun)[::-1]:
        of_this = np.concatenate([np.zeros(start), ended[: len(begun) - start]])
        mass = min(float(begun[start]), left)
        left -= mass
        taken = min(mass, 1 - filled)
        member, filled, mass = member + taken * of_this, filled + taken, mass - taken
        if filled > 1 - 1e-6:
            whole = math.floor(mass + 1e-6)
            all_ended *= np.minimum(member, 1.0) * of_this**whole
            filled = max(mass - whole, 0.0)
            member = filled * of_this
        if left < 1e-6:
            break
    return float(step * np.sum(1 - all_ended * (1 - filled + member)))
