"""`committee card`: a run as a folder that others can use, as the Hugging Face hub expects one.

The card is written last: a folder with a README.md is complete.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from committee import disk
from committee.data.croissant import croissant
from committee.data.dataset import ImageDataset
from committee.data.published import PUBLISHED, Published
from committee.ensemble.export_record import Proof
from committee.errors import RunError
from committee.export.card_metadata import front_matter
from committee.export.card_page import Card, CardFile, page
from committee.export.onnx_file import export
from committee.folders.bundle import write_bundle
from committee.folders.run_folder import RunFolder
from committee.metrics.results import Results
from committee.names import unicode_text
from committee.report import plots, tables
from committee.report.style import as_png

CARD = "README.md"
WRITTEN = {
    "model.onnx": "the committee: 8- or 16-bit images in, probabilities out",
    "model.proof.json": "the proof that it answers as the trained committee does, and what repeats it",
    "example.py": "classifies images with it",
    "training.toml": "how it was trained",
    "croissant.json": "what it was trained on, for programs",
    "run.committee": "the run itself, to go on from: weights, histories, figures and some training images",
    "figures/confusion.png": "which classes it confuses",
    "figures/reliability.png": "how often it is right when it is so sure",
}
"""The files beside the card, and what each is."""


def write_card(
    source: RunFolder,
    dataset: ImageDataset,
    folder: Path,
    *,
    license_id: str | None = None,
    with_bundle: bool = False,
) -> list[Path]:
    """Write a finished run's card with all that belongs to it.

    Args:
        source: the finished run.
        dataset: what it was trained on; the export is proven on its training images.
        folder: where to: a new or empty folder, or one that holds a card, whose files are replaced. Hidden files,
            such as those of Git, may be there.
        license_id: of the model, as the hub spells it; None states none.
        with_bundle: whether the run itself goes in, too, with the few training images that its report shows.

    Returns:
        What was written, the card last.

    Raises:
        RunError: the folder holds other files, or the export does not answer as the run does.
        StorageError: a file cannot be written.
        MissingExtraError: what exports is not installed.
    """
    check_free(folder)
    model = export(source, dataset)
    disk.make_folder(folder / "figures")
    disk.remove(folder / CARD)
    model.write(folder / "model.onnx")
    contents = {
        "example.py": resources.files("committee.export").joinpath("example.py").read_bytes(),
        "training.toml": source.recipe.to_toml().encode(),
        "croissant.json": croissant(source.data, published=published(source)).encode(),
        **figures(source.results, source.data.class_names),
    }
    for name, content in contents.items():
        disk.write(folder / name, content)
    if with_bundle:
        write_bundle(source, folder / "run.committee")
    else:
        disk.remove(folder / "run.committee")
    disk.write(folder / CARD, card_text(source, model.proof, folder, license_id).encode())
    return [*(folder / name for name in WRITTEN if (folder / name).exists()), folder / CARD]


def check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but a card and hidden files.

    Raises:
        RunError: it does.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunError(f"{folder} is a file; give the name of a folder for the card")
    there = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    names = [path.as_posix() for path in there if not any(part.startswith(".") for part in path.parts)]
    foreign = sorted(set(names) - {*WRITTEN, CARD})
    if not foreign and CARD in names and "model.onnx" not in names:
        foreign = [CARD]  # of something else
    if foreign:
        raise RunError(
            f"{folder} holds {foreign[0]}{' and other files' * (len(foreign) > 1)} that no card wrote; give a new or "
            "an empty folder"
        )


def figures(results: Results, class_names: tuple[str, ...]) -> dict[str, bytes]:
    """The figures as PNG files, by name; none where no images are left to judge by."""
    found = tables.headline_scores(results)
    if found is None:
        return {}
    _, scores = found
    return {
        "figures/confusion.png": as_png(plots.confusion(scores.confusion, class_names)),
        "figures/reliability.png": as_png(plots.reliability(tables.reliability_rows(scores))),
    }


def card_text(source: RunFolder, proof: Proof, folder: Path, license_id: str | None) -> str:
    """The card: its head and its page."""
    name = unicode_text(f"{source.data.name}-{source.recipe.name}")
    files = [_described(folder, name) for name in WRITTEN if (folder / name).exists()]
    card = Card(
        name=name,
        license_id=license_id,
        lacking=source.manifest.lacking.partition(";")[0],  # what follows is for its maker
        published=published(source),
        proof=proof,
        results=source.results,
        recipe=source.recipe,
        data=source.data,
        images=source.images,
        identity=source.identity,
        environment=source.environment,
        weights=source.weights_digest(),
        contents=source.contents_digest(),
        files=tuple(files),
    )
    return front_matter(name, source.data, source.results, license_id) + page(card)


def published(source: RunFolder) -> Published | None:
    """The data set of a run, where it was given by a name; a folder that is called so is not it."""
    reload = source.data.reload
    return PUBLISHED.get(reload.data) if reload else None


def _described(folder: Path, name: str) -> CardFile:
    with (folder / name).open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return CardFile(name, WRITTEN[name], (folder / name).stat().st_size, sha256)
