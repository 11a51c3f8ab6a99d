"""The records of run and study folders: what each JSON file holds, typed.

The figures, `results.json`, are in `committee.metrics.results`. Files of version 0.4 are read by the same types; see
`committee.config.record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator

from committee.config.record import Record
from committee.config.renames import Table, to_current_names
from committee.data.prepare import Writing
from committee.data.summary import DatasetSummary, DataSource
from committee.metrics.familiarity import Familiarity
from committee.metrics.results import Interval, PartScore, SizeTemperature

Combination = Literal["mean", "geometric", "weighted", "vote"]
Status = Literal["finished", "failed", "late", "died"]


def _lists(value: object) -> object:
    """Lists in place of the tuples that a strict record is read from; see `committee.folders.files.as_record`."""
    if isinstance(value, dict):
        return {name: _lists(each) for name, each in value.items()}
    return list(map(_lists, value)) if isinstance(value, (list, tuple)) else value


StoredTable = Annotated[Table, BeforeValidator(_lists)]


class EpochRecord(Record):
    """A line of `history.jsonl`: one epoch of one member. Losses are in nats (or squared errors), accuracies fractions.

    Attributes:
        epoch: counted from 1, and on from the epochs of a run that is continued.
        seconds: of the whole epoch, validation included; `images_per_second` counts training alone.
        learning_rate: of the last step.
        train_loss, train_accuracy: means while training, with augmentation and dropout.
        validation_loss, validation_accuracy: of the weights after the epoch; None without validation images.
        lr_reduced_to: the next epoch's learning rate, where the plateau schedule reduced it.
    """

    names_of_0_4: ClassVar[Mapping[str, str]] = {"rate_reduced_to": "lr_reduced_to"}

    epoch: int
    seconds: float
    images_per_second: float
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    lr_reduced_to: float | None = None


class MemberRecord(Record):
    """`member.json`: what became of a member.

    Attributes:
        status: "finished"; "failed" (it cannot be used); "late" (it was not ready when the budget was over);
            "died" (its process did, and the same command trains it).
        remark: why it stopped, failed or died.
        epochs: trained in this run; `first_epoch` more were behind it where the run continues another.
        best_epoch: the epoch whose weights were kept.
        train, validation: scores of the kept weights; validation is None without validation images.
    """

    names_of_0_4: ClassVar[Mapping[str, str]] = {"kept_epoch": "best_epoch", "held_out": "validation"}

    member: int
    status: Status
    remark: str
    epochs: int = 0
    first_epoch: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    train: PartScore | None = None
    validation: PartScore | None = None


class DistilledFrom(Record):
    """What a student was distilled from, and how.

    Attributes:
        teacher: digest of the teacher's weights, as `committee verify` prints it.
        temperature: that soft answers and the student's are softened with in the loss.
        weight: of the soft answers in the loss; the labels have the rest.
        calibration: the temperature that the teacher's answers were calibrated with first.
    """

    teacher: str
    temperature: float
    weight: float
    calibration: float = 1.0


class RunIdentity(Record):
    """`identity.json` of a run: with the same identity, the same weights.

    Attributes:
        recipe: what of the recipe differs from the defaults.
        train_images, test_images: digests.
        kernels: as in `Environment`; None in those of version 0.7 and before, which any fits.
        committee: the oldest version that trains the same weights; see `committee.version`.
        continued_from: digest of the weights that training went on from.
        pseudo_labels: digest of the pseudo-labelled images.
        groups: digest of which training images belong together.
        distilled: the teacher of a student, None for a run that learnt from labels alone.
    """

    names_of_0_4: ClassVar[Mapping[str, str]] = {
        "training images": "train_images",
        "test images": "test_images",
        "goes on from": "continued_from",
        "pseudo-labels": "pseudo_labels",
    }

    recipe: StoredTable
    train_images: str
    test_images: str
    seed: int
    device: str
    precision: str
    kernels: str | None = None
    committee: str
    torch: str
    continued_from: str | None = None
    pseudo_labels: str | None = None
    groups: str | None = None
    distilled: DistilledFrom | None = None

    @field_validator("recipe")
    @classmethod
    def _recipe_with_current_names(cls, recipe: Table) -> Table:
        return to_current_names(recipe, "identity.json", note=False)


class StudyIdentity(Record):
    """`identity.json` of a study; the models below it have their own."""

    names_of_0_4: ClassVar[Mapping[str, str]] = {"training images": "train_images", "test images": "test_images"}

    study: str
    quick: bool
    protocol: str
    seed: int
    train_images: str
    test_images: str
    device: str
    precision: str
    groups: str | None = None


class NodeRecord(Record):
    """A node of a cluster.

    Attributes:
        cores: processors that a process may use.
        accelerator: the name of its GPUs; "" without one.
        has_bfloat16: whether they multiply matrices of bfloat16 in hardware.
    """

    name: str
    processor: str
    cores: int
    gpus: int = 0
    accelerator: str = ""
    has_bfloat16: bool = False


class Environment(Record):
    """`environment.json`: versions, machine, device, precision, threads and workers of a training.

    Attributes:
        kernels: the path (`committee.kernels.path`); up to version 0.7 whether there were any.
        nodes: of the cluster that the members were trained on; none where that was this machine.
    """

    names_of_0_4: ClassVar[Mapping[str, str]] = {"threads a member": "threads_per_member"}

    committee: str
    python: str
    torch: str
    numpy: str
    system: str
    processor: str
    cores: int
    device: str
    precision: str
    kernels: str | bool
    workers: int
    threads_per_member: int = 1
    nodes: tuple[NodeRecord, ...] = ()


class RunData(DatasetSummary):
    """`data.json`: the data set, and how it is loaded again; `reload` is None where it came from Python arrays."""

    reload: DataSource | None = None

    @field_validator("reload", mode="before")
    @classmethod
    def _nothing_is_none(cls, reload: JsonValue) -> JsonValue:
        return reload or None  # up to 0.4 an empty table


class CommitteeRecord(Record):
    """`committee.json`: how members become one.

    Attributes:
        members: their numbers.
        weights: (member,), for "weighted".
        temperature: of the whole committee; None where none was fitted.
        temperature_by_size: what it was extrapolated from.
    """

    members: tuple[int, ...]
    combination: Combination
    weights: tuple[float, ...] | None = None
    temperature: float | None = Field(default=None, ge=0.01, le=100)
    temperature_by_size: tuple[SizeTemperature, ...] = ()


class ImagesRecord(Record):
    """`images.json`: what the training images look like, so that others can be compared with them and be made so.

    Attributes:
        writing: their measures, where they show writing in a frame of its own; see `committee.data.prepare`.
        familiarity: how brightness, contrast and the members' doubt are distributed over them.
    """

    writing: Writing | None = None
    familiarity: Familiarity | None = None


class ScoreSummary(Record):
    """A score in short."""

    accuracy: float
    interval: tuple[float, float]
    images: int
    errors: int
    log_loss: float


class Audit(Record):
    """What one round of pseudo-labelling is worth.

    Attributes:
        round: counted from 1 in a study, from 0 in a self-training.
        unlabelled, accepted: images without labels, and how many of them got one.
        audited, audit_accepted, audit_right: audit images, those that the rule accepts, and those of them whose
            pseudo-label is right.
        precision: audit_right / audit_accepted with its Wilson interval; None where none was accepted.
        stopped: why nothing more is trained; "" where training goes on.
    """

    names_of_0_4: ClassVar[Mapping[str, str]] = {"in_words": "sentence"}

    round: int = 0
    unlabelled: int
    accepted: int
    audited: int
    audit_accepted: int
    audit_right: int
    precision: float | None
    interval: Interval | None
    stopped: str = ""
    sentence: str = ""

    @field_validator("stopped", mode="before")
    @classmethod
    def _why(cls, stopped: JsonValue) -> JsonValue:
        return stopped if isinstance(stopped, str) else "its precision is too low" if stopped else ""  # a bool in 0.4


class Audits(Record):
    """The audits of a model's pseudo-labels, a round each."""

    rounds: tuple[Audit, ...]


