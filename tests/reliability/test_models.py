"""A model is data: whatever a run folder or a bundle holds, it is used as it was written or refused in a sentence."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import committee
from committee.cli.main import main
from committee.config import recipe_parsing
from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset
from committee.errors import RunError
from committee.folders.bundle import checked_members, zipped
from committee.folders.run_folder import RunFolder
from committee.training.plan import plan_training
from committee.training.setting import Setting
from committee.training.shared_images import shared

sys.path.insert(0, str(Path(__file__).parent))
from hostile import HOSTILE, sign
from scale import cases, record_figure

SECONDS, MEMORY = 2.0, 256 * 1024  # that a refusal may take; KiB


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    changes = ["training.epochs=1", "committee.members=2", "holdout.folds=2", "network.widths=[8,8,8]"]
    return recipe_parsing.load("standard", changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset, recipe: Recipe) -> Path:
    """A small real run, without what is only looked at."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    committee.train(digits, recipe, folder, Setting(workers=1))
    shorten(folder)
    sign(folder)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> Path:
    """A very small real run: one layer, three classes; its long tables are shortened."""
    above = tmp_path_factory.mktemp("few")
    three = np.flatnonzero(digits.train.labels < 3)[:120]
    np.savez(above / "few.npz", images=digits.train.pixels[three], labels=digits.train.labels[three])
    changes = ['network.layers=[{type="flatten"},{type="dense",units="classes"}]', "training.epochs=1"]
    small = recipe_parsing.load("standard", [*changes, "committee.members=1", "holdout.folds=2"])
    committee.train(committee.load_dataset(str(above / "few.npz")), small, above / "run", Setting(workers=1))
    shorten(above / "run")
    results = json.loads((above / "run" / "results.json").read_text())
    for gallery in results["galleries"]:
        del gallery["pictures"][2:]
    (above / "run" / "results.json").write_text(json.dumps(results))
    images = (above / "run" / "images.json").read_text()
    seldom = re.sub(
        r'"quantiles": \[(.*?)\]', lambda found: f'"quantiles": [{found[1].split(",")[0]}, 9]', images, flags=re.S
    )
    (above / "run" / "images.json").write_text(seldom)
    sign(above / "run")
    return above / "run"


def shorten(run: Path) -> None:
    """Leave out what is only looked at."""
    for name in ("figures", "tables"):
        shutil.rmtree(run / name)
    (run / "report.html").unlink()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "some.npy"
    np.save(path, digits.train.pixels[:2])
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_run_is_refused_in_a_sentence_by_every_command(
    name: str, run: Path, pictures: Path, digits: ImageDataset, recipe: Recipe, tmp_path: Path
) -> None:
    hostile = shutil.copytree(run, tmp_path / "hostile")
    mutate, words = HOSTILE[name]
    mutate(hostile)
    commands = {
        "predict": [hostile, pictures],
        "compare": [hostile, run],
        "verify": [hostile],
        "report": [hostile],
        "evaluate": [hostile],
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for command, arguments in commands.items():
        began = time.monotonic()
        result = CliRunner().invoke(main, [command, *map(str, arguments)])
        assert (result.exit_code, type(result.exception)) == (2, SystemExit), (command, result.output, result.exception)
        assert words in result.stderr, (command, result.stderr)
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert len(result.stderr) < 1200
        assert time.monotonic() - began < SECONDS, command
    with pytest.raises(RunError):
        committee.train(digits, recipe, tmp_path / "new", Setting(workers=1), continued=hostile)
    with pytest.raises(RunError):
        committee.train(digits, recipe, hostile, Setting(workers=1))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY
    assert not (tmp_path / "new").exists()


def test_the_run_itself_is_used_by_every_command(run: Path, pictures: Path) -> None:
    for command in (["predict", run, pictures], ["compare", run, run], ["verify", run], ["evaluate", run]):
        result = CliRunner().invoke(main, [str(word) for word in command])
        assert result.exit_code == 0, result.output


# --- bundles ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "digits.committee"
    assert call("bundle", run, path).exit_code == 0
    return path


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_a_bundle_is_the_run_in_one_file_with_the_same_bytes_each_time(
    run: Path, bundle: Path, pictures: Path, digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = shutil.copytree(run, tmp_path / "other" / "digits")
    for path in elsewhere.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1e9, 1e9))
    monkeypatch.chdir(tmp_path)
    assert call("bundle", elsewhere).exit_code == 0
    assert (tmp_path / "digits.committee").read_bytes() == bundle.read_bytes()
    assert call("bundle", bundle, "again.committee").exit_code == 0
    assert (tmp_path / "again.committee").read_bytes() == bundle.read_bytes()

    with zipfile.ZipFile(bundle) as members:  # what any other tool sees
        assert members.testzip() is None
        members.extractall(tmp_path / "unzipped")
    assert call("predict", bundle, pictures).stdout == call("predict", run, pictures).stdout
    assert call("predict", tmp_path / "unzipped", pictures).stdout == call("predict", run, pictures).stdout
    assert json.loads(call("compare", bundle, run, "--json").stdout)["accuracy_difference"] == 0
    assert call("verify", bundle).stdout.splitlines()[1] == call("verify", run).stdout.splitlines()[1]
    some = digits.train.pixels[:5]
    assert (committee.load(bundle).predict_proba(some) == committee.load(run).predict_proba(some)).all()
    for command in ("report", "evaluate"):
        result = call(command, bundle)
        assert result.exit_code == 2
        assert "is a bundle, and nothing is written into it; unpack it (unzip" in result.stderr


