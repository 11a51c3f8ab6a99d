"""A data set -> a prepared folder: shards of its pixels, and what has to be known of them; `committee data prepare`.

Piece by piece, in processes side by side where the source can be read so: each shard is written whole or not at all,
and beside it, for as long as the folder is unfinished, the hashes of its images. Interrupted, whatever way, the same
call keeps every shard that is whole and of the same source. Memory is bounded by a shard for each process, and about a
hundred bytes for each image at the end.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from committee import disk
from committee.data import catalog
from committee.data.dataset import Hashes, ImageDataset, LabelledImages, Labels, digest_of, image_hashes, open_test
from committee.data.formats.contradictions import notes_on_labels
from committee.data.parquet_source import parquet_source
from committee.data.prepared import (
    BEGUN,
    GROUPS,
    LABELS,
    NAME_ENDS,
    NAMES,
    POSITIONS,
    RECORD,
    PreparedPart,
    PreparedRecord,
    StoredFile,
    is_prepared,
    record_digest,
)
from committee.data.read_options import ReadOptions
from committee.data.row_source import Part, Read, Source, SourcePart, of_dataset
from committee.data.shards import SHARD_BYTES, Shards, images_per_shard
from committee.errors import DataError, StorageError
from committee.folders.files import write_array
from committee.folders.lock import locked
from committee.pages import drop_pages

PARTS: tuple[Part, Part] = ("train", "test")
TEST_RECORD = ".test_record.jsonl"
NAMES_AT_ONCE = 100_000


@dataclass(frozen=True)
class Piece:
    """A shard to be written.

    Attributes:
        file: its place.
        part: of the images.
        rows, labels: (image,), of its images, as in `SourcePart`.
    """

    file: Path
    part: Part
    rows: NDArray[np.int64]
    labels: Labels

    @property
    def facts(self) -> Path:
        """Where the hashes of its images are until everything is there."""
        return self.file.with_suffix(".facts.npz")


@dataclass(frozen=True)
class Facts:
    """What is known of a shard's images.

    Attributes:
        stored: the shard's file.
        hashes: (image,), as `image_hashes` gives them.
        blank: (image,), whether it has a single colour.
    """

    stored: StoredFile
    hashes: Hashes
    blank: NDArray[np.bool_]


def source_of(data: str, data_dir: Path | None, options: ReadOptions) -> ImageDataset | Source:
    """What is to be prepared: a data set's name or a path, and how it is read.

    Raises:
        DataError: this is neither a name nor a path, or the data are not usable.
    """
    is_path = data not in catalog.NAMES and Path(data).exists() and options.labels is None
    return (parquet_source(Path(data), options) if is_path else None) or catalog.load_dataset(
        data, data_dir=data_dir, **dict(options)
    )


def prepare(
    source: ImageDataset | Source,
    out: str | Path,
    *,
    workers: int = 1,
    shard_bytes: int = SHARD_BYTES,
    on_shard: Callable[[int, int], None] = lambda done, all_of_them: None,
) -> PreparedRecord:
    """Write a data set in shards.

    Args:
        source: a data set, or one whose pixels are read piece by piece; `committee.data.parquet_source` makes one.
        out: a new folder, or one that the same call began.
        workers: processes that read and write at once, where the source can be read so.
        shard_bytes: of a shard, about.
        on_shard: called with how many shards are done, and how many there are.

    Raises:
        DataError: the folder holds something else, or other data are being prepared there.
        StorageError: it cannot be written.
        RunError: another process is writing it.
    """
    folder = Path(out)
    _check_free(folder)
    with locked(folder):
        if isinstance(source, ImageDataset):
            source = of_dataset(source, open_test(source, folder / TEST_RECORD, f"written to {folder}"))
        begin(folder, source, shard_bytes)
        pieces = pieces_of(folder, source, shard_bytes)
        writer = Writer(source.read, source.class_names, source.dtype, compares=not source.stamp)
        with executor(workers if source.stamp else 1) as pool:
            run = map if pool is None else pool.map
            for done, _ in enumerate(run(writer, pieces), 1):
                on_shard(done, len(pieces))
        return finish(folder, source, pieces)


def _check_free(folder: Path) -> None:
    if (folder / RECORD).exists():
        raise DataError(f"{folder}: these data are prepared already; give another folder, or remove it")
    if folder.exists() and not is_prepared(folder):
        others = (
            [each.name for each in folder.iterdir() if not each.name.startswith(".")] if folder.is_dir() else ["a file"]
        )
        if others:
            raise DataError(
                f"{folder}: a folder that does not exist yet is expected, got one with {others[0]}; give another"
            )


def begin(folder: Path, source: Source, shard_bytes: int) -> None:
    """Note what is being prepared here, or see that it is the same.

    Raises:
        DataError: it is something else.
    """
    labels = hashlib.sha256(b"".join(source.part(part).labels.astype("<i8").tobytes() for part in PARTS)).hexdigest()
    content = {
        "source": source.source,
        "shape": list(source.shape),
        "type": str(source.dtype),
        "class_names": list(source.class_names),
        "labels": labels,
        "shard_bytes": shard_bytes,
        "stamp": source.stamp,
    }
    file = folder / BEGUN
    if file.exists():
        if json.loads(file.read_text("utf-8")) != content:
            raise DataError(
                f"{folder}: other data were being prepared there, or their files have changed since; give another "
                "folder, or remove it"
            )
        return
    for part in PARTS:
        disk.make_folder(folder / part)
    disk.write(file, json.dumps(content).encode())


def pieces_of(folder: Path, source: Source, shard_bytes: int) -> list[Piece]:
    """The shards, the test images' last."""
    image = int(np.prod(source.shape)) * source.dtype.itemsize
    step = images_per_shard(image, shard_bytes)
    return [
        Piece(
            folder / part / f"{start // step:05d}.pixels",
            part,
            own.rows[start : start + step],
            own.labels[start : start + step],
        )
        for part in PARTS
        for own in (source.part(part),)
        for start in range(0, len(own.labels), step)
    ]


