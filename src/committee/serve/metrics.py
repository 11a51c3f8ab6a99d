"""What a server counts, and its exposition as Prometheus reads it: text format 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Histogram:
    """How many observations are at most each of some bounds, their sum and their number."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        """Its samples."""
        total, lines = 0, []
        for bound, count in zip((*(f"{each:g}" for each in self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self.sum:.9g}", f"{name}_count {total}"]


class Metrics:
    """The counters of one server. Paths that no route has are counted together, so that nobody can add series.

    Attributes:
        requests: by (method, path, code).
        seconds: from a request's headers to the end of its answer, of predictions alone.
        batches: images of each batch.
        gauges: functions that tell what is now, by their names.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds, self.batches = Histogram(SECONDS), Histogram(IMAGES)
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def text(self) -> str:
        """The exposition."""
        lines = [*_head("committee_requests_total", "counter", "Requests by method, path and code.")]
        lines += [
            f'committee_requests_total{{method="{method}",path="{path}",code="{code}"}} {count}'
            for (method, path, code), count in sorted(self.requests.items())
        ]
        lines += _head("committee_request_seconds", "histogram", "Seconds of a prediction request.")
        lines += self.seconds.lines("committee_request_seconds")
        lines += _head("committee_batch_images", "histogram", "Images that were answered together.")
        lines += self.batches.lines("committee_batch_images")
        lines += _head("committee_images_total", "counter", "Images answered.")
        lines.append(f"committee_images_total {self.batches.sum:.0f}")
        for name, (meaning, value) in sorted(self.gauges.items()):
            lines += [*_head(f"committee_{name}", "gauge", meaning), f"committee_{name} {value():g}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
