"""The page at `/` in a real browser: it draws, uploads, answers, stores corrections, and can be used by anybody."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from server_process import serving

import committee
from committee.data.dataset import ImageDataset
from committee.folders.run_folder import RunFolder
from committee.report.pictures import displayable
from committee.web.nearest import nearest_of
from photographs import STYLES, photograph

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core judges the page")

STROKES = {
    "3": ((30, 22), (45, 15), (62, 20), (64, 35), (46, 47), (65, 58), (64, 77), (46, 85), (29, 76)),
    "7": ((28, 22), (72, 22), (60, 50), (48, 82)),
}
"""Points in hundredths of the sheet."""


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corrections")


@pytest.fixture(scope="module")
def address(written: RunFolder, corrections: Path) -> Iterator[str]:
    """A server that names several classes where it is not sure."""
    with serving(written.path, "--coverage", ".99", "--corrections", str(corrections)) as server:
        yield f"http://127.0.0.1:{server.port}/"


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


@pytest.fixture(scope="module")
def expected(written: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The digits that are drawn as Python prepares them, (height, width)."""
    folder, found = tmp_path_factory.mktemp("drawn"), {}
    members = committee.load(written.path)
    for digit, points in STROKES.items():
        sheet = Image.new("L", (448, 448), 255)
        line = [(x * 4.48, y * 4.48) for x, y in points]
        ImageDraw.Draw(sheet).line(line, fill=20, width=40, joint="curve")
        sheet.save(folder / f"{digit}.png")
        found[digit] = members.read_images([folder / f"{digit}.png"], "digits").pixels[0, ..., 0]
    return found


def seen(page: sync_api.Page) -> np.ndarray:
    """The pixels that the page shows as what the committee sees, (height, width)."""
    uri = page.get_attribute(".seen img", "src")
    assert uri
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


@pytest.mark.parametrize("by", ["mouse", "touch"])
@pytest.mark.parametrize("digit", ["3", "7"])
def test_what_is_drawn_is_read_with_votes_and_pixels(
    page: sync_api.Page, expected: dict[str, np.ndarray], digit: str, by: str
) -> None:
    draw(page, digit, by)
    sync_api.expect(page.locator("#label")).to_have_text(digit)
    upright = expected[digit]
    for _ in range(50):  # until the last point's answer is there
        if likeness(pixels := seen(page), upright) > 0.85:
            break
        page.wait_for_timeout(100)
    assert likeness(pixels, upright) > 0.85
    assert max(likeness(pixels, turned) for turned in (upright[:, ::-1], upright[::-1])) < 0.75
    assert page.locator(".members li").count() == 2
    assert page.locator(".bars li").first.inner_text().startswith(digit)
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


def test_where_it_is_not_sure_it_names_several_classes(page: sync_api.Page, address: str) -> None:
    """Of the data set's own images, one that the server's sets leave open."""
    pixels = committee.load_dataset("mnist-5k").train.pixels[..., 0]
    for first in range(16):
        images = pixels[first::64]
        asked = page.request.post(f"{address}v1/predict", data={"images": images.tolist(), "prepare": "as-is"})
        sets = [each["set"] for each in asked.json()["answers"]]
        if max(map(len, sets)) > 1:
            break
    index = int(np.argmax([len(each) for each in sets]))
    classes = sets[index]
    content = io.BytesIO()
    Image.fromarray(images[index]).save(content, "PNG")
    page.click("#tab-upload")
    page.set_input_files("#files", {"name": "x.png", "mimeType": "image/png", "buffer": content.getvalue()})
    names = f"{', '.join(classes[:-1])} or {classes[-1]}"
    sync_api.expect(page.locator("#sure")).to_contain_text(f"I am not sure: {names}. ")
    sync_api.expect(page.locator("#sure")).to_contain_text("99\u00a0% of the time")


def test_several_images_keep_their_order_and_wait_for_a_busy_server(browser: sync_api.Browser, address: str) -> None:
    mnist = committee.load_dataset("mnist-5k").train
    files = []
    for digit in (7, 1, 0):
        content = io.BytesIO()
        Image.fromarray(mnist.pixels[np.flatnonzero(mnist.labels == digit)[3], ..., 0]).save(content, "PNG")
        files.append({"name": f"{digit}.png", "mimeType": "image/png", "buffer": content.getvalue()})
    files.insert(1, {"name": "x.png", "mimeType": "image/png", "buffer": b"no image"})
    refused = []

    def busy_once(route: sync_api.Route) -> None:
        if refused:
            return route.continue_()
        refused.append(route)
        return route.fulfill(status=503, headers={"retry-after": "1"}, json={"error": "many wait; ask again"})

    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.click("#tab-upload")
        page.route("**/v1/predict", busy_once)
        page.set_input_files("#files", files)
        sync_api.expect(page.locator("#problem")).to_have_text("Many wait; ask again.")
        sync_api.expect(page.locator("#given li")).to_have_text(["7", "?", "1", "0"])
        sync_api.expect(page.locator("#label")).to_have_text("7")
        sync_api.expect(page.locator("#problem")).to_be_hidden()


SURE = {"label": "3", "set": None, "abstain": False, "unlike": False, "why": "", "probability": 0.55}
SENTENCES: list[tuple[dict[str, object], dict[str, object], str]] = [
    ({}, {}, "I am less than 60\u00a0% certain: it may also be 5."),
    ({}, {"precision": 0.9}, "I am 55.0\u00a0% certain."),
    ({"abstain": True}, {"precision": 0.9}, "I am not sure, and would rather not answer. Where I do answer, I should"),
    ({"set": ["3"]}, {"coverage": 0.95}, "I am 55.0\u00a0% certain."),
    ({"set": ["3", "5", "8"]}, {"coverage": 0.95}, "I am not sure: 3, 5 or 8. "),
    ({"unlike": True, "why": "darker"}, {}, "This does not look like what I know: darker."),
    ({"probability": 0.99999}, {}, "I am more than 99.9\u00a0% certain."),
]
"""What differs from `SURE`, what the model promises, and what is said."""


def test_how_sure_it_is_comes_from_what_was_asked_for(page: sync_api.Page) -> None:
    for answer, promised, sentence in SENTENCES:
        known = {"coverage": None, "precision": None, **promised}
        given = {"probabilities": {"3": 0.55, "5": 0.3, "8": 0.15}, **SURE, **answer}
        said = page.evaluate("([a, m]) => window.committeePage.answerSpoken(a, m)", [given, known])
        assert said.startswith(f"3. {sentence}")


def test_what_is_said_of_members_depends_on_their_figures(page: sync_api.Page) -> None:
    script = """([accuracies, of]) => { const text = window.committeePage.browseShown({
        accuracy: 0.9, interval: [0.8, 0.95], images: 100, of, classes: ["a"], confusion: [[100]], errors: [],
        samples: [], facts: {}, members: accuracies.map((accuracy) => ({accuracy}))}).map((e) => e.textContent);
        return text.join(" "); }"""
    for accuracies, of, sentence in (
        ([0.8, 0.85], "test", "each of the 2 alone was right less often"),
        ([0.8, 0.9, 0.95], "test", "1 of the 3 alone was right less often"),
        ([0.9, 0.95], "test", "none of them alone was right less often"),
        ([0.8, 0.85], "out-of-fold", "compare only roughly"),
    ):
        assert sentence in page.evaluate(script, [accuracies, of])


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
