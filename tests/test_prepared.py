"""What `committee data prepare` wrote is the same data set: same bits, whatever interrupted it; damage is noticed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import committee
from committee.cli import counting
from committee.cli.main import main
from committee.config import recipe_parsing as recipes
from committee.data import shards, to_classify
from committee.data.catalog import load_dataset
from committee.data.check import quick_notes
from committee.data.convert import png
from committee.data.dataset import ImageDataset, open_test
from committee.data.read_options import ReadOptions
from committee.data.row_source import Source
from committee.data.shards import Shards, images_per_shard
from committee.data.summary import describe
from committee.ensemble.committee import in_pieces
from committee.errors import DataError
from committee.folders.run_folder import RunFolder
from committee.nn.images import as_float, on_device, taken
from committee.runs.preparing import prepare, source_of
from committee.training.shared_images import shared

SMALL = 4096  # bytes of a shard: 64 images of 8x8


@pytest.fixture(scope="module")
def prepared(digits: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits in 23 shards of training images and 6 of test images; to be read, not changed."""
    folder = tmp_path_factory.mktemp("prepared") / "digits"
    prepare(digits, folder, shard_bytes=SMALL)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_it_is_the_same_data_set(digits: ImageDataset, prepared: Path, tmp_path: Path) -> None:
    again = load_dataset(prepared)
    assert len(list((prepared / "train").glob("*.pixels"))) == 23
    assert np.array_equal(again.train.pixels, digits.train.pixels)
    assert np.array_equal(again.train.labels, digits.train.labels)
    opened = [open_test(each, tmp_path / "record", "a test").pixels for each in (again, digits)]
    assert np.array_equal(*opened)
    unlike = describe(again).model_dump(exclude={"source"}), describe(digits).model_dump(exclude={"source"})
    assert unlike[0] == unlike[1]
    assert quick_notes(again) == quick_notes(digits)
    assert "test_record" in "".join(path.name for path in prepared.iterdir())  # that they were written is noted


