"""The page at `/` in a real browser: it draws, uploads, answers, stores corrections, and can be used by anybody."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from server_process import serving

import committee
from committee.data.dataset import ImageDataset
from committee.report.pictures import displayable
from committee.web.nearest import nearest_of
from photographs import STYLES, photograph

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core judges the page")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

STROKES = {
    "3": ((30, 22), (45, 15), (62, 20), (64, 35), (46, 47), (65, 58), (64, 77), (46, 85), (29, 76)),
    "7": ((28, 22), (72, 22), (60, 50), (48, 82)),
}
"""Points in hundredths of the sheet."""


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corrections")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, corrections: Path) -> Iterator[str]:
    """A server of two members that learnt MNIST's 4,000 images for a few seconds."""
    path = tmp_path_factory.mktemp("page") / "run"
    command = "train mnist-5k --members 2 --epochs 3 --set holdout.folds=2 --workers 2 --out"
    subprocess.run([sys.executable, "-m", "committee", *command.split(), str(path)], check=True, capture_output=True)
    with serving(path, "--corrections", str(corrections)) as server:
        yield f"http://127.0.0.1:{server.port}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: sync_api.Browser, address: str) -> Iterator[sync_api.Page]:
    """The page on a phone; whatever it reports on the console is an error."""
    with browser.new_context(viewport={"width": 390, "height": 900}, has_touch=True) as context:
        found, said = context.new_page(), []
        found.on("console", lambda message: said.append(message.text))
        found.on("pageerror", lambda error: said.append(str(error)))
        found.goto(address)
        found.wait_for_selector("#main:not([hidden])")
        yield found
        assert said == []


def draw(page: sync_api.Page, digit: str, by: str) -> None:
    """Real strokes with the mouse, or with a finger through the browser's own touch events."""
    box = page.locator("#sheet").bounding_box()
    assert box
    points = [(box["x"] + x / 100 * box["width"], box["y"] + y / 100 * box["height"]) for x, y in STROKES[digit]]
    if by == "mouse":
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=6)
        page.mouse.up()
        return
    session = page.context.new_cdp_session(page)
    for i, (x, y) in enumerate(points):
        kind = "touchMove" if i else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.parametrize("by", ["mouse", "touch"])
@pytest.mark.parametrize("digit", ["3", "7"])
def test_what_is_drawn_is_read_with_votes_and_pixels(page: sync_api.Page, digit: str, by: str) -> None:
    draw(page, digit, by)
    sync_api.expect(page.locator("#label")).to_have_text(digit)
    assert page.locator(".members li").count() == 2
    assert page.locator(".bars li").first.inner_text().startswith(digit)
    assert page.evaluate("document.querySelector('.seen img').naturalWidth") == 28
    assert page.locator(".thumbs.plain li").count() == 6
    page.keyboard.press("Control+z")
    sync_api.expect(page.locator("#said")).to_be_hidden()


def test_the_keyboard_alone_draws_and_reaches_every_tab(page: sync_api.Page) -> None:
    page.locator("#sheet").focus()
    for key in ["Shift+ArrowLeft"] + ["ArrowUp"] * 6 + [" "] + ["ArrowDown"] * 12 + [" "]:
        page.keyboard.press(key)
    sync_api.expect(page.locator("#label")).to_have_text("1")
    page.keyboard.press("Delete")
    sync_api.expect(page.locator("#said")).to_be_hidden()
    page.locator("#tab-draw").focus()
    page.keyboard.press("ArrowLeft")
    sync_api.expect(page.locator("#panel-browse")).to_be_visible()


def test_a_photograph_is_read_and_its_correction_is_stored(page: sync_api.Page, corrections: Path) -> None:
    mnist = committee.load_dataset("mnist-5k").train
    seven = mnist.pixels[np.flatnonzero(mnist.labels == 7)[3], ..., 0]
    content = photograph(seven, STYLES["plain"], np.random.default_rng(0))
    page.click("#tab-upload")
    page.set_input_files("#files", {"name": "mine.jpg", "mimeType": "image/jpeg", "buffer": content})
    sync_api.expect(page.locator("#label")).to_have_text("7")
    sync_api.expect(page.locator(".seen figcaption")).to_contain_text("Found on your picture")
    page.select_option("#really", "1")
    page.click("#store")
    sync_api.expect(page.locator(".correct [role=status]")).to_contain_text("Stored as 1")
    line = json.loads((corrections / "corrections.jsonl").read_text().splitlines()[-1])
    assert (line["label"], line["answer"]) == ("1", "7")
    assert (corrections / "originals" / line["original"]).read_bytes() == content


def test_what_is_no_image_is_said_in_one_sentence(browser: sync_api.Browser, address: str) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.click("#tab-upload")
        page.set_input_files("#files", {"name": "x.png", "mimeType": "image/png", "buffer": b"no image"})
        sync_api.expect(page.locator("#problem")).to_contain_text("x.png")


def test_no_axe_violation_and_no_sideways_scrolling(browser: sync_api.Browser, address: str) -> None:
    for scheme in ("light", "dark"):
        with browser.new_context(viewport={"width": 390, "height": 900}, color_scheme=scheme) as context:
            page = context.new_page()
            page.goto(address)
            page.wait_for_selector("#main:not([hidden])")
            draw(page, "7", "mouse")
            page.wait_for_selector("#label")
            for tab in ("draw", "upload", "browse"):
                page.click(f"#tab-{tab}")
                if tab == "upload":
                    page.locator("#examples button").first.click()
                    page.wait_for_selector("#label")
                found = axe.Axe().run(page).response["violations"]
                assert [each["id"] for each in found] == [], (scheme, tab)
                assert page.evaluate("document.documentElement.scrollWidth") == 390
            if page.locator(".matrix button").count():
                page.locator(".matrix button").first.click()
                sync_api.expect(page.locator("#panel-browse h3").first).to_contain_text("called")


def test_the_nearest_image_is_the_image_itself(digits: ImageDataset) -> None:
    train = digits.train
    found = nearest_of(train.pixels, train.labels, digits.class_names)(train.pixels[7])
    assert (found[0].position, found[0].label) == (7, digits.class_names[train.labels[7]])
    few = nearest_of(train.pixels, train.labels, digits.class_names, most_bytes=10_000)(
        displayable(train.pixels[7])[..., :1]
    )
    assert len(few) == 6
