"""Programs: calls of kernels recorded once and run many times, several programs at once, without Python between them.

With one image, a network's kernels take less time than the Python around them. A program runs them on the tensors that
they were recorded on: write its input there, run it, read its result there.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from committee import kernels
from committee.kernels import binding


class Programs:
    """Programs to be run together, each the calls that `record` has collected.

    They must not share a tensor that one of them writes; `record` gives each its own scratch.
    """

    def __init__(self, programs: Sequence[Sequence[binding.Call]]) -> None:
        self.calls = programs  # whose tensors live as long as this
        lists = [[number for call in calls for number in _as_list(*call)] for calls in programs]
        self.steps = torch.tensor([number for each in lists for number in each], dtype=torch.int64)
        self.starts = torch.tensor([0, *map(len, lists)]).cumsum(0)

    def run(self, threads: int) -> None:
        """Run all of them, so many at once."""
        binding.COMMON["run_programs"](self.steps, self.starts, len(self.calls), threads)


def record(run: Callable[[], Tensor]) -> tuple[list[binding.Call], Tensor]:
    """The kernels that a function calls in this thread, and its result.

    Everything between its input and its result has to be kernels' work: what torch computes there is not recorded.
    """
    me = threading.get_ident()
    with kernels.own_scratch():
        calls = binding.recordings[me] = []
        try:
            result = run()
        finally:
            del binding.recordings[me]
    return calls, result


def _as_list(function: binding.NativeFunction, arguments: Sequence[Tensor | float | None]) -> Iterator[int]:
    """A call as programs.h describes it."""
    yield from (function.from_list, len(arguments))
    for kind, argument in zip(function.parameters, arguments, strict=True):
        if isinstance(argument, Tensor):
            yield argument.data_ptr()
        elif kind.element == "float32" and not kind.pointer:
            yield from struct.unpack("<q", struct.pack("<fxxxx", argument))
        else:
            yield int(argument or 0)