# --- one shard --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Writer:
    """Writes shards, in whatever process.

    Attributes:
        read, class_names, dtype: as in `Source`.
        compares: whether a shard that is there is compared with the images that belong there; else the source is known
            to be the same.
    """

    read: Read
    class_names: tuple[str, ...]
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16]
    compares: bool

    def __call__(self, piece: Piece) -> None:
        """Write a shard and its facts, unless both are there already.

        Raises:
            DataError: the images cannot be read.
            StorageError: a file cannot be written.
        """
        before = facts_of(piece)
        is_whole = before is not None and digest(piece.file) == before.stored.sha256
        if is_whole and not self.compares:
            return
        pixels = self.read(piece.part, piece.rows)
        content = np.ascontiguousarray(pixels).astype(self.dtype.newbyteorder("<"), copy=False).data.cast("B")
        sha256 = hashlib.sha256(content).hexdigest()
        if is_whole and before is not None and before.stored.sha256 == sha256:
            return
        disk.discard(piece.facts)
        disk.write(piece.file, content)
        hashes = image_hashes(LabelledImages(pixels, piece.labels), self.class_names)
        blank = (pixels == pixels[:, :1, :1]).all((1, 2, 3))
        buffer = io.BytesIO()
        np.savez(buffer, sha256=np.array(sha256), hashes=hashes, blank=blank)
        disk.write(piece.facts, buffer.getvalue())
        drop_pages()


def facts_of(piece: Piece) -> Facts | None:
    """What was found out about a shard that is there; None where it is not, or what is there is damaged."""
    try:
        with np.load(piece.facts, allow_pickle=False) as found:
            stored = StoredFile(bytes=piece.file.stat().st_size, sha256=str(found["sha256"]))
            facts = Facts(stored, found["hashes"], found["blank"])
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return facts if len(facts.hashes) == len(piece.rows) else None


def digest(file: Path) -> str:
    """The SHA-256 of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def executor(workers: int) -> Iterator[Executor | None]:
    """Processes that end with this one; None for one worker, which is this process.

    Raises:
        StorageError: one of them was ended from outside.
    """
    if workers <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_work) as pool:
        try:
            yield pool
        except BrokenExecutor as error:
            raise StorageError(
                "a process that was writing shards was ended, as happens where memory runs out; give the same command "
                "again with fewer --workers, which keeps the shards that are there"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin_work() -> None:
    """Leave Ctrl-C to the parent, and end as soon as that has ended, whatever way it was."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- the end ----------------------------------------------------------------------------------------------------------


