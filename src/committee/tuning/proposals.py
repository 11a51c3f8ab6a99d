"""Optuna: which values to try next, and the record of what was tried.

A sampler is made anew for every proposal, with a key of the search's seed and the proposal's place, so that proposals
depend on the trials before them and on nothing else: neither on how often the search was interrupted nor on how many
processes train. Trials are kept by Optuna: in a journal in the search's folder, or in any storage that several machines
share.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalRedisBackend
from optuna.trial import FrozenTrial, TrialState

from committee import disk
from committee.config.space import Parameter, Value, Values
from committee.errors import RunError
from committee.metrics.tuning import SearchName
from committee.rng import derive, numpy_generator

VARIATIONS, KEPT_OF_START, KEPT_OF_BEST = 8, 0.7, 0.5
"""So many proposals after the starting recipe keep each of its values with that probability and draw the others; the
later ones keep each value of the best trial with that, and the sampler proposes the others. With twenty fields and a
few dozen trials, a recipe in which everything is new is nearly always worse than one that is known to work.
"""


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log lines, and without its notes on what is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="optuna")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


class Proposals:
    """The trials of a search.

    Attributes:
        parameters: what is tuned.
        search: how values are proposed.
        seed: the root of all draws.
        owner: who is at work, so that after an interruption its own trials are known from those of other machines.
    """

    def __init__(
        self,
        storage: str | Path,
        name: str,
        parameters: Sequence[Parameter],
        *,
        search: SearchName,
        seed: int,
        owner: str,
    ) -> None:
        """Open a search's record, or begin one.

        Args:
            storage: the path of this search's own journal; or, as text, what machines share: the address of any Optuna
                storage, or the path of a journal on a disk that all of them see.
            name: under which other machines find the same search.
            parameters, search, seed, owner: see the attributes.

        Raises:
            RunError: the storage cannot be opened.
        """
        self.parameters, self.search, self.seed, self.owner = tuple(parameters), search, seed, owner
        self.is_shared = not isinstance(storage, Path)
        with quiet():
            try:
                self.study = optuna.create_study(
                    study_name=name, storage=_opened(storage), direction="maximize", load_if_exists=True
                )
            except Exception as error:  # each storage has its own
                reason = str(error).strip().splitlines() or [type(error).__name__]
                raise RunError(
                    f"the trials cannot be kept in {storage}: {reason[0]}; give --storage the address of a database "
                    "that runs, such as sqlite:///trials.db, or leave it away"
                ) from error

    @property
    def valid(self) -> list[FrozenTrial]:
        """All trials whose values are known, in order."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if "place" in trial.user_attrs]

    @property
    def own_under_way(self) -> list[FrozenTrial]:
        """The trials that this search was at when it was interrupted; what cannot be gone on with is given up."""
        found = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "place" in trial.user_attrs:
                if not self.is_shared or trial.user_attrs.get("owner") == self.owner:
                    found.append(trial)
            elif not self.is_shared:  # killed while it was proposed
                with quiet():
                    self.study.tell(trial.number, state=TrialState.FAIL)
        return found

    def propose(self) -> FrozenTrial:
        """The next trial; the first is the starting recipe."""
        place = len(self.valid)
        distributions = {parameter.name: distribution_of(parameter) for parameter in self.parameters}
        with quiet():
            self.study.sampler = self._sampler(place, distributions)
            trial = self.study.ask(distributions)
            trial.set_user_attr("owner", self.owner)
            trial.set_user_attr("place", place)
        return self.trial(trial.number)

    def trial(self, number: int) -> FrozenTrial:
        """A trial as it is stored."""
        return next(trial for trial in self.study.get_trials(deepcopy=False) if trial.number == number)

    def note(self, number: int, **values: float | int | str) -> None:
        """Store something about a trial beside its values."""
        trial = self._open(number)
        for name, value in values.items():
            trial.set_user_attr(name, value)

    def tell(self, number: int, score: float | None, folds: int, *, whole: bool, too_slow_by: float = 0.0) -> None:
        """End a trial.

        Args:
            number: of the trial.
            score: on the folds that were trained; None where there is none.
            folds: how many.
            whole: whether these are all.
            too_slow_by: milliseconds over the limit.
        """
        with quiet():
            trial = self._open(number)
            if too_slow_by > 0:
                trial.set_constraint("latency", too_slow_by)
            if score is not None:
                trial.report(score, folds)
            if score is None and too_slow_by <= 0:
                self.study.tell(number, state=TrialState.FAIL)
            elif whole:
                self.study.tell(number, score)
            else:
                self.study.tell(number, state=TrialState.PRUNED)

    def _open(self, number: int) -> optuna.trial.Trial:
        """A trial that can be written to, also one that another process proposed."""
        return optuna.trial.Trial(self.study, self.trial(number)._trial_id)

    def _sampler(self, place: int, distributions: Mapping[str, BaseDistribution]) -> BaseSampler:
        """What proposes the trial at a place."""
        seed = derive(self.seed, "tuning", "sampler", place) % 2**31
        if place == 0:
            return PartialFixedSampler({p.name: p.start for p in self.parameters}, RandomSampler(seed))
        if self.search == "random":
            return RandomSampler(seed)
        draws = numpy_generator(self.seed, "tuning", "kept", place).random(len(self.parameters))
        share = KEPT_OF_START if place <= VARIATIONS else KEPT_OF_BEST
        best = {p.name: p.start for p in self.parameters} if place <= VARIATIONS else self._best(place)
        draws[draws.argmax()] = 1.0  # one field at least is new
        kept = {p.name: best[p.name] for p, draw in zip(self.parameters, draws, strict=True) if draw < share}
        base = RandomSampler(seed) if place <= VARIATIONS else TPESampler(seed=seed, n_startup_trials=1)
        return PartialFixedSampler(kept, base)

    def _best(self, place: int) -> Values:
        """The values of the best trial before a place; the starting recipe's where none was trained whole."""
        whole = [
            trial
            for trial in self.valid
            if trial.state == TrialState.COMPLETE
            and trial.user_attrs["place"] < place
            and not any(value > 0 for value in trial.constraints.values())
        ]
        if not whole:
            return {parameter.name: parameter.start for parameter in self.parameters}
        return values_of(max(whole, key=lambda trial: (trial.value, -trial.number)), self.parameters)


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """A parameter as Optuna takes it."""
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.whole:
        return IntDistribution(round(parameter.low), round(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def values_of(trial: FrozenTrial, parameters: Sequence[Parameter]) -> Values:
    """A trial's values; numbers that are the starting recipe's come back as they went in."""
    found: dict[str, Value] = {}
    for parameter in parameters:
        value = trial.params[parameter.name]
        found[parameter.name] = parameter.start if value == parameter.start else value
    return found


def machine(folder: Path) -> str:
    """Who is at work in a folder."""
    return f"{platform.node()}:{folder.resolve()}"


def _opened(storage: str | Path) -> str | BaseStorage:
    """A storage as Optuna takes it: a journal of this search alone, one that machines share, Redis, or a database."""
    if isinstance(storage, Path):
        Path(f"{storage}.lock").unlink(missing_ok=True)  # of a killed process: the search holds its folder's lock
        _without_torn_line(storage)
        return JournalStorage(JournalFileBackend(str(storage), JournalFileOpenLock(str(storage))))
    if storage.startswith("redis"):
        return JournalStorage(JournalRedisBackend(storage))
    if "://" not in storage:
        return JournalStorage(JournalFileBackend(storage))
    return storage


def _without_torn_line(journal: Path) -> None:
    """Cut off what a power cut left of a last line: the next one would be written behind it, and neither be read."""
    content = journal.read_bytes() if journal.exists() else b""
    if content and not content.endswith(b"\n"):
        disk.write(journal, content[: content.rfind(b"\n") + 1])