class AnsweredPlan(Record):
    """`plan.json` of a study: what its results answer. The same plan again is answered from the stored results.

    Attributes:
        rows: each row as declared, with its model, members, repeats and the row that it is compared with.
        models: name, digest of the recipe, number of members.
    """

    rows: tuple[tuple[StoredTable, str, int, int, str | None], ...]
    models: tuple[tuple[str, str, int], ...]
    keep_sealed: bool
    transductive: bool


class RoundResult(Record):
    """A round of self-training: its run, and the audit of the labels that it gave."""

    round: int
    folder: str
    test: ScoreSummary | None = None
    out_of_fold: ScoreSummary | None = None
    audit: str | None = None
    stopped: str = ""


class SelfTrainingResults(Record):
    """`rounds.json`: the rounds, and the last against the first in a sentence ("" where they cannot be compared)."""

    rounds: tuple[RoundResult, ...]
    verdict: str
    warnings: tuple[str, ...]


class FileRecord(Record):
    """A file as the manifest knows it."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Record):
    """`run.json`: what a finished folder holds; written last.

    Attributes:
        kind: of what it is the folder.
        files: by their names, of which the parts are separated by "/".
        digest: over all other fields, see `committee.folders.manifest`; None up to version 0.6.
    """

    names_of_0_4: ClassVar[Mapping[str, str]] = {"marks": "warnings"}

    schema_: int = Field(alias="schema")
    kind: Literal["run", "study", "model"]
    files: dict[str, FileRecord]
    digest: str | None = None


class RunSummary(Record):
    """The results of a run in short.

    Attributes:
        members: how many finished.
        failed_members, died_members: numbers of those that failed, and of those whose processes died.
        left_out: how many were planned but not ready when the budget was over.
        test_openings: how often the test images were opened.
        warnings: what every output must say.
    """

    data: str
    recipe: str
    recipe_digest: str
    seed: int
    members: int
    failed_members: tuple[int, ...]
    died_members: tuple[int, ...] = ()
    left_out: int
    test: ScoreSummary | None
    out_of_fold: ScoreSummary | None
    test_openings: int
    warnings: tuple[str, ...]
    seconds_training: float
    seconds_total: float

    @property
    def is_complete(self) -> bool:
        """Whether the committee has every member of its recipe."""
        return not (self.failed_members or self.died_members or self.left_out)

    @property
    def lacking(self) -> str:
        """Which members of its recipe the committee lacks and why, as a predicate; "" where it is complete."""
        if self.is_complete:
            return ""
        parts = [
            *(f"member {member} (died)" for member in self.died_members),
            *(f"member {member} (failed)" for member in self.failed_members),
            *([f"{self.left_out} (not ready when the budget was over)"] if self.left_out else []),
        ]
        planned = self.members + len(self.died_members) + len(self.failed_members) + self.left_out
        remedy = "; its committee train command, given again, trains what died" if self.died_members else ""
        return f"lacks {' and '.join(parts)} of its {planned} members; it answers with the other {self.members}{remedy}"


class RunManifest(RunSummary, Manifest):
    """The manifest of a run, with its results in short."""

    kind: Literal["run"] = "run"


class StudyManifest(Manifest):
    """The manifest of a study's folder."""

    kind: Literal["study"] = "study"
    study: str
    data: str
    warnings: tuple[str, ...]


