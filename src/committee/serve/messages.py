"""What goes over the wire, as types: the server's documents, and what its OpenAPI document says of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from committee.config.record import Record
from committee.data.prepare import How

Detail = Literal["members", "pixels", "nearest"]
"""What an answer has on demand: members' votes are always there, pixels and nearest training images when asked for."""

Value = Annotated[int, Field(ge=0, le=65535)]
Row = list[Value]
Grey = list[Row]
Colour = list[list[Row]]


class Message(BaseModel):
    """What a client sends: frozen, without unknown fields, every type as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PredictRequest(Message):
    """Images to classify.

    Attributes:
        images: each is an encoded image (PNG, JPEG, ...) in base64, or its pixels, height x width or height x width x
            channel.
        prepare: how images get the form of the training images; see `committee.ensemble.classifier`.
        details: what the answers have beside the usual.
    """

    images: list[str | Grey | Colour] = Field(min_length=1)
    prepare: How = "auto"
    details: list[Detail] = []


class Vote(Record):
    """What one member says."""

    label: str
    probability: float


class Near(Record):
    """A training image near an image: itself as a `data:` address, its class, its position in the training images."""

    image: str
    label: str
    position: int


class Answer(Record):
    """What a committee says about an image.

    Attributes:
        image: the name of the image's file, where it had one.
        label: the most probable class, and `probability` its probability.
        probabilities: of every class.
        members: each member's first choice.
        disagreement: the share of members with another first choice; None for a single member.
        familiar: the share of the training images that are at least as unusual; None where that is not known.
        unlike: whether the image is unlike the training images, and `why`.
        abstain: whether the committee would rather not answer.
        set: the classes that hold the true one with the wanted coverage; None without such a promise.
        prepared: whether what is written in the image was brought to the training images' size, place and brightness.
        pixels: what the members saw, as a `data:` address; on demand.
        nearest: the most similar training images; on demand.
    """

    image: str | None
    label: str
    probability: float
    probabilities: dict[str, float]
    members: tuple[Vote, ...]
    disagreement: float | None
    familiar: float | None
    unlike: bool
    why: str
    abstain: bool
    set: tuple[str, ...] | None
    prepared: bool
    pixels: str | None = None
    nearest: tuple[Near, ...] | None = None


class Unreadable(Record):
    """An image that cannot be read, among others that can: why, in a sentence."""

    image: str | None
    error: str


class PredictResponse(Record):
    """The answers in the images' order, and which committee gave them."""

    model: str
    answers: tuple[Answer | Unreadable, ...]


class CorrectionRequest(Message):
    """What an image really is.

    Attributes:
        image: the image as it was given, in base64.
        pixels: what the committee saw, a PNG in base64, with or without `data:image/png;base64,` before it.
        label: the class that it really has.
        answer: the class that the committee gave.
    """

    image: str
    pixels: str
    label: str
    answer: str


class CorrectionResponse(Record):
    """Where a correction was stored, within the folder, and how many there are."""

    stored: str
    corrections: int


class Problem(Record):
    """What was expected, what was got, what to do."""

    error: str


class Health(Record):
    """Whether the server lives, or is ready."""

    status: Literal["ok", "loading", "ending"]