@pytest.mark.parametrize("change", ["files", "one file"])
def test_names_groups_and_notes_are_kept(change: str, digits: ImageDataset, tmp_path: Path) -> None:
    """Of class folders, whose images have files of their own, and of an array of 16 bits, split here."""
    from PIL import Image

    if change == "files":
        source = tmp_path / "photos"
        for i, (pixels, label) in enumerate(zip(digits.train.pixels[:60], digits.train.labels[:60] % 2, strict=True)):
            (source / f"odd,\n{label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[..., 0]).save(source / f"odd,\n{label}" / f"{i % 9}-{i}.png")
        options = ["--groups", r"name:^(\d)-"]
    else:
        source, options = tmp_path / "a.npz", []
        pixels = digits.train.pixels[:60].repeat(3, 3).astype(np.uint16) * np.uint16(201)
        pixels[50] = 7  # blank
        np.savez(source, images=pixels, labels=digits.train.labels[:60] % 2)
    done = CliRunner().invoke(main, ["data", "prepare", str(source), str(tmp_path / "out"), *options])
    assert done.exit_code == 0, done.output
    before = load_dataset(source, groups=options[1] if options else None)
    after = load_dataset(tmp_path / "out")
    assert f"Digest: {before.digest()}" in done.output
    assert after.part_digests() == before.part_digests()
    assert (after.notes, after.class_names, quick_notes(after)) == (
        before.notes,
        before.class_names,
        quick_notes(before),
    )
    assert after.train.groups_digest() == before.train.groups_digest()
    assert before.train.names is not None
    assert after.train.names is not None
    assert [after.train.names[i] for i in range(len(after.train))] == [
        before.train.names[i] for i in range(len(before.train))
    ]


def test_members_are_the_same_bits(digits: ImageDataset, prepared: Path, tmp_path: Path) -> None:
    """Trained in processes on shards, which nothing copies, and in this process on images in memory."""
    recipe = recipes.load("standard", ["training.epochs=1", "committee.members=2", "holdout.folds=2"])
    dataset, digests = load_dataset(prepared), []
    with shared(dataset.train) as (files,):
        assert files is not None
        assert files.labels.parent == prepared / "train"
    for number, (data, workers) in enumerate(((digits, 1), (dataset, 2))):
        committee.train(data, recipe, tmp_path / str(number), committee.Setting(workers=workers))
        digests.append(RunFolder.finished(tmp_path / str(number)).weights_digest())
    assert digests[0] == digests[1]


def test_a_killed_preparation_goes_on(prepared: Path, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from committee.data.catalog import load_dataset
from committee.runs.preparing import prepare, source_of
from committee.training.shared_images import shared
def stop(done, total):
    if done == 9:
        os.kill(os.getpid(), signal.SIGKILL)
prepare(load_dataset("digits"), sys.argv[1], shard_bytes=4096, on_shard=stop)
"""
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", code, str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(DataError, match=r"preparing these data was interrupted; give the same .* again"):
        load_dataset(out)
    done = sorted((out / "train").glob("*.pixels"))
    assert len(done) == 9
    done[3].write_bytes(b"x" * SMALL)  # what a power cut may leave
    before = [file.stat().st_mtime_ns for file in done]
    prepare(load_dataset("digits"), out, shard_bytes=SMALL)
    changed = [i for i, file in enumerate(done) if file.stat().st_mtime_ns != before[i]]
    assert changed == [3]
    assert contents(out) == contents(prepared)
    with pytest.raises(DataError, match="prepared already"):
        prepare(load_dataset("digits"), out, shard_bytes=SMALL)


def test_other_data_do_not_mix_with_what_was_begun(digits: ImageDataset, tmp_path: Path) -> None:
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "preparing.json").write_text(json.dumps({"source": "others"}))
    with pytest.raises(DataError, match="other data were being prepared there"):
        prepare(digits, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match=r"a folder that does not exist yet is expected, got one with letter.txt"):
        prepare(digits, tmp_path / "mine")


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("train/00007.pixels", lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], "another content"),
        ("test/00001.pixels", lambda b: b[:-1], "4,095 bytes instead of 4,096"),
        ("train/labels.npy", lambda b: b[:-1] + b"\1", "another content"),
        ("train/00003.pixels", lambda b: None, "none that can be read"),
        ("prepared.json", lambda b: b.replace(b'"bits": 8', b'"bits": 7'), "its digest differs"),
        ("prepared.json", lambda b: b[:-9], "the record of prepared data is expected"),
    ],
    ids=["a bit", "cut off", "a label", "missing", "the record", "half a record"],
)
def test_damage_is_noticed_by_every_command(
    name: str, damage: object, said: str, prepared: Path, tmp_path: Path
) -> None:
    shutil.copytree(prepared, tmp_path / "out")
    file = tmp_path / "out" / name
    content = damage(file.read_bytes())  # type: ignore[operator]
    file.unlink() if content is None else file.write_bytes(content)
    done = CliRunner().invoke(main, ["train", str(tmp_path / "out"), "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert said in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_prepared_data_are_read_as_they_are(prepared: Path) -> None:
    with pytest.raises(DataError, match=r"read as they are, got --image-size; give it to committee data prepare"):
        load_dataset(prepared, image_size=12)


def test_what_is_known_holds_for_the_same_images_alone(digits: ImageDataset, prepared: Path) -> None:
    """Changed labels are not looked up in the files, nor is their digest."""
    from dataclasses import replace

    dataset = load_dataset(prepared)
    assert dataset.train.in_files is not None
    labels = (dataset.train.labels + 1) % 10
    other = replace(dataset, train=replace(dataset.train, labels=labels))
    assert other.train.in_files is None
    expected = replace(digits, train=replace(digits.train, labels=labels))
    assert other.part_digests() == expected.part_digests() != dataset.part_digests()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_images_of_a_random_order_are_read_from_the_right_place(dtype: str, tmp_path: Path) -> None:
    """By themselves, since mapping their surroundings takes longer; whatever shard they are in."""
    whole = np.random.default_rng(0).integers(0, 2**16, (64 * 5 + 9, 8, 8, 1)).astype(dtype)
    for number in range(6):
        (tmp_path / f"{number}.pixels").write_bytes(whole[64 * number : 64 * (number + 1)].tobytes())
    files = tuple(sorted(tmp_path.glob("*.pixels")))
    mapped = Shards(files, whole.shape, dtype).mapped()
    images, order = on_device(mapped, "cpu"), torch.randperm(len(whole))
    assert shards.reader_at(images.data_ptr()) is not None
    assert torch.equal(taken(images, order), images[order])
    assert np.array_equal(as_float(taken(images, order))[:, 0], whole[order.numpy(), :, :, 0].astype(np.float32))
    os.truncate(files[5], 5 * 64)
    with pytest.raises(OSError, match="ends early"):
        taken(images, order)


def test_shards_fill_whole_pages() -> None:
    for side in (7, 8, 27, 28, 95, 96):
        for channels in (1, 3):
            size = side * side * channels
            number = images_per_shard(size)
            assert number * size % 4096 == 0
            assert number * size < 2.2 * shards.SHARD_BYTES


def test_where_files_cannot_be_mapped_side_by_side_they_are_copied(tmp_path: Path) -> None:
    images = np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8, 1)
    for number, rows in enumerate((images[:2], images[2:])):  # no whole pages
        (tmp_path / f"{number}.pixels").write_bytes(rows.tobytes())
    found = Shards((tmp_path / "0.pixels", tmp_path / "1.pixels"), images.shape, "uint8").mapped()
    assert np.array_equal(found, images)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_stays_small_while_images_stream_by(tmp_path: Path) -> None:
    """200 MB of shards, looked at in random order as training does it, and one after the other as prediction does."""
    code = """
import sys
import numpy as np, torch
from pathlib import Path
from committee.data.shards import Shards
from committee.nn.images import as_float, on_device, taken

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

files = tuple(sorted(Path(sys.argv[1]).glob("*.pixels")))
images = on_device(Shards(files, (256 * 1024, 28, 28, 1), "uint8").mapped(), "cpu")
order = torch.from_numpy(np.random.default_rng(0).permutation(len(images))[:40_000])
as_float(images[:64])
before = most = resident()
for chosen in [*order.split(100), *torch.arange(len(images)).split(64)]:
    as_float(taken(images, chosen))
    most = max(most, resident())
print(most - before)
"""
    block = np.random.default_rng(0).integers(0, 256, (65536, 784), np.uint8).tobytes()
    for number in range(4):
        (tmp_path / f"{number:05d}.pixels").write_bytes(block)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True, env={**os.environ}
    )
    assert float(done.stdout) < 150, "MB"  # without giving pages back it is 200 and more


# --- Parquet in, Parquet out ------------------------------------------------------------------------------------------


def write_tables(digits: ImageDataset, folder: Path, kind: str) -> Path:
    """The digits as Parquet: two shards and a test file; or one file, split here; or with parts and groups in it."""
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    folder.mkdir()
    images = [{"bytes": png(pixels)} for pixels in digits.train.pixels[:400]]
    labels = [digits.class_names[label] for label in digits.train.labels[:400]]

    def table(start: int, stop: int, **more: list[str]) -> object:
        return arrow.table({"image": images[start:stop], "label": labels[start:stop], **more})

    if kind == "shards":
        for number, (start, stop) in enumerate(((0, 150), (150, 320))):
            parquet.write_table(table(start, stop), folder / f"train-0000{number}-of-00002.parquet", row_group_size=64)
        parquet.write_table(table(320, 400), folder / "test.parquet")
    elif kind == "one file":
        parquet.write_table(table(0, 400), folder / "data.parquet", row_group_size=100)
    else:
        split = [("train", "validation", "test")[i % 3] for i in range(400)]
        whole = table(0, 400, split=split, writer=[f"w{i % 40}" for i in range(400)])
        parquet.write_table(whole, folder / "data.parquet", row_group_size=100)
    return folder


@pytest.mark.parametrize("kind", ["shards", "one file", "parts and groups"])
def test_parquet_is_read_a_piece_at_a_time(kind: str, digits: ImageDataset, tmp_path: Path) -> None:
    """By processes side by side, to the same data set as at once."""
    source = write_tables(digits, tmp_path / "source", kind)
    options = ReadOptions(groups="writer" if kind == "parts and groups" else None)
    found = source_of(str(source), None, options)
    assert isinstance(found, Source)
    prepare(found, tmp_path / "out", workers=2 if kind == "shards" else 1, shard_bytes=SMALL)
    before, after = load_dataset(source, groups=options.groups), load_dataset(tmp_path / "out")
    assert after.part_digests() == before.part_digests()
    assert after.train.groups_digest() == before.train.groups_digest()
    assert np.array_equal(after.train.pixels, before.train.pixels)
    assert np.array_equal(after.train.labels, before.train.labels)
    assert (after.notes, after.class_names, after.name) == (before.notes, before.class_names, before.name)
    assert before.train.names is not None
    assert after.train.names is not None
    assert [after.train.names[i] for i in range(250)] == [before.train.names[i] for i in range(250)]


def test_pieces_of_files_that_have_changed_are_not_kept(digits: ImageDataset, tmp_path: Path) -> None:
    source, out = write_tables(digits, tmp_path / "source", "one file"), tmp_path / "out"

    def stop(done: int, total: int) -> None:
        raise RuntimeError

    for change in (False, True):
        if change:
            os.utime(source / "data.parquet", ns=(1, 1))
        with pytest.raises(DataError if change else RuntimeError, match="have changed since" if change else None):
            prepare(source_of(str(source), None, ReadOptions()), out, shard_bytes=SMALL, on_shard=stop)


def test_images_of_several_sizes_are_asked_for_one(digits: ImageDataset, tmp_path: Path) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    images = [png(pixels) for pixels in digits.train.pixels[:200]]
    images[190] = png(digits.train.pixels[190, 1:])  # which a piece of all sizes would resize unasked
    table = arrow.table({"image": images, "label": digits.train.labels[:200]})
    parquet.write_table(table, tmp_path / "a.parquet")
    source = source_of(str(tmp_path / "a.parquet"), None, ReadOptions())
    with pytest.raises(DataError, match=r"images of one form are expected.* \(8x8x1, uint8\).* with --image-size and"):
        prepare(source, tmp_path / "other", shard_bytes=SMALL)
    whole = source_of(str(tmp_path / "a.parquet"), None, ReadOptions(image_size=8))
    record = prepare(whole, tmp_path / "eight", shard_bytes=SMALL)
    assert record.digest == load_dataset(tmp_path / "a.parquet", image_size=8).digest()


@pytest.mark.parametrize("source", ["parquet", "prepared", "files"])
def test_predictions_stream_into_parquet(
    source: str, run: RunFolder, digits: ImageDataset, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of a few images give the rows that all at once give, unreadable ones at the end."""
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = {"parquet": write_tables(digits, tmp_path / "source", "shards"), "prepared": prepared}
    given = paths.get(source, tmp_path / "files")
    if source == "files":
        given.mkdir()
        for number in range(30):
            (given / f"{number:02d}.png").write_bytes(png(digits.train.pixels[number]))
        (given / "17.png").write_bytes(b"no image")
        (given / "18.png").write_bytes(png(255 - digits.train.pixels[0].repeat(9, 0)))
    monkeypatch.setattr(to_classify, "AT_ONCE", 7)
    monkeypatch.setattr(counting, "SECONDS_PER_LINE", 1e9)
    answers = [tmp_path / "a.parquet", tmp_path / "a.csv"]
    command = ["predict", str(run.path), str(given), "--coverage", ".9", "--out"]
    ends = [CliRunner().invoke(main, [*command, str(out)]) for out in answers]
    assert [end.exit_code for end in ends] == [3 if source == "files" else 0] * 2, ends[0].output
    assert ends[0].output == ends[1].output
    with answers[1].open(encoding="utf-8", newline="") as file:
        expected = list(csv.DictReader(file))
    found = parquet.read_table(answers[0])
    assert found.column_names == list(expected[0])
    assert parquet.ParquetFile(answers[0]).num_row_groups > 1
    for name in found.column_names:
        cells = ["" if cell is None else str(cell) for cell in found[name].to_pylist()]
        assert cells == [row[name] for row in expected], name
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_a_committee_of_few_members_shares_the_images_out() -> None:
    assert in_pieces(1000, 2) == [slice(0, 512), slice(512, 1000)]
    assert in_pieces(20, 2) == [slice(0, 20)]
    assert in_pieces(129, 1) == [slice(0, 129)]
