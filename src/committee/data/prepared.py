"""A folder that `committee data prepare` wrote -> ImageDataset: images in shards, mapped; what is known of them, read.

    prepared.json               what is there, with the size and SHA-256 of every file; written last
    train/00000.pixels, ...     raw pixels (image, height, width, channel), 8 or 16 bits, little-endian
    train/labels.npy            (image,) int64
    train/groups.npy            (image,) int64, where images belong together
    train/positions.npy         (image,) int64: the images' places in the one file that they came from; or
    train/names.txt, train/name_ends.npy  their names one behind the other, and where each ends
    test/...                    the same for the test images, which stay sealed

The record has a digest of its own, and all files are compared with it whenever the folder is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from committee.config.record import Record
from committee.data.dataset import ImageDataset, Known, LabelledImages, Names, SealedTest
from committee.data.read_options import AS_IT_IS, ReadOptions, ValueRange
from committee.data.shards import ImageFiles, Shards
from committee.errors import DataError

RECORD, BEGUN = "prepared.json", "preparing.json"
LABELS, GROUPS, POSITIONS, NAMES, NAME_ENDS = "labels.npy", "groups.npy", "positions.npy", "names.txt", "name_ends.npy"
SHARD = re.compile(r"\d{5,9}\.pixels")
AGAIN = "prepare the data again into another folder"
LARGEST_RECORD = 64 * 2**20  # bytes: of 300,000 shards


class StoredFile(Record):
    """Size and digest of a file."""

    bytes: int
    sha256: str


class PreparedPart(Record):
    """The files of one part.

    Attributes:
        images: how many.
        files: by their names in the part's folder.
        came_from: the one file that held all images, whose places `positions.npy` has; "" otherwise.
    """

    images: int
    files: dict[str, StoredFile]
    came_from: str = ""

    @property
    def shards(self) -> list[str]:
        """The names of the shards, in their order."""
        return sorted((name for name in self.files if SHARD.fullmatch(name)), key=lambda name: int(name[:-7]))


class PreparedRecord(Record):
    """What a prepared folder holds.

    Attributes:
        layout: of the folder; this version knows 1.
        name, source, class_names, notes, warnings, value_range: as in `ImageDataset`.
        shape: height, width, channels.
        bits: 8 or 16.
        digest, train_digest, test_digest, test_images_also_in_train, blank: as in `Known`.
    """

    layout: int
    name: str
    source: str
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    bits: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    value_range: ValueRange | None
    train: PreparedPart
    test: PreparedPart
    digest: str
    train_digest: str
    test_digest: str
    test_images_also_in_train: int
    blank: int


class Texts(Sequence[str]):
    """Texts in a file, mapped: one behind the other, and where each ends."""

    def __init__(self, content: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.content, self.ends = content, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, place: Any) -> Any:
        """A text; of a slice, a list of them."""
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[int(place)]
        start = int(self.ends[place - 1]) if place else 0
        return self.content[start : int(self.ends[place])].tobytes().decode("utf-8", "surrogateescape")


def is_prepared(path: Path) -> bool:
    """Whether a path is a folder that `committee data prepare` wrote, or began."""
    return path.is_dir() and any((path / name).is_file() for name in (RECORD, BEGUN))


def read_prepared(path: Path, options: ReadOptions = AS_IT_IS) -> ImageDataset:
    """The data set in a prepared folder, every file of which is compared with its digest.

    Args:
        path: the folder.
        options: must say nothing: what they say is done when the data are prepared.

    Raises:
        DataError: it is unfinished, a file is missing or damaged, or options are given.
    """
    given = options.model_dump(exclude={"labels"}, exclude_defaults=True)
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise DataError(
            f"{path}: prepared data are read as they are, got {names}; give it to committee data prepare instead"
        )
    record = read_record(path)
    verify(path, record)
    train, test = (_part(path / part, record, part) for part in ("train", "test"))
    sealed = SealedTest(test)
    known = Known(
        record.digest,
        record.train_digest,
        record.test_digest,
        record.test_images_also_in_train,
        record.blank,
        of=(train, sealed),
    )
    return ImageDataset(
        record.name,
        train,
        sealed,
        record.class_names,
        str(path),
        record.notes,
        record.warnings,
        record.value_range,
        known,
    )


def read_record(path: Path) -> PreparedRecord:
    """The record of a prepared folder.

    Raises:
        DataError: the folder is unfinished, or the record damaged or of another version.
    """
    file = path / RECORD
    if not file.exists():
        raise DataError(
            f"{path}: preparing these data was interrupted; give the same committee data prepare command again, which "
            "keeps the shards that are there"
        )
    try:
        if file.stat().st_size > LARGEST_RECORD:
            raise ValueError("it is too large")
        content = json.loads(file.read_bytes())
        found = content.pop("record_digest")
        if found != record_digest(content):
            raise ValueError("its digest differs")
        record = PreparedRecord.model_validate(content)
    except (OSError, ValueError, KeyError, AttributeError, RecursionError, ValidationError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(
            f"{file}: the record of prepared data is expected, got something else ({reason}); {AGAIN}"
        ) from error
    _check(record, file)
    return record


def record_digest(content: Mapping[str, JsonValue]) -> str:
    """The digest that guards a record, over all of its other content."""
    plain = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def _check(record: PreparedRecord, file: Path) -> None:
    """The numbers of a record fit each other, and its names are those of a part's files."""
    height, width, channels = record.shape
    image = height * width * channels * record.bits // 8
    sound = (
        record.layout == 1
        and record.bits in (8, 16)
        and min(height, width) > 0
        and 1 <= channels <= 4
        and len({*record.class_names}) == len(record.class_names) >= 2
    )
    for part in (record.train, record.test):
        plain = {LABELS, GROUPS, POSITIONS, NAMES, NAME_ENDS}
        sound = sound and all(name in plain or SHARD.fullmatch(name) for name in part.files) and LABELS in part.files
        sound = sound and sum(part.files[name].bytes for name in part.shards) == part.images * image
    if not sound or not record.train.images:
        raise DataError(f"{file}: it describes no data that this version prepares; {AGAIN}")