class ModelManifest(Manifest):
    """The manifest of one model of a study, whose members together can be used like a run."""

    kind: Literal["model"] = "model"
    study: str
    model: str
    test_openings: int = 0


def differences(was: Record, now: Record, form: str = "{name} was {was}, now {now}") -> list[str]:
    """Which fields of two identities differ, as phrases; digests are not spelled out, a recipe's fields are.

    Kernels that one of them does not name are no difference.
    """
    values = [each.model_dump(mode="json") for each in (was, now)]
    unknown = {"kernels"} if None in [each.get("kernels") for each in values] else set()
    return _differences(*({name: each[name] for name in each.keys() - unknown} for each in values), form=form)


def _differences(was: Mapping[str, JsonValue], now: Mapping[str, JsonValue], *, form: str) -> list[str]:
    phrases = []
    for key in sorted({*was, *now}):
        before, after, name = was.get(key), now.get(key), key.replace("_", " ")
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            phrases += [f"{key}: {phrase}" for phrase in _differences(before, after, form=form)]
        elif any(isinstance(value, str) and len(value) == 64 for value in (before, after)):
            phrases.append(f"other {name}")
        else:
            was_value, now_value = ("the default" if value is None else value for value in (before, after))
            phrases.append(form.format(name=key, was=was_value, now=now_value))
    return phrases
