"""What a file holds, by its first bytes and the ending of its name: which files are images, and of which kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from committee.data.formats.files import Files
from committee.errors import counted

IMAGES = "PNG, JPEG, GIF, BMP, WebP, TIFF, PNM, AVIF or JPEG 2000"
"""The kinds of images that are read, in words."""

# fmt: off
IMAGE_ENDINGS = frozenset({
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "gif", "bmp", "dib", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm",
    "avif", "jp2", "j2k", "jpx", "jpc", "heic", "heif",
})
"""Files with these endings are images; what is in them shows when they are decoded."""

OTHER_ENDINGS = frozenset({
    "csv", "tsv", "txt", "json", "jsonl", "ndjson", "xml", "yaml", "yml", "toml", "ini", "cfg", "md", "rst", "html",
    "htm", "log", "tex", "npy", "npz", "parquet", "arrow", "feather", "mat", "h5", "hdf5", "pkl", "pickle", "pt", "pth",
    "onnx", "safetensors", "arff", "libsvm", "sqlite", "db", "zip", "gz", "bz2", "xz", "zst", "7z", "rar", "tar", "tgz",
    "pdf", "doc", "docx", "xls", "xlsx", "ods", "ppt", "pptx", "odt", "svg", "eps", "ps", "py", "ipynb", "sh", "bat",
    "js", "css", "c", "cpp", "h", "m", "r", "jl", "lock", "url", "mp3", "wav", "mp4", "mov", "avi", "mkv", "webm",
})
"""Files with these endings are no images, and are not opened to find out."""
# fmt: on

_MAGIC = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("BMP", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)),
    ("WEBP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("PPM", re.compile(rb"P[1-6]\s+[#\d]")),
    ("AVIF", re.compile(rb".{4}ftypavi[fs]", re.DOTALL)),
    ("JPEG2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51")),
)
"""Pillow's name of each decoder that may be used, and how the files that it is given begin. No other decoder is."""

ANOTHER = "a file of another kind"

_OTHERS = (
    ("a Git LFS pointer, whose image 'git lfs pull' fetches", re.compile(rb"version https://git-lfs")),
    ("a web page", re.compile(rb"\s*<(!doctype|html|head|body)", re.IGNORECASE)),
    ("an SVG drawing", re.compile(rb"\s*<(svg|\?xml)", re.IGNORECASE)),
    (
        "a HEIC photograph, which must be saved as JPEG first",
        re.compile(rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL),
    ),
    ("a PDF", re.compile(rb"%PDF")),
    ("a Photoshop image", re.compile(rb"8BPS")),
    ("an icon", re.compile(rb"\0\0\x01\0")),
    ("a zip", re.compile(rb"PK\x03\x04")),
    ("a gzip file", re.compile(rb"\x1f\x8b")),
    ("a file of zeros", re.compile(rb"\0{32}")),
    ("an empty file", re.compile(rb"\Z")),
)
"""What files that are no images are called in messages, and how they begin."""


@lru_cache(maxsize=256)  # images of one set begin alike
def image_kind(head: bytes) -> str | None:
    """The kind of an image by its first bytes, as Pillow calls its decoder; None for anything that is not read."""
    return next((kind for kind, pattern in _MAGIC if pattern.match(head)), None)


def in_words(head: bytes) -> str:
    """What begins with these bytes, where it is no image that can be read, for messages."""
    return next((words for words, pattern in _OTHERS if pattern.match(head)), ANOTHER)


def names_an_image(text: str) -> bool:
    """Whether text ends like the name of an image file."""
    return "." in text and text[text.rfind(".") + 1 :].lower() in IMAGE_ENDINGS


def image_names(files: Files) -> list[str]:
    """The files that are images: by their endings, or by their first bytes where the ending does not tell."""
    return [
        name
        for name in files.names
        if (ending := name[name.rfind(".") + 1 :].lower()) in IMAGE_ENDINGS
        or (ending not in OTHER_ENDINGS and image_kind(files.head(name)))
    ]


def kinds_of(names: Iterable[str]) -> str:
    """Files counted by their endings, the most common first: "12 .txt files, 3 .pdf files and 2 others"."""
    counts = sorted(Counter(_ending(name) for name in names).items(), key=lambda kind: (-kind[1], not kind[0], kind[0]))
    rest = sum(number for _, number in counts[5:])
    words = [counted(number, f"{ending} file") if ending else _bare(number) for ending, number in counts[:5]]
    return ", ".join(words) + (f" and {counted(rest, 'other')}" if rest else "")


def left_out_note(files: Files, images: Iterable[str]) -> tuple[str, ...]:
    """A note that counts the files which are no images by kind; empty where there are none."""
    others = set(files.names).difference(images)
    return (f"files other than images were left out: {kinds_of(others)}",) if others else ()


def _ending(name: str) -> str:
    """The ending of a file's name, with its dot; "" where it has none."""
    found = re.search(r"[^/](\.[A-Za-z0-9_-]{1,12})$", name)
    return found[1].lower() if found else ""


def _bare(number: int) -> str:
    return f"{counted(number, 'file')} without an ending"
