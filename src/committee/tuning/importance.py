"""How much each tuned parameter mattered, with how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial

from committee.config.space import Parameter
from committee.metrics.tuning import FieldResult
from committee.rng import derive, numpy_generator
from committee.tuning.proposals import distribution_of, quiet, values_of

FEWEST_TRIALS = 8
RESAMPLES = 12
TREES = 32


def field_results(
    parameters: Sequence[Parameter], scored: Sequence[tuple[FrozenTrial, float]], winner: FrozenTrial
) -> tuple[FieldResult, ...]:
    """The parameters with their importance, the most important first.

    fANOVA (Hutter, Hoos & Leyton-Brown 2014, "An efficient approach for assessing hyperparameter importance", ICML): a
    forest learns scores from values, and a parameter's importance is its share of the forest's variance. Trials that
    were stopped count with what they had reached. The spread is over trials drawn with replacement.

    Args:
        parameters: what was tuned.
        scored: trials with their scores.
        winner: the best trial.
    """
    chosen = values_of(winner, parameters)
    shares = _shares(parameters, scored)
    found = [
        FieldResult(
            name=parameter.name,
            start=parameter.start,
            winner=chosen[parameter.name],
            importance=float(np.mean(shares[parameter.name])) if shares else None,
            spread=float(np.std(shares[parameter.name], ddof=1)) if shares else None,
        )
        for parameter in parameters
    ]
    return tuple(sorted(found, key=lambda field: -(field.importance or 0.0)))


def _shares(parameters: Sequence[Parameter], scored: Sequence[tuple[FrozenTrial, float]]) -> dict[str, list[float]]:
    """Each parameter's shares over resampled trials; {} where there are too few trials."""
    if len(scored) < FEWEST_TRIALS or len({score for _, score in scored}) < 3:
        return {}
    found: dict[str, list[float]] = {parameter.name: [] for parameter in parameters}
    distributions = {parameter.name: distribution_of(parameter) for parameter in parameters}
    for turn in range(RESAMPLES):
        drawn = numpy_generator("importance", turn).integers(len(scored), size=len(scored))
        with quiet():
            study = optuna.create_study(direction="maximize")
            study.add_trials(
                [
                    optuna.trial.create_trial(params=dict(trial.params), distributions=distributions, value=score)
                    for trial, score in (scored[place] for place in drawn)
                ]
            )
            evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=derive("importance", "forest", turn) % 2**31)
            try:
                shares = evaluator.evaluate(study)
            except (RuntimeError, ValueError):  # all drawn scores are equal
                continue
        if all(math.isfinite(share) for share in shares.values()):
            for name in found:
                found[name].append(shares.get(name, 0.0))
    return found if all(len(each) > 1 for each in found.values()) else {}
