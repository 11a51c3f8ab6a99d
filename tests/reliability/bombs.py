"""Small files that announce, or unpack to, far more than they are: written here, byte by byte where libraries refuse.

Run as a program it reads those in a folder, one after the other, and prints what each cost.
"""

# ruff: noqa: E501
from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import resource
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from committee.data.read_options import ReadOptions

GREY = ReadOptions(channels="grey")
MEGA = 2**20
LABELS = np.arange(40, dtype=np.uint8) % 2
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)


def png(image: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[image]).save(file, "PNG")
    return file.getvalue()


def npy(shape: tuple[int, ...], kind: str = "|u1", data: bytes = b"") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data


def idx(kind: int, *sizes: int, data: bytes = b"") -> bytes:
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, kind, len(sizes), *sizes) + data


def deflated(head: bytes, zeros: int) -> bytes:
    """A raw deflate stream of a beginning and so many zeros, in steps of a megabyte."""
    start = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = start.compress(head) + start.flush(zlib.Z_FULL_FLUSH)
    step = zlib.compressobj(9, zlib.DEFLATED, -15)
    one = step.compress(bytes(MEGA)) + step.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15)
    return first + one * (zeros // MEGA) + end.flush()


def gz(head: bytes, zeros: int) -> bytes:
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflated(head, zeros) + bytes(8)


Member = tuple[str, bytes, int, int, int]
"""A name, the bytes as they are stored, the length that the directory says, its checksum, and 0 stored or 8 deflated."""


def zipped(members: Sequence[Member], times: int = 1) -> bytes:
    """A zip; `times` directory entries point at each member."""
    body, directory = b"", b""
    for name, content, size, check, method in members:
        fixed = struct.pack("<5H3L", 20, 0, method, 0, 0, check, len(content), size)
        for path in [name.encode()] if times == 1 else [f"{i}{name}".encode() for i in range(times)]:
            place = struct.pack("<5H2L", len(path), 0, 0, 0, 0, 0, len(body))
            directory += b"PK\x01\x02" + struct.pack("<H", 20) + fixed + place + path
        body += b"PK\x03\x04" + fixed + struct.pack("<2H", len(name), 0) + name.encode() + content
    count = len(members) * times
    return body + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(body), 0)


def stored(name: str, content: bytes) -> Member:
    return name, content, len(content), zlib.crc32(content), 0


def packed(name: str, head: bytes, zeros: int, size: int | None = None) -> Member:
    """A beginning and zeros, deflated; the directory may say another size than theirs."""
    size = len(head) + zeros if size is None else size
    check = zlib.crc32((head + bytes(min(zeros, MEGA)))[:size])
    return name, deflated(head, zeros), size, check, 8


