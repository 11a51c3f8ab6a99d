"""The body of a request -> what it asks -> its images in the form of the training images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from committee.data.dataset import Pixels
from committee.data.formats.assemble import as_pixels
from committee.data.prepare import How
from committee.ensemble.classifier import Classifier
from committee.errors import DataError
from committee.names import visible
from committee.serve.images import Given, decoded, decoded_base64
from committee.serve.limits import ServeLimits
from committee.serve.messages import Detail, PredictRequest
from committee.serve.problems import RefusedError, too_large, unusable

_FIELDS = 16  # of a form, beside its files


@dataclass(frozen=True)
class Question:
    """What a request asks.

    Attributes:
        images: as they were given.
        prepare: how they get the form of the training images.
        details: what the answers have beside the usual.
    """

    images: tuple[Given, ...]
    prepare: How
    details: frozenset[Detail]

    @property
    def is_quick(self) -> bool:
        """Whether its images may be read in a batch with others."""
        return sum(not each.is_quick for each in self.images) == 0 and len(self.images) <= 4


@dataclass(frozen=True)
class Seen:
    """An image in the form of the training images: pixels (height, width, channel); whether it was prepared."""

    pixels: Pixels
    prepared: bool


@dataclass(frozen=True)
class ReadQuestion:
    """A question whose images are read: for each what the committee sees, or why it cannot be read."""

    question: Question
    images: tuple[Seen | DataError, ...]


# --- a body -> a question ---------------------------------------------------------------------------------------------


def parse(body: bytes, content_type: str, classifier: Classifier, limits: ServeLimits) -> Question:
    """What a request's body asks.

    Args:
        body: all of it.
        content_type: its header, "" where there is none.
        classifier: what is to answer.
        limits: how many images it may have.

    Raises:
        RefusedError: it is neither a form nor JSON (415), not what the API describes (422), has too many images (413).
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        question = _of_json(body, classifier)
    elif kind == "multipart/form-data":
        question = _of_form(body, content_type, limits)
    else:
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"multipart/form-data with files, or application/json, is expected, got {visible(kind[:100]) or 'no type'};"
            " see /openapi.json",
        )
    if len(question.images) > limits.images:
        raise too_large(f"at most {limits.images} images a request are taken, got {len(question.images)}; send fewer")
    if question.prepare == "digits" and classifier.images.writing is None:
        raise unusable("prepare=digits needs a committee of isolated writing, got one of other images; leave it out")
    return question


def _of_json(body: bytes, classifier: Classifier) -> Question:
    try:
        asked = PredictRequest.model_validate_json(body)
    except ValidationError as error:
        raise unusable(f"the body is not what /openapi.json describes: {faults(error)}") from None
    images = tuple(
        Given(None, decoded_base64(each, f"image {place}"))
        if isinstance(each, str)
        else Given(None, _array(each, f"image {place}", classifier.pixel_range))
        for place, each in enumerate(asked.images)
    )
    return Question(images, asked.prepare, frozenset(asked.details))


