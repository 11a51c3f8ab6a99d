"""What `committee data prepare` wrote is the same data set: same bits, whatever interrupted it; damage is noticed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import committee
from committee.cli.main import main
from committee.config import recipe_parsing as recipes
from committee.data import shards
from committee.data.catalog import load_dataset
from committee.data.check import quick_notes
from committee.data.dataset import ImageDataset, open_test
from committee.data.shards import Shards, images_per_shard
from committee.data.summary import describe
from committee.errors import DataError
from committee.folders.run_folder import RunFolder
from committee.runs.preparing import prepare
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
from committee.runs.preparing import prepare
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
from committee.nn.images import as_float, on_device

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

files = tuple(sorted(Path(sys.argv[1]).glob("*.pixels")))
images = on_device(Shards(files, (256 * 1024, 28, 28, 1), "uint8").mapped(), "cpu")
order = torch.from_numpy(np.random.default_rng(0).permutation(len(images))[:40_000])
as_float(images[:64])
before = most = resident()
for chosen in [*order.split(100), *torch.arange(len(images)).split(64)]:
    as_float(images[chosen])
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
