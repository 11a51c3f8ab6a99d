"""The page as one HTML file answers from a disk, without a network, as `committee predict` does."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_page import STROKES, draw

from committee.cli.main import main
from committee.data.dataset import ImageDataset
from committee.ensemble.classifier import load
from committee.export import page as pages
from committee.export.web_runtime import WebRuntime, web_runtime
from committee.folders.run_folder import RunFolder
from photographs import STYLES, photograph

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core judges the page")
pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="ONNX Runtime for browsers comes from npm")


@pytest.fixture(scope="module")
def file(written: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "page.html"
    done = CliRunner().invoke(main, ["export", str(written.path), str(out), "--coverage", ".99"])
    assert done.exit_code == 0, done.output
    assert out.stat().st_size < 30e6
    return out


@pytest.fixture(scope="module")
def opened(file: Path, browser: sync_api.Browser) -> Iterator[sync_api.Page]:
    """The page on a phone without a network; what it asks for, or reports on the console, is an error."""
    with browser.new_context(viewport={"width": 390, "height": 900}, has_touch=True, offline=True) as context:
        found, said = context.new_page(), []
        found.on("console", lambda message: said.append(message.text))
        found.on("pageerror", lambda error: said.append(str(error)))
        found.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        found.goto(file.as_uri())
        found.wait_for_selector("#check")
        yield found
        assert said == []


def test_it_checks_itself_and_reads_what_is_drawn(opened: sync_api.Page) -> None:
    assert "64 of 64 images answered as when this page was made" in opened.inner_text("#check")
    for digit in STROKES:
        draw(opened, digit, "touch")
        sync_api.expect(opened.locator("#label")).to_have_text(digit)
        assert opened.locator(".members li").count() == 2
        assert opened.locator(".thumbs.plain li").count() == 6
        opened.locator("#clear").click()


def test_its_answers_are_those_of_predict(
    opened: sync_api.Page, written: RunFolder, digits: ImageDataset, tmp_path: Path
) -> None:
    """Images as they were trained on, and photographs, which JavaScript prepares."""
    exported = tmp_path / "model.onnx"
    data = json.loads(opened.locator("#committee-data").text_content() or "")
    assert data["model"]["image_shape"] == [28, 28, 1]
    rng = np.random.default_rng(0)
    digit = np.asarray(Image.fromarray(digits.train.pixels[2, ..., 0] * 16).resize((28, 28), Image.Resampling.BICUBIC))
    for name in list(STYLES)[:3]:
        Image.open(io.BytesIO(photograph(digit, STYLES[name], rng))).save(tmp_path / f"{name.replace(' ', '-')}.png")
    done = CliRunner().invoke(main, ["export", str(written.path), str(exported), "--coverage", ".99"])
    assert done.exit_code == 0, done.output
    committee = load(exported)
    for path in sorted(tmp_path.glob("*.png")):
        content = list(path.read_bytes())
        answer = opened.evaluate(
            """async (bytes) =>
            window.committeePage.engine.predict(new Blob([new Uint8Array(bytes)]), {details: ["nearest"]})""",
            content,
        )
        images = committee.read_images([path])
        expected = committee.answer(images.pixels)
        assert answer["prepared"]
        assert answer["label"] == committee.class_names[int(expected.probabilities[0].argmax())]
        assert abs(answer["probability"] - expected.probabilities[0].max()) < 1e-3
        assert len(answer["nearest"]) == 6


def test_a_browser_that_answers_otherwise_is_told(file: Path, browser: sync_api.Browser, tmp_path: Path) -> None:
    text = file.read_text()
    start = text.index("[[", text.index('"check"')) + 2
    end = text.index(",", start)
    wrong = tmp_path / "wrong.html"
    wrong.write_text(f"{text[:start]}{(float(text[start:end]) + 0.5) % 1:.7f}{text[end:]}")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(wrong.as_uri())
        page.wait_for_selector("#check")
        assert "Do not rely on this page here" in page.inner_text("#check")
        assert "probabilities up to 0.5000 apart" in page.inner_text("#check")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(opened: sync_api.Page, scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)
    script = (Path(axe.__file__).parent / "axe.min.js").read_text()
    opened.evaluate(script)  # the page's policy lets no other script in
    found = opened.evaluate("() => axe.run()")
    assert [each["id"] for each in found["violations"]] == []


def test_another_package_and_too_large_pages_are_refused(
    written: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.tgz").write_bytes(b"x")
    refused = CliRunner().invoke(
        main, ["export", str(written.path), str(tmp_path / "a.html"), "--runtime", str(tmp_path / "x.tgz")]
    )
    assert "is not npm's package onnxruntime-web@" in refused.output
    monkeypatch.setattr(pages, "LARGEST", 1000)
    refused = CliRunner().invoke(main, ["export", str(written.path), str(tmp_path / "a.html")])
    assert "a page has at most" in refused.output
    assert not (tmp_path / "a.html").exists()
    assert isinstance(web_runtime(), WebRuntime)
