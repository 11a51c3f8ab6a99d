"""Recipes: what to train and how, as a typed, frozen value; `recipe_parsing` makes one from TOML.

A recipe has a name, a summary, a citation and nine sections: `input`, `network`, `training`, `optimiser`, `schedule`,
`augmentation`, `holdout`, `committee`, `pseudo_labels`. It selects from the enumerations below and never names an
import path. Fields that a recipe leaves out take the defaults written here; `committee recipes show NAME --complete`
prints every one of them. A default never changes: a digest counts only what differs from the defaults, so that
recipes keep their digests when new fields come.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, Field, JsonValue, model_validator

from committee.config.record import Record
from committee.config.renames import Table, to_digest_names

Activation = Literal["linear", "relu", "sigmoid", "tanh", "gelu", "silu"]


# --- network: a list of layers, or a named backbone -------------------------------------------------------------------


class Conv(Record):
    """A convolution with stride 1; "same" keeps the image size, "valid" loses kernel - 1 pixels."""

    type: Literal["conv"] = "conv"
    filters: int = Field(gt=0)
    kernel: int = Field(default=3, gt=0)
    padding: Literal["same", "valid"] = "same"
    activation: Activation = "linear"
    bias: bool = True


Side = Annotated[int, Field(gt=0)]  # of a window, pixels


class MaxPool(Record):
    """The largest value of each window; the stride is the window, an odd last row or column is dropped."""

    type: Literal["maxpool"] = "maxpool"
    size: Side | tuple[Side, Side] = 2


class BatchNorm(Record):
    """Batch normalisation of each channel (or unit), with scale and shift."""

    type: Literal["batchnorm"] = "batchnorm"
    momentum: float = Field(default=0.1, gt=0, le=1, description="share of the new batch in the running statistics")
    epsilon: float = Field(default=1e-5, gt=0)


class Dropout(Record):
    """Each value becomes 0 with this probability while training; the others are scaled up."""

    type: Literal["dropout"] = "dropout"
    rate: float = Field(ge=0, lt=1)


class Dense(Record):
    """A fully connected layer; units = "classes" makes it the output layer (its softmax is part of the loss)."""

    type: Literal["dense"] = "dense"
    units: Annotated[int, Field(gt=0)] | Literal["classes"]
    activation: Activation = "linear"


class Flatten(Record):
    """All values of an image in one row."""

    type: Literal["flatten"] = "flatten"


class GlobalPool(Record):
    """One value a channel: the largest, or the mean."""

    type: Literal["global_pool"] = "global_pool"
    kind: Literal["max", "mean"] = "max"


class ActivationLayer(Record):
    """An activation on its own, for orders such as convolution, batch normalisation, relu."""

    type: Literal["activation"] = "activation"
    kind: Activation


Layer = Annotated[
    Conv | MaxPool | BatchNorm | Dropout | Dense | Flatten | GlobalPool | ActivationLayer, Field(discriminator="type")
]


class Network(Record):
    """Either `layers`, or a named `backbone` with `widths`, the filters of its three blocks.

    compact: one convolution at full size, then blocks of a pooling and two convolutions; vgg: blocks of three
    convolutions with poolings between them, the first block at full size. Both normalise every convolution, end in a
    global max pooling and take any image size.
    """

    backbone: Literal["compact", "vgg"] | None = None
    widths: tuple[Annotated[int, Field(gt=0)], ...] = ()
    kernels: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        default=(3,), min_length=1, description="of the backbone's convolutions, one size a member, in turn"
    )
    layers: tuple[Layer, ...] = ()
    initialiser: Literal["glorot_uniform", "he_uniform", "he_normal", "torch"] = "glorot_uniform"
    stem: Literal["random", "whitening"] = Field(
        default="random",
        description="initial weights of the first convolution: random as in the others, or the filters that whiten "
        "patches of the training images",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Network:
        if (self.backbone is None) == (not self.layers):
            raise ValueError("give either layers or a backbone, not both and not neither")
        if self.backbone and len(self.widths) != 3:
            raise ValueError(
                f"backbone {self.backbone} takes three widths, such as [32, 64, 64]; got {list(self.widths)}"
            )
        if self.layers and len(self.kernels) > 1:
            raise ValueError("kernels go with a backbone; in layers each convolution says its own")
        if self.layers and not (isinstance(self.layers[-1], Dense) and self.layers[-1].units == "classes"):
            raise ValueError('the last layer must be { type = "dense", units = "classes" }')
        if self.layers and self.stem == "whitening" and not isinstance(self.layers[0], Conv):
            raise ValueError(f'a whitening stem needs a convolution as the first layer, not "{self.layers[0].type}"')
        return self

    def of_member(self, member: int) -> Network:
        """The network of one member, all the same but for the turn of `kernels`."""
        return self.model_copy(update={"kernels": (self.kernels[member % len(self.kernels)],)})


# --- the other sections -----------------------------------------------------------------------------------------------


class Input(Record):
    """How pixels enter the network; the constants are computed on the member's own training images and stored with it.

    none: as they are (0 to 255); unit: divided by the largest possible value; standardised: one mean and one standard
    deviation over all training pixels; unit_twice: divided twice, a mistake that a published study made unawares, here
    to show what it does.
    """

    scaling: Literal["none", "unit", "standardised", "unit_twice"] = "unit"


class Training(Record):
    """The loop: how long, on what loss, when to stop, which epoch's weights to keep.

    A batch has `batch_size` images, or a tenth of the member's training images where that is fewer (but at least 8), so
    that very small data sets have ten steps an epoch, too.
    """

    epochs: int = Field(default=10, gt=0, le=100_000)
    batch_size: int = Field(default=128, gt=0)
    loss: Literal["cross_entropy", "mean_squared_error"] = "cross_entropy"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="balanced: in the loss every class counts alike, however few images it has"
    )
    patience: int = Field(
        default=0, ge=0, description="epochs without a lower validation loss before early stopping; 0 = never"
    )
    checkpoint: Literal["last", "best_validation_accuracy", "best_validation_loss"] = Field(
        default="last", description="the epoch whose weights are kept"
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay per step of an exponential moving average of the weights, which is evaluated and kept "
        "instead; 0 = none",
    )


class Optimiser(Record):
    """Adam, AdamW and Nadam use betas; SGD, RMSprop and Muon momentum; weight decay spares biases and normalisation.

    Muon updates convolutions and hidden dense layers by matrices whose singular values are all near 1; the output
    layer, biases and normalisation follow AdamW at `adamw_lr_factor` times the learning rate.
    """

    name: Literal["sgd", "adam", "adamw", "nadam", "adagrad", "adadelta", "rmsprop", "muon"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    rho: float = Field(default=0.95, gt=0, lt=1, description="Adadelta's and RMSprop's decay")
    epsilon: float = Field(default=1e-7, gt=0)
    initial_accumulator: float = Field(default=0.1, ge=0, description="Adagrad: what its sums of squares begin with")
    adamw_lr_factor: float = Field(
        default=0.05, gt=0, description="Muon: what AdamW's parameters take of the learning rate"
    )


class Stage(Record):
    """Some epochs with a learning rate, and perhaps a batch size, of their own; with augmentation or without."""

    epochs: int = Field(gt=0, le=100_000)
    lr: float = Field(gt=0)
    batch_size: int | None = Field(default=None, gt=0)
    augment: bool = True


class Schedule(Record):
    """The learning rate over the steps of a training; `optimiser.lr` is its peak.

    constant; triangular (a linear one-cycle): up over the fraction `warmup` of all steps, then linearly to 0; cosine:
    up likewise, then a half cosine to 0; plateau: multiplied by `factor` whenever the monitored figure has not improved
    for `patience` epochs, never below `min_lr`; stages: one after the other, each with its own epochs, learning rate,
    batch size and augmentation (training.epochs is their sum, optimiser.lr is not used).
    """

    name: Literal["constant", "triangular", "cosine", "plateau", "stages"] = "constant"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    monitor: Literal["validation_accuracy", "validation_loss"] = "validation_accuracy"
    patience: int = Field(default=3, gt=0)
    factor: float = Field(default=0.5, gt=0, lt=1)
    min_lr: float = Field(default=1e-5, ge=0)
    stages: tuple[Stage, ...] = ()

    @model_validator(mode="after")
    def _stages_or_not(self) -> Schedule:
        if (self.name == "stages") != bool(self.stages):
            raise ValueError('stages = [...] and name = "stages" belong together; give both or neither')
        if self.stages and self.warmup:
            raise ValueError("warmup does not go with stages; make the warm-up a stage of its own")
        return self


class Augmentation(Record):
    """Random changes of every training image, drawn again in each epoch; 0 or false switches one off."""

    rotation: float = Field(default=0.0, ge=0, le=180, description="degrees, either way")
    zoom: float = Field(default=0.0, ge=0, lt=1, description="share, in or out")
    zoom_axes: Literal["together", "separately"] = Field(
        default="together", description="one factor for width and height, or one for each"
    )
    shear: float = Field(default=0.0, ge=0, lt=1, description="tangent, either way")
    shift: float = Field(default=0.0, ge=0, lt=1, description="share of width and of height, either way")
    elastic: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="bending: standard deviation of a smooth random shift of every pixel, share of the side",
    )
    flip_horizontal: bool = False
    flip_vertical: bool = False
    cutout: int = Field(default=0, ge=0, description="side of an erased square, pixels")
    cutmix: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability that a rectangle comes from another image of the batch, which then has a share of the "
        "label as large as the rectangle",
    )
    fill: Literal["zero", "edge", "reflect"] = Field(default="zero", description="what comes in from outside")
    no_aug_epochs: int = Field(default=0, ge=0, description="the last epochs, this many, see the images unchanged")

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return bool(self.changes)

    @property
    def changes(self) -> Table:
        """The changes that are switched on, with their strengths; the other fields only say how or when."""
        return self.model_dump(exclude_defaults=True, exclude={"fill", "zoom_axes", "no_aug_epochs"})

    @property
    def moves(self) -> bool:
        """Whether it looks pixels up elsewhere; a mirror image alone needs no looking up."""
        return any((self.rotation, self.zoom, self.shear, self.shift, self.elastic, self.flip_vertical))


class Holdout(Record):
    """Which training images each member does not train on.

    folds: balanced folds, so that every image is held out by members / folds members; fraction: a random fraction
    for each member; shared: one stratified random fraction, the same for every member and every run (`seed` gives
    another); last: the last fraction of the images, the same for every member; none: every image is trained on, and
    nothing can be evaluated without the test images.
    """

    kind: Literal["folds", "fraction", "shared", "last", "none"] = "folds"
    folds: int = Field(default=5, ge=2)
    fraction: float = Field(default=0.2, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)


class CommitteeSection(Record):
    """How many members, how their probabilities become one, and whether a temperature is fitted out-of-fold.

    tta, test-time augmentation: with horizontal_flip a member's prediction is the mean over the image and its mirror
    image; with shifts over the image and four copies moved by a pixel; with flip_and_shifts over these five and their
    mirror images.
    """

    members: int = Field(default=5, gt=0, le=10_000)
    combination: Literal["mean", "geometric", "weighted", "vote"] = "mean"
    calibration: Literal["none", "temperature"] = "temperature"
    tta: Literal["none", "horizontal_flip", "shifts", "flip_and_shifts"] = "none"
    tta_confidence: float = Field(
        default=1.0,
        gt=0.5,
        le=1,
        description="the other views count only where a member gives its most probable class less than this, and "
        "all alike from 2 tta_confidence - 1 down, so that few images take longer; 1 = for all images",
    )


class PseudoLabels(Record):
    """Self-training: what a committee is confident of becomes a label for the next round of training.

    Accepted are the images whose most probable class has at least the probability `confidence`, or the `top_fraction`
    of each predicted class by that probability. They make up `batch_fraction` of every batch. A fraction of the
    labelled images, `audit_fraction`, is kept out of all training: accepted by the same rule, they show how many
    accepted labels are right; below `min_precision` nothing more is trained.
    """

    batch_fraction: float = Field(default=0.25, gt=0, lt=1)
    accept: Literal["confidence", "top_fraction"] = "confidence"
    confidence: float = Field(default=0.99, ge=0, le=1)
    top_fraction: float = Field(default=0.9, gt=0, le=1)
    rounds: int = Field(default=1, gt=0)
    audit_fraction: float = Field(default=0.2, gt=0, lt=1)
    min_precision: float = Field(default=0.98, ge=0, le=1)


NOT_TRAINED = ("name", "summary", "citation")  # fields that say something about a recipe and decide nothing


class Recipe(Record):
    """Everything that decides what is trained; equal recipes have equal digests."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    summary: str = ""
    citation: str = ""
    input: Input = Input()
    network: Network
    training: Training = Training()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    holdout: Holdout = Holdout()
    committee: CommitteeSection = CommitteeSection()
    pseudo_labels: PseudoLabels = PseudoLabels()

    @model_validator(mode="before")
    @classmethod
    def _epochs_of_stages(cls, content: Any) -> Any:
        """Stages say how long a training is, so training.epochs may be left out."""
        schedule = content.get("schedule") if isinstance(content, dict) else None
        stages = schedule.get("stages") if isinstance(schedule, dict) else None
        listed = stages if isinstance(stages, (list, tuple)) else ()
        epochs = [stage.get("epochs") for stage in listed if isinstance(stage, dict)]
        training = content.get("training", {}) if isinstance(content, dict) else None
        if epochs and all(isinstance(number, int) for number in epochs) and isinstance(training, dict):
            return {**content, "training": {"epochs": sum(epochs), **training}}
        return content

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.holdout.kind == "none":
            needs = {
                "training.patience": self.training.patience > 0,
                "training.checkpoint": self.training.checkpoint != "last",
                "schedule.name plateau": self.schedule.name == "plateau",
            }
            if faults := [name for name, wrong in needs.items() if wrong]:
                raise ValueError(
                    f"{' and '.join(faults)} need validation images, but holdout.kind is none; set "
                    "holdout.kind to folds, or patience to 0, checkpoint to last and another schedule"
                )
        stages = sum(stage.epochs for stage in self.schedule.stages)
        if stages and stages != self.training.epochs:
            raise ValueError(
                f"training.epochs is {self.training.epochs}, but the schedule's stages have {stages} epochs together; "
                "leave training.epochs out, or change the stages"
            )
        return self

    def stage_at(self, number: int) -> Stage:
        """The stage of an epoch, 0 for the first; without stages, one that holds for all epochs."""
        for stage in self.schedule.stages:
            if number < stage.epochs:
                return stage
            number -= stage.epochs
        return Stage(epochs=self.training.epochs, lr=self.optimiser.lr)

    def content(self) -> Table:
        """What differs from the defaults, as JSON values; name, summary and citation do not count."""
        stated = _stated(self)
        assert isinstance(stated, dict)
        return {name: value for name, value in stated.items() if name not in NOT_TRAINED}

    def digest(self) -> str:
        """SHA-256 of everything that decides the training; name, summary and citation do not count."""
        return hashlib.sha256(json.dumps(to_digest_names(self.content()), sort_keys=True).encode()).hexdigest()

    def to_toml(self) -> str:
        """The complete recipe as TOML, every default written out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def _stated(value: object) -> JsonValue:
    """A section as a dictionary of the fields that differ from their defaults; a layer's type is always there."""
    if isinstance(value, BaseModel):
        fields = {name: (getattr(value, name), field) for name, field in type(value).model_fields.items()}
        return {
            name: _stated(each) for name, (each, field) in fields.items() if name == "type" or each != field.default
        }
    if isinstance(value, tuple):
        return [_stated(each) for each in value]
    assert value is None or isinstance(value, (bool, int, float, str))
    return value