def faults(error: ValidationError) -> str:
    """What is wrong with a message, in one line: the first faults."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        f"{visible('.'.join(map(str, each['loc']))[:100]) or 'body'}: {visible(each['msg'][:200])}" for each in found
    ]
    return "; ".join(lines[:3])


def _array(rows: Sequence[Any], label: str, pixel_range: int) -> NDArray[Any]:
    """The pixels of a nested list as (height, width) or (height, width, channel).

    Raises:
        RefusedError: it is ragged, empty or out of range.
    """
    try:
        values = np.asarray(rows, np.int64)
    except ValueError:
        raise unusable(f"{label}: rows of equal length are expected, got others; complete them") from None
    if values.size == 0 or (values.ndim == 3 and values.shape[2] > 4):
        size = "x".join(map(str, values.shape))
        raise unusable(f"{label}: height x width (x 1 to 4 channels) pixels are expected, got {size}; correct it")
    if values.max() > pixel_range:
        raise unusable(f"{label}: pixels from 0 to {pixel_range} are expected, got {values.max()}; rescale them")
    return values.astype(np.uint8 if pixel_range == 255 else np.uint16)


def _of_form(body: bytes, content_type: str, limits: ServeLimits) -> Question:
    files, fields = form_parts(body, content_type, limits.images)
    images = tuple(Given(name or None, content) for field, name, content in files if field == "files")
    strange = {*(field for field, _, _ in files), *(field for field, _ in fields)} - {"files", "prepare", "details"}
    if not images or strange:
        got = f"a field {visible(min(strange)[:100])!r}" if strange else "none"
        raise unusable(f"images as files in the fields 'files' are expected, got {got}; see /openapi.json")
    prepare = [value for field, value in fields if field == "prepare"]
    details = [value for field, value in fields if field == "details"]
    for value, known in ((prepare, get_args(How)), (details, get_args(Detail))):
        if unknown := set(value) - set(known):
            raise unusable(f"{', '.join(known)} is expected, got {visible(min(unknown)[:100])!r}; correct it")
    return Question(images, cast(How, prepare[-1] if prepare else "auto"), frozenset(cast(list[Detail], details)))


class _Part:
    """A part of a form while it is read."""

    def __init__(self) -> None:
        self.name, self.value, self.disposition, self.content = bytearray(), bytearray(), b"", bytearray()


def form_parts(
    body: bytes, content_type: str, most_files: int
) -> tuple[list[tuple[str, str, bytes]], list[tuple[str, str]]]:
    """The parts of a form: files as (field, file's name, content), and other fields as (field, value).

    Nothing is written to a disk, and a body is never copied more than once.

    Args:
        body: all of it.
        content_type: with the boundary.
        most_files: a form with more is refused before its end is read.

    Raises:
        RefusedError: it is no form, or has too many parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise unusable("multipart/form-data with its boundary is expected, got none; let your client set the header")
    parts: list[_Part] = []

    def begin() -> None:
        if len(parts) >= most_files + _FIELDS:
            raise too_large(f"at most {most_files} images a request are taken, got more; send fewer")
        parts.append(_Part())

    def header_end() -> None:
        part = parts[-1]
        if bytes(part.name).lower() == b"content-disposition":
            part.disposition = bytes(part.value)
        part.name, part.value = bytearray(), bytearray()

    ended = []
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": lambda data, start, end: parts[-1].name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: parts[-1].value.extend(data[start:end]),
                "on_header_end": header_end,
                "on_part_data": lambda data, start, end: parts[-1].content.extend(data[start:end]),
                "on_end": lambda: ended.append(True),
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise unusable(
            "a form in multipart/form-data is expected, got a damaged one; let your client make it"
        ) from None
    if not ended:
        raise unusable("a form in multipart/form-data is expected, got one without its end; send all of it")
    files, fields = [], []
    for part in parts:
        options = parse_options_header(part.disposition)[1]
        field = options.get(b"name", b"").decode(errors="replace")
        if b"filename" in options:
            files.append((field, options[b"filename"].decode(errors="replace"), bytes(part.content)))
        else:
            fields.append((field, bytes(part.content).decode(errors="replace")))
    return files, fields


# --- a question -> its images -----------------------------------------------------------------------------------------


def read(question: Question, classifier: Classifier, limits: ServeLimits) -> ReadQuestion:
    """The images of a question in the form of the training images, as `committee predict` reads files.

    Raises:
        RefusedError: an image has too many pixels (413).
    """
    found = read_together([question], classifier, limits)[0]
    if isinstance(found, RefusedError):
        raise found
    return found


def read_together(
    questions: Sequence[Question], classifier: Classifier, limits: ServeLimits
) -> list[ReadQuestion | RefusedError]:
    """As `read`, for several questions: images of one size and depth are brought to their form together.

    Returns:
        for each question its images, or why it is refused.
    """
    found: list[list[Seen | DataError] | RefusedError] = []
    alike: defaultdict[tuple[How, tuple[int, ...], np.dtype[Any]], list[tuple[int, int, Pixels]]] = defaultdict(list)
    for number, question in enumerate(questions):
        try:
            pixels = [_pixels(each, place, classifier, limits) for place, each in enumerate(question.images)]
        except RefusedError as refused:
            found.append(refused)
            continue
        found.append([each if isinstance(each, DataError) else NOT_YET for each in pixels])
        for place, each in enumerate(pixels):
            if not isinstance(each, DataError):
                alike[question.prepare, each.shape, each.dtype].append((number, place, each))
    for (prepare, _, _), members in alike.items():
        seen = _in_form([each for _, _, each in members], prepare, classifier)
        for (number, place, _), image in zip(members, seen, strict=True):
            images = found[number]
            assert isinstance(images, list)
            images[place] = image
    return [
        each if isinstance(each, RefusedError) else ReadQuestion(question, tuple(each))
        for question, each in zip(questions, found, strict=True)
    ]


NOT_YET = DataError("the image is not read yet")


def _pixels(given: Given, place: int, classifier: Classifier, limits: ServeLimits) -> Pixels | DataError:
    """An image's pixels (1, height, width, channel), or why it cannot be read."""
    label = visible(given.name[:200]) if given.name else f"image {place}"
    try:
        values = decoded(given.content, label, limits)[None]
        return as_pixels(values, label, classifier.pixel_range, classifier.value_range)
    except DataError as error:
        return error


def _in_form(images: Sequence[Pixels], prepare: How, classifier: Classifier) -> list[Seen | DataError]:
    """Images (1, height, width, channel) of one size in the form of the training images, or why one has none."""
    preparation = classifier.preparation(prepare)
    try:
        pixels = preparation(cast(Pixels, np.concatenate(images)), "the image")
    except DataError as error:
        if len(images) == 1:
            return [error]
        return [seen for image in images for seen in _in_form([image], prepare, classifier)]
    return [Seen(each, original.prepared) for each, original in zip(pixels, preparation.originals, strict=True)]
