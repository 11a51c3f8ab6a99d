"""The text of a model card: a finished run's records -> Markdown for people who were not there.

Every name from data goes through `committee.names.markdown`; no place on somebody's machine is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from committee.config.recipe import Recipe
from committee.data.published import Published
from committee.ensemble.export_record import Proof
from committee.folders.bundle import ENDING as BUNDLE
from committee.folders.records import Environment, ImagesRecord, RunData, RunIdentity
from committee.metrics.formatting import duration, interval_text, number, percent, percent_or_nothing
from committee.metrics.results import Results, Scores
from committee.names import markdown
from committee.report import sentences, tables

FEW = 50
"""Images of a class below which the card warns of its figures: 2 errors in 50 have an interval of 12 points."""


@dataclass(frozen=True)
class CardFile:
    """A file beside the card: its name, what it is, its size and SHA-256."""

    name: str
    what: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Card:
    """What a card tells of a run.

    Attributes:
        name: of the model.
        license_id: of the model; None where its owner states none.
        lacking: which members of its recipe the committee lacks and why, as a predicate; "" where it is complete.
        proof: that model.onnx answers as the run does.
        published: the data set, where it is one known by a name.
        weights, contents: digests of the members' weights and of all that the run folder holds.
        files: beside the card.
    """

    name: str
    license_id: str | None
    lacking: str
    published: Published | None
    proof: Proof
    results: Results
    recipe: Recipe
    data: RunData
    images: ImagesRecord
    identity: RunIdentity
    environment: Environment
    weights: str
    contents: str
    files: tuple[CardFile, ...]

    @property
    def finished(self) -> int:
        """The members that answer."""
        return sum(member.status == "finished" for member in self.results.members)


def page(card: Card) -> str:
    """The card below its head."""
    sections = {
        "": opening(card),
        "How to run it": running(card),
        "Images that it takes": images(card),
        "How accurate it is": accuracy(card),
        "Classes": classes(card),
        "How far to trust its probabilities": calibration(card),
        "What it does not do": limits(card),
        "Data it was trained on": data(card),
        "How it was trained": training(card),
        "Files": files(card),
        "Licence and citation": licence(card),
    }
    text = [f"# {markdown(card.name)}"]
    for heading, paragraphs in sections.items():
        if said := [paragraph for paragraph in paragraphs if paragraph]:
            text += [*([f"## {heading}"] if heading else []), *said]
    return "\n\n".join(text).replace("\u00a0", " ") + "\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are numbers, and on the right. Cells are Markdown already."""
    lines = [headings, [":--", *["--:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(name: str, alternative: str) -> str:
    """One of the figures beside the card, in the size of the text."""
    return f'<img src="figures/{name}.png" alt="{alternative}" width="520">'


def form(card: Card) -> str:
    """The images in words: "28 × 28 pixels, grey, 8 bits"."""
    height, width, channels = card.data.shape
    colour = {1: "grey", 2: "grey with alpha", 3: "colour (RGB)", 4: "colour with alpha (RGBA)"}[channels]
    return f"{height} × {width} pixels, {colour}, {card.data.bits} bits"


def opening(card: Card) -> Iterable[str]:
    """What it is, and its figure."""
    found = tables.headline_scores(card.results)
    what = "a deep ensemble of" if card.finished > 1 else "a committee of"
    yield (
        f"Classifies small images ({form(card)}) into {card.data.classes} classes. It is {what} {card.finished} small "
        f"convolutional network{'s' * (card.finished > 1)}, trained from scratch on {number(card.data.train_images)} "
        f"images of {markdown(card.data.name)} by the library committee "
        f"{markdown(card.environment.committee)}."
    )
    if found:
        part, scores = found
        where = "test images that no choice was made on" if part == "test" else "training images, out of fold"
        yield (
            f"**{percent(scores.accuracy)} accuracy** (95 % interval {interval_text(scores.accuracy_interval)}) on "
            f"{number(scores.images)} {where}."
        )
        guessing = sentences.guessing(scores, card.data.class_names)
        yield f"**{guessing.verdict}** {markdown(guessing.why)}" if guessing else ""
    for warning in card.data.warnings:
        yield f"**{markdown(told(card, warning))}**"


def told(card: Card, text: str) -> str:
    """A sentence about the data without the place on a machine where they were."""
    places = {card.data.source, *([card.data.reload.data] if card.data.reload else [])}
    for place in sorted((place for place in places if "/" in place or "\\" in place), key=len, reverse=True):
        text = text.replace(place, card.data.name)
    return text


def running(card: Card) -> Iterable[str]:
    """Commands."""
    yield "It needs no network and no GPU, and of Python only three packages:"
    yield "```\npip install onnxruntime numpy pillow\npython example.py image.png\n```"
    proof = card.proof
    worst = max(proof.training_images.probabilities, proof.corners.probabilities)
    yield (
        "`model.onnx` holds everything: scaling, all members, how they are combined, the temperature. It was compared "
        f"with the trained committee on all {number(proof.training_images.images)} training images and on "
        f"{number(proof.corners.images)} images at the corners of what can be asked: "
        f"{proof.training_images.labels + proof.corners.labels} labels differ, probabilities by at most {worst:.1g} "
        "(`model.proof.json`)."
    )
    if (precision := proof.training_precision) is not None:
        yield (
            f"The figures below were computed in {markdown(card.environment.precision)}, in which the committee was "
            f"trained, and the file computes in float32: of {number(precision.images)} training images "
            f"{number(precision.labels)} get another label by that."
        )
    yield (
        "With the package `committee`, `committee verify model.onnx DATA` repeats the comparison, and `committee "
        "predict model.onnx image.png` prepares photographs as the training images were."
    )


def images(card: Card) -> Iterable[str]:
    """What it wants to be given."""
    height, width, channels = card.data.shape
    kind = "uint8" if card.data.bits == 8 else "uint16"
    yield (
        f"The input `images` is an array (image, {height}, {width}, {channels}) of {kind}, not scaled. The outputs are "
        "`probabilities` (image, class), `label` (image,), the position of the most probable class, `members` "
        "(member, image, class), each member's own probabilities, and `familiar` (image,). An image's answer is the "
        "same whatever images are given with it."
    )
    yield (
        "Images of another size are resized bilinearly with antialiasing (Pillow's `BILINEAR`), colour becomes grey by "
        "luma where the members take grey. `example.py` does this and nothing else."
    )
    if card.images.writing:
        ink = "light on dark" if card.images.writing.light else "dark on light"
        yield (
            f"The training images show writing, {ink}, of one size in one place. A photograph of writing must be made "
            "like them first, or the answer means nothing: `committee predict` does so, and says so."
        )
    if card.images.familiarity:
        yield (
            "`familiar` is the share of the training images that were at least as unusual (out of fold). It is spread "
            "evenly from 0 to 1 for images of their kind and near 0 for others: distrust an answer below 0.01."
        )


def accuracy(card: Card) -> Iterable[str]:
    """Figures with n, interval and protocol."""
    results = card.results
    parts = {"test images": results.test, "training images, out of fold": results.out_of_fold}
    rows = [
        [
            name,
            number(scores.images),
            percent(scores.accuracy),
            interval_text(scores.accuracy_interval),
            number(scores.errors),
            *([percent(scores.balanced.accuracy) if scores.balanced else ""] if is_imbalanced(results) else []),
        ]
        for name, scores in parts.items()
        if scores
    ]
    balanced = ["balanced accuracy"] if is_imbalanced(results) else []
    yield table(("on", "images", "accuracy", "95 % interval", "errors", *balanced), rows) if rows else ""
    alone = [member.test.accuracy for member in results.members if member.test]
    if len(alone) > 1:
        yield (
            f"A member alone is right for {percent(min(alone))} to {percent(max(alone))} of the test images. "
            f"{sentences.gain(results)}"
        )
    yield f"This committee {markdown(card.lacking)}." if card.lacking else ""
    yield "How these figures came about:"
    yield "\n".join(f"- {markdown(sentence)}" for sentence in sentences.protocol(results, card.recipe))


def is_imbalanced(results: Results) -> bool:
    """Whether accuracy hides something on the images of the headline."""
    found = tables.headline_scores(results)
    return bool(found and found[1].is_imbalanced)


def classes(card: Card) -> Iterable[str]:
    """A row for each class, and what is confused with what."""
    found = tables.headline_scores(card.results)
    names = card.data.class_names
    if found is None:
        yield ", ".join(map(markdown, names))
        return
    part, scores = found
    where = "test images" if part == "test" else "out of fold"
    rows = [
        [
            markdown(name),
            str(label),
            number(card.data.counts[name].train),
            number(row.images),
            percent_or_nothing(row.recall),
            interval_text(interval) if (interval := tables.recall_interval(row)) else "",
            percent_or_nothing(row.precision),
        ]
        for label, (name, row) in enumerate(zip(names, scores.classes, strict=True))
    ]
    yield table(("class", "label", "trained on", where, "recognised (recall)", "95 % interval", "precision"), rows)
    yield markdown(sentences.imbalance(scores, names))
    pairs = tables.confused_pairs(scores, names, 8)
    if pairs:
        yield f"The most frequent confusions ({where}):"
        cells = [[markdown(each.true), markdown(each.predicted), number(each.images)] for each in pairs]
        yield table(("true class", "taken for", "images"), cells)
    yield figure("confusion", f"Confusion matrix, {where}: rows are true classes")


def calibration(card: Card) -> Iterable[str]:
    """Probabilities against frequencies."""
    found = tables.headline_scores(card.results)
    if found is None:
        return
    part, scores = found
    where = f"{number(scores.images)} {'test images' if part == 'test' else 'training images, out of fold'}"
    yield (
        f"On {where} the expected calibration error is {percent(scores.calibration_error)} (15 bins; 0 is perfect), "
        f"the log-loss {scores.log_loss:.4f} nats, the Brier score {scores.brier:.4f}."
    )
    if card.results.calibration:
        yield (
            f"The model holds a temperature of {card.results.calibration.temperature:.3f}, fitted to out-of-fold "
            "predictions; the test images played no part in it."
        )
    yield figure("reliability", f"Reliability diagram, {where}: accuracy against confidence")


def limits(card: Card) -> Iterable[str]:
    """What not to use it for."""
    yield "\n".join(f"- {sentence}" for sentence in limit_sentences(card) if sentence)


def limit_sentences(card: Card) -> Iterable[str]:
    """One limit each."""
    data, found = card.data, tables.headline_scores(card.results)
    yield (
        f"It gives one of its {data.classes} classes to every image, also to one of something else; "
        f"{'`familiar` and the' if card.images.familiarity else 'the'} members' disagreement are signs, no proof."
    )
    yield (
        "Its figures hold for images that come about as those of the data set did: another camera, scanner, place or "
        "group of people may give other ones, which nobody has measured."
    )
    yield "It finds nothing in larger pictures, and it does not tell where in an image something is."
    if card.identity.groups:
        yield (
            "The data set says which images belong together (groups), and such images were on one side of every "
            "split: the figures are for groups that it has not seen."
        )
    else:
        yield (
            "All images were taken to be independent. If several show the same person, object or writer, the figures "
            "are too favourable for new ones."
        )
    if found:
        yield few(found[1])
    yield "It was compared with no other model here, and it has been tested by nobody but its maker."
    yield "No decision about a person should rest on it alone."


def few(scores: Scores) -> str:
    """The classes of which there are too few images to tell."""
    small = [row for row in scores.classes if row.images < FEW]
    if not small:
        return ""
    named = ", ".join(f"{markdown(row.name)} ({row.images})" for row in small[:8])
    more = f" and {len(small) - 8} more" if len(small) > 8 else ""
    return (
        f"Of some classes there were fewer than {FEW} images to judge by, so that their figures say "
        f"little: {named}{more}."
    )


def data(card: Card) -> Iterable[str]:
    """What it has seen; no image of it is in this folder."""
    published = card.published
    summary = card.data
    licence = f" Licence of the data: {markdown(published.licence)}." if published and published.licence else ""
    bundled = any(file.name.endswith(BUNDLE) for file in card.files)
    inside = (
        f"Of its images, those that the run's report shows are in `run{BUNDLE}`" if bundled else "No image of it is"
    )
    yield (
        f"{markdown(summary.name)}: {number(summary.train_images)} training images and {number(summary.test_images)} "
        f"test images in {summary.classes} classes.{licence} `croissant.json` describes it for programs. "
        f"{inside}{'' if bundled else ' in this folder'}."
    )
    notes = dict.fromkeys(told(card, note) for note in summary.notes if not note.startswith("licence:"))
    yield "\n".join(f"- {markdown(note)}" for note in notes)
    digests = {
        "all images": summary.digest,
        "training images": summary.train_digest,
        "test images": summary.test_digest,
    }
    yield "SHA-256 of pixels and classes, whatever the order and the file format (`committee data info DATA` shows it):"
    yield table(("of", "SHA-256"), ([name, f"`{digest}`"] for name, digest in digests.items()))


def training(card: Card) -> Iterable[str]:
    """Recipe, seed, machine."""
    environment, results = card.environment, card.results
    yield (
        f"Recipe {markdown(card.recipe.name)}, all of it in `training.toml` (digest `{card.recipe.digest()[:16]}`): "
        f"{card.recipe.committee.members} member{'s' * (card.recipe.committee.members > 1)} of at most "
        f"{card.recipe.training.epochs} epochs, from the seed {card.identity.seed}. Training took "
        f"{duration(results.seconds_training)} on {environment.cores} cores of {markdown(environment.processor)} "
        f"(device {markdown(environment.device)}, {markdown(environment.precision)})."
    )
    yield f"```\ncommittee train DATA --recipe training.toml --seed {card.identity.seed}\n```"
    rows = {
        "committee": environment.committee,
        "torch": environment.torch,
        "numpy": environment.numpy,
        "Python": environment.python,
        "system": environment.system,
        "kernels": str(environment.kernels),
    }
    yield table(("trained with", "version"), ([name, markdown(value)] for name, value in rows.items()))
    yield (
        "The same command on the same kernels and versions gives the same weights, bit for bit. "
        f"SHA-256 over the members' weights: `{card.weights}`; of all that the run folder holds: `{card.contents}`."
    )


def files(card: Card) -> Iterable[str]:
    """What lies beside the card."""
    rows = ([f"`{each.name}`: {each.what}", f"{each.bytes:,}", f"`{each.sha256}`"] for each in card.files)
    yield table(("file", "bytes", "SHA-256"), rows)


def licence(card: Card) -> Iterable[str]:
    """What others may do with it, and whom to name."""
    if card.license_id:
        yield f"The model's licence is {markdown(card.license_id)}."
    else:
        yield "Its owner has stated no licence. Ask before you use it for more than looking."
    if card.recipe.citation:
        yield f"The recipe: {markdown(card.recipe.citation)}"
    published = card.published
    if published and published.citation:
        yield f"The data: {markdown(published.citation)}."
    yield (
        'Deep ensembles: Lakshminarayanan, Pritzel & Blundell 2017, "Simple and scalable predictive uncertainty '
        'estimation using deep ensembles", NeurIPS.'
    )
