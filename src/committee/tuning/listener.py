"""What a search tells of itself while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from committee.metrics.tuning import TrialResult
from committee.training.jobs import Event


class Listener(Protocol):
    """Hears of everything that happens in a search."""

    def on_event(self, event: Event) -> None:
        """A member's training goes on."""

    def on_work(self, epochs: Mapping[tuple[str, int], int]) -> None:
        """These members are trained next: (recipe, member) -> epochs."""

    def on_trial(self, trial: TrialResult, best: float | None) -> None:
        """A trial has ended; the best score so far."""

    def on_stage(self, text: str) -> None:
        """Another stage begins."""


class Silent:
    """Shows nothing."""

    def on_event(self, event: Event) -> None:
        """Nothing."""

    def on_work(self, epochs: Mapping[tuple[str, int], int]) -> None:
        """Nothing."""

    def on_trial(self, trial: TrialResult, best: float | None) -> None:
        """Nothing."""

    def on_stage(self, text: str) -> None:
        """Nothing."""