def verify(path: Path, record: PreparedRecord) -> int:
    """Compare all files of a prepared folder with the record; returns how many they are.

    Raises:
        DataError: one is missing, no plain file, or not the one that was written.
    """
    listed = [
        (path / part / name, stored)
        for part, files in (("train", record.train.files), ("test", record.test.files))
        for name, stored in files.items()
    ]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing leaves Python's lock alone
        for file, fault in pool.map(lambda pair: (pair[0], _fault(*pair)), listed):
            if fault:
                raise DataError(f"{file}: the file that was prepared is expected, got {fault}; restore it, or {AGAIN}")
    return len(listed)


def _fault(file: Path, stored: StoredFile) -> str:
    """What is wrong with a file; "" where nothing is."""
    try:
        if file.is_symlink() or file.parent.is_symlink():
            return "a link"
        if file.stat().st_size != stored.bytes:
            return f"{file.stat().st_size:,} bytes instead of {stored.bytes:,}"
        with file.open("rb") as content:
            same = hashlib.file_digest(content, "sha256").hexdigest() == stored.sha256
    except OSError as error:
        return f"none that can be read ({error.strerror or error})"
    return "" if same else "another content (its SHA-256 differs)"


def _part(folder: Path, record: PreparedRecord, name: str) -> LabelledImages:
    """The images of a part, mapped."""
    part: PreparedPart = getattr(record, name)
    shards = Shards(tuple(folder / shard for shard in part.shards), (part.images, *record.shape), f"uint{record.bits}")
    labels = _column(folder / LABELS, part.images)
    if part.images and (labels.min() < 0 or labels.max() >= len(record.class_names)):
        raise DataError(f"{folder / LABELS}: labels from 0 to {len(record.class_names) - 1} are expected; {AGAIN}")
    files = ImageFiles(shards, folder / LABELS, (shards.mapped(), labels))
    groups = _column(folder / GROUPS, part.images) if GROUPS in part.files else None
    assert files.held is not None
    return LabelledImages(*files.held, _names(folder, part), groups, files)


def prepared_images(path: Path, part: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The images of a part, "train" or "test", to be classified, with their place for messages; labels are ignored.

    Raises:
        DataError: as `read_prepared`.
    """
    record = read_record(path)
    if part == "train":  # which comes first
        verify(path, record)
    if images := getattr(record, part).images:
        shards = tuple(path / part / name for name in getattr(record, part).shards)
        yield f"{path}/{part}", Shards(shards, (images, *record.shape), f"uint{record.bits}").mapped()


def _names(folder: Path, part: PreparedPart) -> Names | None:
    if POSITIONS in part.files:
        return Names(part.came_from, _column(folder / POSITIONS, part.images))
    if NAMES not in part.files:
        return None
    ends = _column(folder / NAME_ENDS, part.images)
    size = part.files[NAMES].bytes
    if part.images and (int(ends[-1]) != size or (np.diff(ends, prepend=0) < 0).any()):
        raise DataError(f"{folder / NAME_ENDS}: it does not fit {NAMES}; {AGAIN}")
    content = np.memmap(folder / NAMES, np.uint8, "r") if size else np.empty(0, np.uint8)
    return Names(Texts(content, ends), np.arange(part.images))


def _column(file: Path, images: int) -> NDArray[np.int64]:
    """(image,) int64 in an NPY file, mapped copy on write."""
    try:
        column: NDArray[np.int64] = np.load(file, mmap_mode="c" if images else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: an array of {images:,} whole numbers is expected ({error}); {AGAIN}") from error
    if column.shape != (images,) or column.dtype != np.int64:
        raise DataError(
            f"{file}: {images:,} numbers of int64 are expected, got {column.shape} of {column.dtype}; {AGAIN}"
        )
    return np.asarray(column)