def repacked(name: str, content: bytes) -> Member:
    return name, zlib.compress(content, 9)[2:-4], len(content), zlib.crc32(content), 8


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def wide_png(height: int, width: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def sparse(folder: Path, name: str, head: bytes, size: int) -> Path:
    """A file that has a beginning and then a hole: it takes no room on the disk."""
    path = put(folder, name, head)
    os.truncate(path, size)
    return path


def class_folders(folder: Path, odd: bytes, name: str = "odd.png") -> Path:
    """A data set of images in class folders, one of them odd."""
    for i, label in enumerate(LABELS):
        put(folder, f"{label}/{i}.png", png(i))
    return put(folder, f"0/{name}", odd).parents[1]


def idx_folder(folder: Path, images: bytes, labels: bytes, ending: str = "") -> Path:
    put(folder, f"train-images-idx3-ubyte{ending}", images)
    return put(folder, f"train-labels-idx1-ubyte{ending}", labels).parent


def table(folder: Path, name: str, **columns: object) -> Path:
    """A Parquet or Arrow file, by pyarrow's writers, with a column of labels."""
    import pyarrow as pa
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    rows = len(next(iter(columns.values())))  # type: ignore[call-overload]
    made = pa.table({**columns, "label": np.arange(rows) % 2})
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(made, path, compression="zstd", dictionary_pagesize_limit=16 * MEGA, write_statistics=False)
    else:
        feather.write_feather(made, path, compression="zstd")
    return path


def long_value(folder: Path, name: str) -> Path:
    import pyarrow as pa

    return table(folder, name, image=pa.array([png(), bytes(64 * MEGA)]))


def repeated_value(folder: Path, name: str) -> Path:
    import pyarrow as pa

    values = pa.array([np.random.default_rng(0).bytes(MEGA // 4)])
    return table(folder, name, image=pa.DictionaryArray.from_arrays(np.zeros(100_000, np.int32), values))


def long_lists(folder: Path, name: str) -> Path:
    import pyarrow as pa

    return table(
        folder, name, image=pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(16 * MEGA, np.int8)), 4 * MEGA)
    )


def claimed_buffer(folder: Path, name: str) -> Path:
    """An Arrow file whose compressed buffer says that it unpacks to a terabyte."""
    path = table(folder, name, image=__import__("pyarrow").array([bytes(MEGA)] * 2))
    content = path.read_bytes()
    size = struct.pack("<q", 2 * MEGA)
    assert content.count(size) >= 1
    return put(
        folder, name, content.replace(size + b"\x28\xb5\x2f\xfd", struct.pack("<q", 2**40) + b"\x28\xb5\x2f\xfd")
    )


def many_classes(folder: Path, name: str) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"label": {"_type": "ClassLabel", "names": [str(i) for i in range(150_000)]}}
    made = pa.table({"image": [png(i) for i in range(40)], "label": LABELS.astype(np.int64)})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(made.replace_schema_metadata(metadata), folder / name)
    return folder / name


def matlab(folder: Path, name: str) -> Path:
    """A MATLAB file with one compressed variable: 300 MB of zeros, 1,000 times as many as the file has."""
    zeros = 300 * MEGA
    array = (
        struct.pack("<4I", 6, 8, 9, 0) + struct.pack("<4I", 5, 8, zeros // 64, 64) + struct.pack("<HH4s", 1, 1, b"X")
    )
    array += struct.pack("<2I", 2, zeros)
    packer = zlib.compressobj(1)
    head = packer.compress(struct.pack("<2I", 14, len(array) + zeros) + array)
    packed = head + b"".join(packer.compress(bytes(MEGA)) for _ in range(300)) + packer.flush()
    return put(
        folder, name, b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + struct.pack("<2I", 15, len(packed)) + packed
    )


def gif(frames: int, width: int = 8, comments: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(file, "GIF")
    content = file.getvalue()
    start = content.index(b"\x2c", 13 + (6 << (content[10] & 7)))
    head, frame = content[:start], content[start : content.rindex(b";")]
    note = b"\x21\xfe" + (b"\xff" + b"a" * 255) * comments + b"\0" if comments else b""
    return head[:6] + struct.pack("<HH", width, width) + head[10:] + note + frame * frames + b";"


def shared_tags() -> bytes:
    """A TIFF of 1,000 tags that all name the same 200 KB."""
    tags = b"".join(struct.pack("<HHII", 40_000 + i, 7, 200_000, 8) for i in range(1000))
    return b"II*\0" + struct.pack("<I", 200_008) + bytes(200_000) + struct.pack("<H", 1000) + tags + bytes(4)


def jpeg_2000(width: int, tile: int) -> bytes:
    size = struct.pack(">HH8IH", 47, 0, width, width, 0, 0, tile, tile, 0, 0, 3) + b"\x07\x01\x01" * 3
    return b"\xff\x4f\xff\x51" + size + b"\xff\xd9"


def chained_listing(folder: Path) -> Path:
    """Images whose table names files elsewhere; one of them is there."""
    secret = put(folder, "secret.png", png())
    paths = ["../secret.png", str(secret.resolve()), "https://example.org/secret.png", "file:///etc/passwd"]
    rows = "".join(f"{path},{i % 2}\n" for i, path in enumerate(paths * 5))
    put(folder, "set/images/a.png", png())
    return put(folder, "set/labels.csv", f"file_name,label\n{rows}images/a.png,0\n".encode()).parent


def looped(folder: Path) -> Path:
    root = class_folders(folder, png())
    (root / "0" / "up").symlink_to(root)
    (root / "1" / "itself").symlink_to(root / "1" / "itself")
    (root / "around").symlink_to(root / "0")
    return root


def text_lines(number: int, line: str) -> bytes:
    return (line + "\n").encode() * number


ROW = ",".join(["1"] * 64)
SIXTY_FOUR = f"label,{','.join(f'pixel{i}' for i in range(64))}\n"
ANYTHING = ""

Bomb = tuple[Callable[[Path], Path], str]
"""How it is made in a folder, and what the sentence about it says; "" where nothing is wrong but the burden."""

BOMBS: dict[str, Bomb] = {
    "NPZ of 3 GB": (
        lambda p: put(p, "a.npz", zipped([packed("x_train.npy", npy((3 * 2**30,)), 3 * 2**30)])),
        "unpack to at most 200 times their size",
    ),
    "NPZ whose array announces 10 TB": (
        lambda p: put(p, "a.npz", zipped([stored("X.npy", npy((10**10, 1000))), stored("y.npy", npy((10**10,)))])),
        "X.npy: at most 8,589,934,592 bytes are read, and the header announces",
    ),
    "NPZ whose directory says less than it unpacks to": (
        lambda p: put(
            p, "a.npz", zipped([packed("X.npy", npy((2**23, 1)), 2**23, 1000), stored("y.npy", npy((2**23,)))])
        ),
        "X.npy: the file is cut off",
    ),
    "NPZ whose directory says more": (
        lambda p: put(
            p, "a.npz", zipped([packed("X.npy", npy((9 * MEGA, 1)), 0, 9 * MEGA + 128), stored("y.npy", npy((40,)))])
        ),
        "X.npy: the file",
    ),
    "NPZ in a zip, each 1,000 times its size": (
        lambda p: put(p, "a.zip", zipped([repacked("a.npz", zipped([packed("X.npy", npy((2**30,)), 2**30)]))])),
        "unpack to at most 200 times their size",
    ),
    "zip whose members share their bytes": (
        lambda p: put(p, "a.zip", zipped([packed(".png", b"", 30 * MEGA)], times=2000)),
        "bytes are read, got",
    ),
    "zip of 10 million names": (
        lambda p: _with_end(sparse(p, "a.zip", b"PK\x03\x04", 470_000_000), 470_000_000 - 4, 4),
        "at most 2,000,000 files in a zip are read, got 9,99",
    ),
    "zip of 10 million names, in its 64-bit record": (
        lambda p: put(p, "a.zip", _zip64(10**7)),
        "at most 2,000,000 files in a zip are read, got 10,000,000",
    ),
    "zips in a zip": (
        lambda p: put(p, "a.zip", zipped([stored("b.zip", zipped([stored("c.zip", b"")]))])),
        "zips inside it",
    ),
    "zip of LZMA": (lambda p: put(p, "a.zip", zipped([("a.npy", b"", 0, 0, 14)])), "stored or deflated are expected"),
    "tar": (lambda p: put(p, "a.tar", bytes(10240)), "labelled images are expected"),
    "pickle": (lambda p: put(p, "a.pkl", b"\x80\x04."), "got a pickle"),
    "IDX of 4 billion images": (
        lambda p: idx_folder(p, idx(8, 2**32 - 1, 28, 28), idx(8, 2**32 - 1)),
        "bytes are read, and the header announces",
    ),
    "IDX that announces 6 GB": (
        lambda p: idx_folder(p, idx(8, 8_000_000, 28, 28), idx(8, 8_000_000)),
        "6,272,000,000 bytes of data are expected",
    ),
    "IDX of 4 billion nothings": (
        lambda p: idx_folder(p, idx(8, 2**32 - 1, 0, 28), idx(8, 2**32 - 1, 0)),
        "an array with numbers in it is expected",
    ),
    "gzipped IDX of 2 GB": (
        lambda p: idx_folder(p, gz(idx(8, 2 * 2**20, 32, 32), 2**31), gz(idx(8, 2 * 2**20), 2 * MEGA), ".gz"),
        "unpack to at most 200 times their size",
    ),
    "gzipped IDX longer than it says": (
        lambda p: idx_folder(p, gz(idx(8, 40, 8, 8), 2**30), gz(idx(8, 40), 0), ".gz"),
        "longer than its header says",
    ),
    "NPY of a billion nothings": (
        lambda p: put(put(p, "X.npy", npy((10**9, 0))).parent, "y.npy", npy((10**9, 0))).parent,
        "an array with numbers in it",
    ),
    "NPY of a billion empty names": (
        lambda p: put(put(p, "X.npy", npy((10**9, 1), "<U0")).parent, "y.npy", npy((10**9,), "<U0")).parent,
        "an array with numbers in it",
    ),
    "NPY that announces 7 GB": (
        lambda p: put(put(p, "X.npy", npy((7 * 2**20, 32, 32))).parent, "y.npy", npy((7 * 2**20,))).parent,
        "is cut off",
    ),
    "NPY of 150,000 classes": (
        lambda p: (
            put(
                put(p, "X.npy", npy((150_000, 2, 2), data=bytes(600_000))).parent,
                "y.npy",
                npy((150_000,), "<i4", np.arange(150_000, dtype="<i4").tobytes()),
            ).parent
        ),
        "at most 100,000 classes are read, got 150,000",
    ),
    "CSV line of 50 MB": (lambda p: put(p, "a.csv", b"1," * 25 * MEGA), "at most 4,194,304 bytes in a line are read"),
    "CSV line of 50 MB, the third": (
        lambda p: put(p, "a.csv", SIXTY_FOUR.encode() + f"0,{ROW}\n".encode() + b"1," * 25 * MEGA),
        "bytes in a line are read",
    ),
    "CSV line of 50 MB, the third, with fractions": (
        lambda p: put(
            p,
            "a.csv",
            SIXTY_FOUR.replace(",", ";").encode() + f"0;{ROW}\n".replace(",", ";").encode() + b".5;" * 17 * MEGA,
        ),
        "bytes in a line are read",
    ),
    "CSV of a million columns": (
        lambda p: put(p, "a.csv", text_lines(2, ",".join(["1"] * 10**6))),
        "at most 250,000 columns are read, got 1,000,000",
    ),
    "CSV of a million columns, the third row": (
        lambda p: put(p, "a.csv", (SIXTY_FOUR + f"0,{ROW}\n" + "," * 10**6).encode()),
        "at most 250,000 columns are read",
    ),
    "CSV in an open quotation": (
        lambda p: put(p, "a.csv", SIXTY_FOUR.encode() + b'0,"' + b"x\n" * 2 * MEGA),
        "a CSV table is expected",
    ),
    "CSV, gzipped, without an end": (lambda p: put(p, "a.csv.gz", gz(b"1,2", 2**30)), "bytes in a line are read"),
    "CSV of blank lines": (lambda p: put(p, "a.csv", SIXTY_FOUR.encode() + b"\n" * 8 * MEGA), "got none"),
    "pixels in a cell of 20 MB": (
        lambda p: put(p, "a.csv", b"label,pixels\n0," + b"1 " * 10 * MEGA),
        "bytes in a line are read",
    ),
    "LIBSVM's pixel 10^12": (
        lambda p: put(p, "a.libsvm", text_lines(20, "1 1:1 1000000000000:1")),
        "at most 250,000 pixels of an image are read",
    ),
    "LIBSVM's pixel 250,000 in each line": (
        lambda p: put(p, "a.libsvm", text_lines(2000, "1 1:1 250000:1")),
        "unpack to at most 200 times their size",
    ),
    "LIBSVM line of 20 MB": (lambda p: put(p, "a.libsvm", b"1 " + b"1:1 " * 5 * MEGA), "bytes in a line are read"),
    "LIBSVM's file, bzip2, of 1 GB": (
        lambda p: put(
            p,
            "usps.bz2",
            bz2.compress(text_lines(9, "1 1:1 2:1 3:1"))
            + bz2.compress(b"2 1:1 2:")
            + bz2.compress(bytes(8 * MEGA)) * 100,
        ),
        "bytes in a line are read",
    ),
    "Parquet value of 64 MB": (lambda p: long_value(p, "a.parquet"), "unpack to at most 200 times their size"),
    "Parquet value 100,000 times": (lambda p: repeated_value(p, "a.parquet"), "unpack"),
    "Parquet lists of 4 million": (lambda p: long_lists(p, "a.parquet"), "unpack to at most 200 times their size"),
    "Parquet of 150,000 class names": (lambda p: many_classes(p, "a.parquet"), "at most 100,000 classes are read"),
    "Parquet of 9 GiB, a hole": (lambda p: sparse(p, "a.parquet", b"PAR1", 9 * 2**30), "bytes of a file are read"),
    "Arrow value of 64 MB": (lambda p: long_value(p, "a.arrow"), "unpack to at most 200 times their size"),
    "Arrow value 100,000 times": (lambda p: repeated_value(p, "a.arrow"), "unpack"),
    "Arrow buffer that announces 1 TB": (
        lambda p: claimed_buffer(p, "a.arrow"),
        "at most 8,589,934,592 bytes are read",
    ),
    "MATLAB variable of 300 MB": (lambda p: matlab(p, "a.mat"), "unpack to at most 200 times their size"),
    "PNG of 60,000 squared": (lambda p: class_folders(p, wide_png(60_000, 60_000)), "pixels is expected"),
    "PNG of 147 MB in 150 KB": (
        lambda p: class_folders(p, wide_png(7000, 7000, b"\x78\x9c" + deflated(b"", 147 * MEGA))),
        "unpack to at most 200 times their size",
    ),
    "PNG of 20,000 chunks": (
        lambda p: class_folders(p, wide_png(1, 1, zlib.compress(bytes(4)), chunk(b"abCd", b"") * 20_000)),
        "10,000 chunks",
    ),
    "PNG of 20,000 texts": (
        lambda p: class_folders(p, wide_png(8, 8, zlib.compress(bytes(200)), chunk(b"tEXt", b"a\0b") * 9_000)),
        ANYTHING,
    ),
    "PNG of 60 MB of text": (
        lambda p: class_folders(
            p, wide_png(8, 8, zlib.compress(bytes(200)), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(MEGA - 1))) * 60)
        ),
        ANYTHING,
    ),
    "image file of 4 GiB, a hole": (
        lambda p: sparse(class_folders(p, b""), "0/odd.png", png(), 4 * 2**30).parents[1],
        "bytes of a file are read",
    ),
    "GIF of 65,535 squared": (lambda p: class_folders(p, gif(1, 65_535), "odd.gif"), "pixels is expected"),
    "GIF of 20,000 frames": (lambda p: class_folders(p, gif(20_000), "odd.gif"), ANYTHING),
    "GIF of comments": (lambda p: class_folders(p, gif(1, comments=4000), "odd.gif"), ANYTHING),
    "TIFF of shared tags": (lambda p: class_folders(p, shared_tags(), "odd.tif"), "tags of 200,000,000 bytes"),
    "JPEG 2000 of 60,000 squared": (
        lambda p: class_folders(p, jpeg_2000(60_000, 60_000), "odd.j2k"),
        "pixels is expected",
    ),
    "JPEG 2000 of a million tiles": (lambda p: class_folders(p, jpeg_2000(1000, 1), "odd.j2k"), "1,000,000 tiles"),
    "BMP of 60,000 squared": (
        lambda p: class_folders(
            p, b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60_000, 60_000, 1, 24, *([0] * 6)), "odd.bmp"
        ),
        "pixels is expected",
    ),
    "PNM of 60,000 squared": (lambda p: class_folders(p, b"P6 60000 60000 255\n", "odd.ppm"), "pixels is expected"),
    "WebP of 16,384 squared": (
        lambda p: class_folders(
            p, b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + b"\xfe\x3f\0" * 2, "odd.webp"
        ),
        "odd.webp",
    ),
    "links in circles": (looped, ANYTHING),
    "listing that points elsewhere": (chained_listing, "listed images are not there"),
    "listing of nested JSON": (
        lambda p: (
            put(put(p, "images/a.png", png()).parents[1], "labels.jsonl", b'{"file_name": ' + b"[" * 100_000).parent
        ),
        "images",
    ),
}


