"""Members on nodes that fail and come back, played event by event: what `runs.cluster` is checked by.

Nothing is averaged here: every member has its own time, every node its own failures, each drawn by key.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import Literal

from committee.rng import numpy_generator
from committee.runs.cluster import MOST_STARTS, Makespan, Member, Nodes

Kind = Literal["ends", "fails", "noticed", "repaired"]


@dataclass
class _Attempt:
    """A member on a node's worker, from one start on.

    Attributes:
        done: seconds of its work that its checkpoint holds; `work` are all.
        starting: seconds before it goes on.
    """

    member: int
    node: int
    began: float
    done: float
    starting: float


def simulate(members: int, member: Member, nodes: Nodes, seed: int = 0) -> Makespan:
    """Train so many members once.

    A worker whose node fails loses its member's work since the last checkpoint. The member is noticed to be missing
    after a while, goes first in the queue, and starts anew on the next free worker; one that lost its worker
    MOST_STARTS times is given up. The node works again after its repair, and its failures have no memory.

    Args:
        members, member, nodes: as in `runs.cluster.makespan`.
        seed: of all draws.
    """
    spread = numpy_generator(seed, "simulation", "members").standard_normal(members)
    work = [max(member.seconds * (1 + nodes.spread * each), 0.1 * member.seconds) for each in spread]
    failures = [numpy_generator(seed, "simulation", "node", node) for node in range(nodes.count)]
    order, events = count(), list[tuple[float, int, Kind, int, _Attempt | None]]()
    waiting, done, starts = deque(range(members)), [0.0] * members, [0] * members
    free = [nodes.workers] * nodes.count
    works, running = [True] * nodes.count, dict[int, _Attempt]()
    busy, failed, died, left, now = 0.0, 0, 0, members, 0.0

    def later(seconds: float, kind: Kind, number: int, attempt: _Attempt | None = None) -> None:
        heapq.heappush(events, (now + seconds, next(order), kind, number, attempt))

    def hand_out() -> None:
        for node in range(nodes.count):
            while works[node] and free[node] and waiting:
                number = waiting.popleft()
                free[node] -= 1
                starting = member.start if starts[number] or now == 0.0 else 0.0
                attempt = _Attempt(number, node, now, done[number], starting)
                running[number] = attempt
                later(starting + work[number] - done[number], "ends", number, attempt)

    for node in range(nodes.count):
        if nodes.mtbf < float("inf"):
            later(float(failures[node].exponential(nodes.mtbf)), "fails", node)
    hand_out()
    while left:
        now, _, kind, number, attempt = heapq.heappop(events)
        if kind == "ends":
            if running.get(number) is not attempt:
                continue  # its node failed meanwhile
            assert attempt is not None
            del running[number]
            busy, left = busy + now - attempt.began, left - 1
            free[attempt.node] += 1
        elif kind == "fails":
            failed += 1
            works[number], free[number] = False, nodes.workers
            for lost in [each for each in running.values() if each.node == number]:
                del running[lost.member]
                busy += now - lost.began
                trained = max(now - lost.began - lost.starting, 0.0)
                done[lost.member] = lost.done + trained // member.checkpoint * member.checkpoint
                starts[lost.member] += 1
                if starts[lost.member] >= MOST_STARTS:
                    died, left = died + 1, left - 1
                else:
                    later(nodes.noticed, "noticed", lost.member)
            later(nodes.repair, "repaired", number)
        elif kind == "noticed":
            waiting.appendleft(number)
        else:
            works[number] = True
            later(float(failures[number].exponential(nodes.mtbf)), "fails", number)
        hand_out()
    return Makespan(now, busy, float(failed), float(died))
