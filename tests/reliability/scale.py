"""How many cases a reliability test takes, and where the figures of a long run are noted.

`make test` takes the CI form; `make soak` sets COMMITTEE_SOAK=1 and takes the long one.
"""

from __future__ import annotations

import os
from pathlib import Path

LONG = os.environ.get("COMMITTEE_SOAK") == "1"
FIGURES = Path(__file__).parents[2] / "reliability-figures.txt"


def cases(ci: int, soak: int) -> int:
    """How many cases are tried."""
    return soak if LONG else ci


def record_figure(name: str, text: str) -> None:
    """Print what a test measured; a long run notes it in reliability-figures.txt, for docs/reliability.md."""
    print(f"{name}: {text}")
    if LONG:
        with FIGURES.open("a", encoding="utf-8") as file:
            file.write(f"{name}: {text}\n")
