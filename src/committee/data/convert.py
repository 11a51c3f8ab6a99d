"""ImageDataset -> a folder of Parquet files in the Hugging Face hub's layout, which reads back to the same data set."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from committee.data.croissant import ParquetFile, croissant
from committee.data.dataset import ImageDataset, LabelledImages, Pixels, open_test
from committee.data.formats.arrow_tables import GROUPS_KEY
from committee.data.published import PUBLISHED
from committee.data.summary import describe
from committee.errors import DataError, require

METADATA = "croissant.json"
_ROWS = 1000
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def to_parquet(dataset: ImageDataset, folder: Path, known_as: str = "") -> list[Path]:
    """Write a data set as ``train.parquet`` and ``test.parquet`` in a new folder.

    Columns: `image`, a struct of PNG bytes and a path, and `label`, a ClassLabel with the class names; `group`, where
    images belong together. ``croissant.json`` describes them to other programs. The folder appears once it is complete.
    Its hidden test record says that the test images were written.

    Args:
        dataset: with its test part, which stays sealed in what is read back.
        folder: where to; it must not exist.
        known_as: the name of a published data set, whose licence and citation ``croissant.json`` then gives.

    Raises:
        DataError: the folder exists or cannot be written, or the images are grey with alpha in 16 bits.
        MissingExtraError: the package pyarrow is not installed.
    """
    require("pyarrow.parquet", extra="parquet", purpose="Writing Parquet files")
    if folder.exists():
        raise DataError(f"{folder}: a folder that does not exist yet is expected; give another, or remove it")
    if dataset.image_shape[2] == 2 and dataset.pixel_range > 255:
        raise DataError(
            f"{dataset.source}: images of grey with alpha in 16 bits cannot be kept in PNG files; convert them with "
            "--channels grey"
        )
    unfinished = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        parts = {"train": dataset.train}
        if len(dataset.test):
            parts["test"] = open_test(dataset, unfinished / ".test_record.jsonl", f"written to {folder}")
        for part, images in parts.items():
            write_part(images, dataset.class_names, unfinished / f"{part}.parquet")
        written = [_described(unfinished / f"{part}.parquet") for part in parts]
        grouped = dataset.train.groups is not None
        metadata = croissant(describe(dataset), written, published=PUBLISHED.get(known_as), grouped=grouped)
        (unfinished / METADATA).write_text(metadata, "utf-8")
        unfinished.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be written ({error}); free some space or give another") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [*(folder / f"{part}.parquet" for part in parts), folder / METADATA]


def _described(file: Path) -> ParquetFile:
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return ParquetFile(file.stem, file.stat().st_size, sha256)


def write_part(images: LabelledImages, class_names: tuple[str, ...], file: Path) -> None:
    """One part, some images at a time."""
    arrow, parquet = (require(name, extra="parquet", purpose="Writing") for name in ("pyarrow", "pyarrow.parquet"))
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features["label"] = {"names": list(class_names), "_type": "ClassLabel"}
    fields = [("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])), ("label", arrow.int64())]
    metadata = {}
    if images.groups is not None:
        fields.append(("group", arrow.int64()))
        features["group"] = {"dtype": "int64", "_type": "Value"}
        metadata[GROUPS_KEY] = b"group"
    metadata[b"huggingface"] = json.dumps({"info": {"features": features}}).encode()
    schema = arrow.schema(fields, metadata=metadata)
    with parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(images), _ROWS):
            rows = range(start, min(start + _ROWS, len(images)))
            cells = [{"bytes": png(images.pixels[row]), "path": f"{row}.png"} for row in rows]
            columns = [arrow.array(cells, fields[0][1]), arrow.array(images.labels[rows.start : rows.stop])]
            if images.groups is not None:
                columns.append(arrow.array(images.groups[rows.start : rows.stop]))
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def png(pixels: Pixels) -> bytes:
    """An image as PNG, with all its bits: Pillow writes no 16-bit colour.

    Args:
        pixels: (height, width, channel), uint8 or uint16, of 1 to 4 channels.
    """
    if pixels.dtype == np.uint8:
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
        return buffer.getvalue()
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    rows: NDArray[np.uint8] = np.zeros(
        (height, 1 + width * channels * 2), np.uint8
    )  # each begins with its filter, none
    rows[:, 1:] = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
