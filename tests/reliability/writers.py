"""Writers of data sets, and of files that announce, or unpack to, more than they are: byte by byte if need be."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

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
"""A name, the bytes as they are stored, the length in the directory, its checksum, and the method: 8 deflated."""


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


def with_end(path: Path, directory: int, offset: int) -> Path:
    with path.open("ab") as file:
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, directory, offset, 0))
    return path


def zip64(entries: int) -> bytes:
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, entries * 47, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    return record + locator + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
