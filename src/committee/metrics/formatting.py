"""Numbers as people read them; the one place where numbers become text, and lengths of time numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

from committee.metrics.results import Interval
from committee.metrics.tuning import ObjectiveName

UNITS = {"h": 3600, "m": 60, "s": 1}

NOTHING = "–"
"""What is shown where there is no figure."""


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction as a percentage, never rounded up to 100 or down to 0: "99.76 %", "< 0.01 %"."""
    text = f"{100 * fraction:.{digits}f}"
    if fraction < 1 and text == f"{100:.{digits}f}":
        text = f"{100 - 10**-digits:.{digits}f}"
    if fraction > 0 and float(text) == 0:
        return f"< {10**-digits:.{digits}f}\u00a0%"
    return f"{text}\u00a0%"


def percent_or_nothing(fraction: float | None) -> str:
    """A fraction as a percentage; a dash where there is none."""
    return NOTHING if fraction is None else percent(fraction)


def number(count: int) -> str:
    """A whole number with commas between thousands."""
    return f"{count:,}"


def points(difference: float) -> str:
    """A difference of two fractions in signed percentage points: "+0.12"."""
    return f"{100 * difference:+.2f}"


def score_text(objective: ObjectiveName, score: float) -> str:
    """A score of which higher is better: a percentage, or the log-loss whose sign was turned."""
    return f"{-score:.4f}\u00a0nats" if objective == "log-loss" else percent(score)


def score_difference(objective: ObjectiveName, difference: float) -> str:
    """A difference of two such scores, above 0 where the first is better: points, or nats less."""
    return f"{difference:+.4f}" if objective == "log-loss" else points(difference)


def score_unit(objective: ObjectiveName) -> str:
    """What `score_difference` is in."""
    return "nats less" if objective == "log-loss" else "points"


def interval_text(interval: Interval, form: Callable[[float], str] = percent) -> str:
    """An interval: "99.49 % to 99.76 %"; `form` writes each end."""
    return f"{form(interval.low)} to {form(interval.high)}"


def p_value(p: float) -> str:
    """A p-value behind a "p": "< 0.0001", "= 0.0123", "= 0.34"."""
    if p < 0.0001:
        return "< 0.0001"
    return f"= {p:.4f}" if p < 0.1 else f"= {p:.2f}"


def duration(seconds: float) -> str:
    """A length of time: "8.4 s", "37 s", "3 min 20 s", "1 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def seconds_of(spelling: str) -> float:
    """A length of time such as 90s, 10m, 1h30m or 2h, in seconds.

    Raises:
        ValueError: it is not one, or nothing.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", spelling)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != spelling or not seconds:
        raise ValueError(f"expected a time such as 90s, 10m, 1h30m or 2h, got {spelling!r}")
    return seconds