def test_a_run_goes_on_from_a_bundle_as_from_its_folder(
    run: Path, bundle: Path, digits: ImageDataset, recipe: Recipe
) -> None:
    plans = [
        plan_training(digits, recipe, Setting(workers=1), continued=RunFolder.finished(each)) for each in (run, bundle)
    ]
    assert plans[0].identity == plans[1].identity
    with shared(digits.train, None) as (images, _):
        jobs = [plan.jobs(images, None, None) for plan in plans]
    starts = [[(job.start.read_bytes(), job.first_epoch) for job in each if job.start] for each in jobs]
    assert len(starts[0]) == 2
    assert starts[0] == starts[1]


def test_what_is_unpacked_goes_with_the_process(bundle: Path, tmp_path: Path) -> None:
    code = f"import committee; committee.load({str(bundle)!r})"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_byte_of_a_bundle_is_refused(few: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "few.committee"
    assert call("bundle", few, bundle).exit_code == 0
    content = bundle.read_bytes()
    refused, began = 0, time.monotonic()
    for at in range(0, len(content), cases(ci=17, soak=1)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(RunError):
            checked_members(io.BytesIO(flipped), len(flipped), bundle)
        refused += 1
    record_figure("flipped bytes of a bundle", f"{refused:,} refused in {time.monotonic() - began:.0f} s")


def joined(*members: tuple[str, bytes], **changes: int) -> bytes:
    """A zip of Python's own writer, which is free to do what ours does not."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as target, warnings.catch_warnings(action="ignore"):
        for name, each in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100644 << 16
            for field, value in changes.items():
                setattr(info, field, value)
            target.writestr(info, each)
    return content.getvalue()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: joined(*c), "a stored, plain file is expected"),  # not as ours writes it
        (lambda c: joined(*c, compress_type=zipfile.ZIP_DEFLATED), "a stored, plain file is expected"),
        (lambda c: joined(*c, external_attr=0o120777 << 16), "a stored, plain file is expected"),
        (lambda c: plain([*c, ("zebra", b"")]), "zebra is not listed"),
        (lambda c: plain(c[1:]), "command.txt is not in it"),
        (lambda c: plain([c[0], *c]), "in the order of their names"),
        (lambda c: plain(c[::-1]), "in the order of their names"),
        (lambda c: plain([("../x", b""), *c]), "../x is not listed"),
        (lambda c: plain([("/x", b""), *c]), "/x is not listed"),
        (lambda c: plain([("COMMAND.TXT", b""), *c]), "COMMAND.TXT is not listed"),
        (lambda c: plain([(name, each + b" " * (name == "command.txt")) for name, each in c]), "command.txt has"),
        (lambda c: b"#!/bin/sh\n" + plain(c), "in the order of their names"),
        (lambda c: plain(c) + b"\0", "its end is not the directory"),
        (lambda c: plain(c)[:-1], "its end is not the directory"),
        (lambda c: plain(c)[: len(plain(c)) // 2], "a stored, plain file is expected"),
        (lambda c: b"", "in the order of their names"),
    ],
)
def test_a_zip_that_is_no_bundle_is_refused(
    change: Callable[[list[tuple[str, bytes]]], bytes], words: str, few: Path, tmp_path: Path
) -> None:
    files = (path for path in few.rglob("*") if path.is_file() and not path.name.startswith("."))
    contents = sorted((path.relative_to(few).as_posix(), path.read_bytes()) for path in files)
    path = tmp_path / "no.committee"
    path.write_bytes(change(contents))
    result = call("verify", path)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def plain(members: list[tuple[str, bytes]]) -> bytes:
    """A zip of these members as ours writes it, whatever they are."""
    return zipped(members)


def test_a_signature_is_of_these_bytes_and_this_key(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("model_signing.signing")
    own = Path(shutil.copy(bundle, tmp_path / "own.committee"))
    keys = [new_key(tmp_path / f"{name}.pem") for name in ("mine", "other")]
    assert call("bundle", own, own, "--sign", keys[0][0]).exit_code == 0
    assert "Signed with the key" in call("verify", own, "--key", keys[0][1]).stdout
    assert "own.committee.sig is not checked; --key PUBLIC" in call("verify", own).stderr
    signature = tmp_path / "own.committee.sig"
    content, signed = own.read_bytes(), signature.read_bytes()
    changed = re.sub(r'("payload": *"....)', r"\1AAAA", signed.decode())
    assert changed.encode() != signed
    for key, path, written, words in (
        (keys[1][1], own, content, f"own.committee was signed with another key than {keys[1][1]}; ask"),
        (keys[0][0], own, content, "mine.pem is no public key in PEM"),
        (keys[0][1], own, content + b"\0", "own.committee was changed after it was signed; ask"),
        (keys[0][1], signature, signed[: len(signed) // 2], "own.committee.sig is damaged or no signature; ask"),
        (keys[0][1], signature, b"{}", "own.committee.sig is damaged or no signature; ask"),
        (keys[0][1], signature, changed.encode(), "own.committee.sig is damaged"),
    ):
        before = path.read_bytes()
        path.write_bytes(written)
        result = call("verify", own, "--key", key)
        path.write_bytes(before)
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_bundle_that_cannot_be_signed_is_not_written_and_an_old_signature_does_not_stay(
    bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("model_signing.signing")
    own, signature = tmp_path / "own.committee", tmp_path / "own.committee.sig"
    private, public = new_key(tmp_path / "mine.pem")
    for key in (public, bundle):
        result = call("bundle", bundle, own, "--sign", key)
        assert result.exit_code == 2
        assert "is no private key in PEM" in result.stderr
        assert not own.exists()
    assert call("bundle", bundle, own, "--sign", private).exit_code == 0
    result = call("bundle", bundle, own)
    assert result.exit_code == 0
    assert "own.committee.sig was the signature of an earlier file and is removed" in result.stderr
    assert not signature.exists()
    assert f"is not signed: there is no {signature} beside it" in call("verify", own, "--key", public).stderr


def new_key(path: Path) -> tuple[Path, Path]:
    """A private key and its public one."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.TraditionalOpenSSL, form.NoEncryption())
    path.write_bytes(private)
    public = path.with_suffix(".public.pem")
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return path, public


def test_without_the_extra_its_installation_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    monkeypatch.delitem(sys.modules, "model_signing.signing", raising=False)
    result = call("bundle", bundle, bundle, "--sign", Path(__file__))
    assert result.exit_code == 2
    assert "pip install 'committee[signing]'" in result.stderr


# --- mutants ----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(6 * 3600)
def test_no_mutant_of_a_model_runs_code(few: Path) -> None:
    count, cores = cases(ci=2_000, soak=1_000_000), cases(ci=1, soak=2)
    each, began = count // cores, time.monotonic()
    script = Path(__file__).with_name("mutants.py")
    started = [
        subprocess.Popen(
            [sys.executable, script, few, str(first), str(each)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for first in range(0, count, each)
    ]
    for process in started:
        said, _ = process.communicate()
        assert process.returncode == 0, said[-3000:]
        record_figure("mutants of a model", f"{said.strip()}; {time.monotonic() - began:.0f} s")


def test_answers_that_are_no_finite_numbers_are_refused(few: Path) -> None:
    members = committee.load(few, device="cpu")
    pixels = np.arange(2 * 64).reshape(2, 8, 8, 1).astype(np.uint8)
    assert np.isfinite(members.predict_proba(pixels)).all()
    for tensor in members.networks[0].parameters():
        tensor.data.fill_(3e38)  # finite each, as with a flipped bit of an exponent
    with pytest.raises(RunError, match="place 0 are expected to be finite numbers and are not"):
        replace(members).predict_proba(pixels)  # whose functions prepare these weights


def test_the_canary_hears_what_it_should() -> None:
    code = """
import os, sys
from pathlib import Path
from mutants import Canary
canary = Canary(Path("/nowhere"))
canary.on = True
exec("1")
open(os.devnull, "w").close()
import wave
os.system("true")
open(os.devnull).close()
canary.on = False
print(*{each.split()[0] for each in canary.seen})
"""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    said = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, check=True).stdout
    assert {"compile", "exec", "import", "open", "os.system"} <= set(said.split())