def finish(folder: Path, source: Source, pieces: list[Piece]) -> PreparedRecord:
    """Write labels, names and the record, once all shards are there."""
    columns = {part: write_columns(folder / part, source.part(part)) for part in PARTS}
    shards: dict[Part, dict[str, StoredFile]] = {part: {} for part in PARTS}
    hashes: dict[Part, list[Hashes]] = {part: [] for part in PARTS}
    blank: dict[Part, list[NDArray[np.bool_]]] = {part: [np.empty(0, np.bool_)] for part in PARTS}
    for piece in pieces:
        facts = facts_of(piece)
        if facts is None:
            raise DataError(f"{piece.file}: the shard was there and is not any more; give the same command again")
        shards[piece.part][piece.file.name] = facts.stored
        hashes[piece.part].append(facts.hashes)
        blank[piece.part].append(facts.blank)
    train, test = (np.concatenate(hashes[part]) if hashes[part] else np.empty(0, "S32") for part in PARTS)
    hashes.clear()
    copies = _also_in(test[~np.concatenate(blank["test"])], train)
    parts = {
        part: PreparedPart(
            images=len(source.part(part).labels),
            files={**shards[part], **columns[part]},
            came_from=_one_file(source.part(part)),
        )
        for part in PARTS
    }
    notes = (
        source.notes
        if source.notes_after is None
        else (*source.notes, *_label_notes(folder, source, shards), *source.notes_after)
    )
    train_digest, test_digest = digest_of(train), digest_of(test)
    record = PreparedRecord(
        layout=1,
        name=source.name,
        source=source.source,
        class_names=source.class_names,
        shape=source.shape,
        bits=8 * source.dtype.itemsize,
        notes=notes,
        warnings=source.warnings,
        value_range=source.value_range,
        train=parts["train"],
        test=parts["test"],
        digest=digest_of(np.concatenate([train, test])),
        train_digest=train_digest,
        test_digest=test_digest,
        test_images_also_in_train=copies,
        blank=int(sum(each.sum() for part in PARTS for each in blank[part])),
    )
    content = record.model_dump(mode="json")
    disk.write(folder / RECORD, json.dumps({**content, "record_digest": record_digest(content)}, indent=1).encode())
    for piece in pieces:
        disk.discard(piece.facts)
    disk.discard(folder / BEGUN)
    return record


def _label_notes(folder: Path, source: Source, shards: Mapping[Part, Mapping[str, StoredFile]]) -> list[str]:
    """Notes about labels that contradict each other, which only all images together show."""
    parts = []
    for part in PARTS:
        own = source.part(part)
        files = tuple(folder / part / name for name in sorted(shards[part]))
        mapped = Shards(files, (len(own.labels), *source.shape), source.dtype.name).mapped()
        parts.append(LabelledImages(mapped, own.labels, own.names))
    notes = notes_on_labels(parts, source.class_names)
    drop_pages()
    return notes


def _also_in(hashes: Hashes, others: Hashes) -> int:
    """How many of the hashes are among others, which are sorted by this."""
    others.sort()
    if not len(others):
        return 0
    places = np.minimum(others.searchsorted(hashes), len(others) - 1)
    return int((others[places] == hashes).sum())


def _one_file(part: SourcePart) -> str:
    return part.names.files if part.names is not None and isinstance(part.names.files, str) else ""


def write_columns(folder: Path, part: SourcePart) -> dict[str, StoredFile]:
    """Labels, groups and names of a part -> their files."""
    arrays: dict[str, NDArray[np.int64]] = {LABELS: part.labels}
    if part.groups is not None:
        arrays[GROUPS] = part.groups
    if part.names is not None and isinstance(part.names.files, str):
        arrays[POSITIONS] = part.names.positions
    elif part.names is not None:
        arrays[NAME_ENDS] = write_names(folder / NAMES, part)
    for name, array in arrays.items():
        write_array(folder / name, array.astype(np.int64, copy=False))
    written = [*arrays, *([NAMES] if NAME_ENDS in arrays else [])]
    return {name: StoredFile(bytes=(folder / name).stat().st_size, sha256=digest(folder / name)) for name in written}


def write_names(file: Path, part: SourcePart) -> NDArray[np.int64]:
    """All names one behind the other, and where each ends: (image,)."""
    ends, size = np.empty(len(part.labels), np.int64), 0

    def blocks() -> Iterator[bytes]:
        nonlocal size
        assert part.names is not None
        for start in range(0, len(ends), NAMES_AT_ONCE):
            some = [
                part.names[i].encode("utf-8", "surrogateescape")
                for i in range(start, min(start + NAMES_AT_ONCE, len(ends)))
            ]
            ends[start : start + len(some)] = size + np.cumsum([len(name) for name in some])
            size = int(ends[start + len(some) - 1])
            yield b"".join(some)

    disk.write_parts(file, blocks())
    return ends
