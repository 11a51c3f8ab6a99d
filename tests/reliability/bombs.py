"""Bombs: small files that announce, or unpack to, far more than they are, and what is said about each.

Run as a program it reads those that paths.json lists, one after the other, and prints what each cost.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import resource
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from writers import (
    LABELS,
    MEGA,
    PIXELS,
    chained_listing,
    chunk,
    claimed_buffer,
    class_folders,
    deflated,
    gif,
    gz,
    idx,
    idx_folder,
    jpeg_2000,
    long_lists,
    long_value,
    looped,
    many_classes,
    matlab,
    npy,
    packed,
    png,
    put,
    repacked,
    repeated_value,
    shared_tags,
    sparse,
    stored,
    table,
    text_lines,
    wide_png,
    with_end,
    zip64,
    zipped,
)

from committee.data.read_options import ReadOptions

GREY = ReadOptions(channels="grey")
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
        lambda p: with_end(sparse(p, "a.zip", b"PK\x03\x04", 470_000_000), 470_000_000 - 4, 4),
        "at most 2,000,000 files in a zip are read, got 9,99",
    ),
    "zip of 10 million names, in its 64-bit record": (
        lambda p: put(p, "a.zip", zip64(10**7)),
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