def _with_end(path: Path, directory: int, offset: int) -> Path:
    with path.open("ab") as file:
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, directory, offset, 0))
    return path


def _zip64(entries: int) -> bytes:
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, entries * 47, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    return record + locator + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)


def warm_up(folder: Path) -> None:
    """Read a harmless set of each kind, so that the libraries are loaded before anything is measured."""
    import scipy.io

    from committee.data.readers import read_dataset

    flat = PIXELS.reshape(40, 64)
    read_dataset(class_folders(folder / "images", png()))
    read_dataset(table(folder, "a.parquet", image=[png(i) for i in range(40)]))
    read_dataset(table(folder, "a.arrow", image=[png(i) for i in range(40)]))
    np.savez_compressed(folder / "a.npz", X=PIXELS, y=LABELS)
    read_dataset(folder / "a.npz")
    scipy.io.savemat(folder / "a.mat", {"X": PIXELS, "y": LABELS}, do_compression=True)
    read_dataset(folder / "a.mat")
    rows = "\n".join(",".join(map(str, row)) for row in np.column_stack([LABELS, flat]))
    read_dataset(put(folder, "a.csv", (SIXTY_FOUR + rows).encode()))
    read_dataset(put(folder, "b.csv.gz", gzip.compress((SIXTY_FOUR + rows).replace("\n", ".5\n").encode())))
    for ending in ("tif", "gif", "webp", "bmp", "jpg", "j2k"):
        image = io.BytesIO()
        Image.fromarray(PIXELS[0]).save(
            image, {"tif": "TIFF", "jpg": "JPEG", "j2k": "JPEG2000"}.get(ending, ending.upper())
        )
        read_dataset(class_folders(folder / ending, image.getvalue(), f"odd.{ending}"), GREY)


def memory(*, reset: bool = False) -> float:
    """The highest memory of this process, in megabytes; with `reset` from now on, where the system can do that."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main(folder: Path) -> None:
    """Read what is listed in paths.json; print for each the sentence, the seconds and the megabytes above the peak."""
    from committee.data.readers import read_dataset
    from committee.errors import DataError

    warm_up(folder / "harmless")
    warnings.simplefilter("error")
    for name, path in json.loads((folder / "paths.json").read_text()).items():
        before, start = memory(reset=True), time.perf_counter()
        try:
            read_dataset(Path(path), GREY)
            sentence = ""
        except DataError as error:
            sentence = str(error)
        except Exception as error:
            sentence = f"TRACEBACK {error!r}"
        seconds = time.perf_counter() - start
        print(json.dumps([name, sentence, seconds, memory() - before]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
