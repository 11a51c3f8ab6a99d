"""What people say that an image really is -> a folder that `committee train` reads, and a line for each correction.

    FOLDER/images/CLASS/DIGEST.png   what the committee saw, in the folder of the class that it really has
    FOLDER/originals/DIGEST.png      the image as it was given, under the same name
    FOLDER/corrections.jsonl         a `Correction` a line; the last one about a digest holds

The digest is that of the pixels, so that an image is there once, however often it is corrected.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from committee import disk
from committee.config.record import Record
from committee.data.convert import png
from committee.data.formats.decode import decode
from committee.data.formats.files import HEAD_BYTES
from committee.data.formats.kinds import image_kind
from committee.errors import CommitteeError, DataError, StorageError
from committee.names import file_name
from committee.serve.images import decoded, decoded_base64
from committee.serve.limits import ServeLimits
from committee.serve.messages import CorrectionRequest, CorrectionResponse
from committee.serve.problems import busy, unusable
from committee.web.model_info import ModelInfo

IMAGES, ORIGINALS, LINES = "images", "originals", "corrections.jsonl"
MOST, MOST_BYTES = 10_000, 256 * 2**20
ENDINGS = {"JPEG": ".jpg", "JPEG2000": ".jp2", "PPM": ".pnm"}


class Correction(Record):
    """A line of `corrections.jsonl`.

    Attributes:
        at: when it came, in UTC.
        digest: of the pixels that the committee saw.
        label: the class that the image really has.
        answer: the class that the committee gave.
        model: digest of what answered.
        original: the file of the image as it was given.
    """

    at: str
    digest: str
    label: str
    answer: str
    model: str
    original: str


@dataclass
class Corrections:
    """A folder of corrections to which a server adds; one thread at a time.

    Attributes:
        folder: where they lie; made with the first one.
        info: what answered.
        limits: of an image.
    """

    folder: Path
    info: ModelInfo
    limits: ServeLimits
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def store(self, asked: CorrectionRequest) -> CorrectionResponse:
        """Add a correction.

        Raises:
            RefusedError: no such class, an image that cannot be read or is of another size (422); the folder is full or
                cannot be written (503).
        """
        for label in (asked.label, asked.answer):
            if label not in self.info.classes:
                raise unusable("label and answer must be classes of the committee, got another one; see /v1/model")
        original = decoded_base64(asked.image, "image")
        try:
            decoded(original, "image", self.limits)
            seen = decode(decoded_base64(asked.pixels, "pixels"), "pixels")
        except DataError as error:
            raise unusable(str(error)) from None
        if seen.shape != self.info.image_shape:
            expected, got = ("x".join(map(str, shape)) for shape in (self.info.image_shape, seen.shape))
            raise unusable(f"pixels must be what the committee saw, {expected}, got {got}; send the answer's pixels")
        content = png(seen)
        digest = sha256(seen.tobytes()).hexdigest()[:32]
        kind = image_kind(original[:HEAD_BYTES]) or ""
        name = f"{digest}{ENDINGS.get(kind, f'.{kind.lower()}')}"
        line = Correction(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            digest=digest,
            label=asked.label,
            answer=asked.answer,
            model=self.info.digest,
            original=name,
        )
        with self._lock:
            try:
                return self._write(line, content, original)
            except StorageError as error:
                raise busy(f"the correction cannot be stored: {error}") from None

    def _write(self, line: Correction, content: bytes, original: bytes) -> CorrectionResponse:
        before = read_corrections(self.folder) if (self.folder / LINES).exists() else []
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if len(before) >= MOST or size + len(content) + len(original) > MOST_BYTES:
            raise busy(
                f"at most {MOST:,} corrections and {MOST_BYTES // 2**20} MB are stored; train with them, and empty "
                "the folder"
            )
        place = Path(IMAGES, class_folder(line.label), f"{line.digest}.png")
        for part in (place.parent, Path(ORIGINALS)):
            disk.make_folder(self.folder / part)
        disk.write(self.folder / ORIGINALS / line.original, original)
        disk.write(self.folder / place, content)
        for each in before:
            if each.digest == line.digest and each.label != line.label:
                disk.remove(self.folder / IMAGES / class_folder(each.label) / f"{line.digest}.png")
        disk.append(self.folder / LINES, line.model_dump_json().encode() + b"\n")
        return CorrectionResponse(stored=place.as_posix(), corrections=len(standing([*before, line])))


def class_folder(label: str) -> str:
    """The name of a class's folder; two classes whose names are no folder names are told apart by a digest."""
    name = file_name(label, 80)
    return name if name == label else f"{name}-{sha256(label.encode(errors='backslashreplace')).hexdigest()[:8]}"


def standing(corrections: Sequence[Correction]) -> list[Correction]:
    """Of several about one image, the last."""
    return list({each.digest: each for each in corrections}.values())


def counts(corrections: Sequence[Correction]) -> Counter[tuple[str, str]]:
    """How many images the committee called one class that are of another: by (label, answer)."""
    return Counter((each.label, each.answer) for each in standing(corrections))


def read_corrections(folder: Path) -> list[Correction]:
    """The lines of a folder of corrections, in their order.

    Raises:
        CommitteeError: there are none, or a line is damaged.
    """
    path = folder / LINES
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        raise CommitteeError(
            f"{folder}: a folder of corrections is expected, got one without a readable {LINES}; give the folder that "
            "committee serve named"
        ) from None
    try:
        return [Correction.model_validate_json(line) for line in lines if line]
    except ValidationError:
        raise CommitteeError(
            f"{path}: a correction a line is expected, got a damaged one; restore or remove it"
        ) from None


def writable(folder: Path) -> bool:
    """Whether corrections can be stored there: by the nearest folder above it that is there."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
