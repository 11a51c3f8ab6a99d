"""A run folder -> the page as one HTML file: the committee, ONNX Runtime and all that the page shows are inside.

It is opened from a disk, without a server or a network, which its own content-security policy forbids. The scripts are
those of `committee.web`, with engine_local.js in place of engine_server.js. At each start the page asks images again
whose answers were proven when it was made, and says whether this browser gives the same.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from importlib.resources import files

import numpy as np

from committee.config.record import Record
from committee.data.dataset import ImageDataset, Pixels, spread
from committee.data.prepare import Writing
from committee.ensemble.onnx_committee import from_bytes
from committee.errors import CommitteeError
from committee.export.corners import corners
from committee.export.onnx_file import Exported
from committee.export.proof import chosen
from committee.export.web_runtime import WebRuntime
from committee.folders.folder import kind_of
from committee.folders.run_folder import RunFolder
from committee.metrics.familiarity import TAIL, UNFAMILIAR, WORDS, Familiarity
from committee.names import json_text
from committee.web.model_info import ModelInfo, model_info
from committee.web.run_data import RunRecord, run_record

LARGEST = 30 * 10**6  # bytes of the page
CHECKED = 32  # training images that are asked again at each start, and as many corners
TOLERANCE = 1e-3  # of their probabilities, in another runtime
REPLACED = {"engine_server.js": ("planes.js", "ink.js", "prepare.js", "engine_local.js")}
"""What stands in place of scripts of the served page."""

NEAREST_FROM, NEAREST_BYTES = 2000, 4 * 2**20  # training images that the page carries, and their bytes before packing

LICENCE = """ONNX Runtime Web:

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


class Training(Record):
    """Some training images, among which the page looks for the nearest: their labels and positions."""

    count: int
    labels: tuple[int, ...]
    positions: tuple[int, ...]


class Check(Record):
    """Images that are asked again at each start, and the trained committee's probabilities for them."""

    count: int
    probabilities: tuple[tuple[float, ...], ...]
    tolerance: float = TOLERANCE


class PageData(Record):
    """Everything but the binary parts.

    Attributes:
        unfamiliar_below: the `familiar` below which a single image is called unlike the training images.
        tail, words: of `committee.metrics.familiarity`.
    """

    model: ModelInfo
    run: RunRecord | None
    writing: Writing | None
    familiarity: Familiarity | None
    unfamiliar_below: float
    tail: float = TAIL
    words: dict[str, tuple[str, str]] = WORDS
    training: Training
    check: Check


def page(folder: RunFolder, exported: Exported, dataset: ImageDataset, runtime: WebRuntime) -> bytes:
    """The page of an exported run as one HTML file.

    Args:
        folder: of the run, or of a study's model.
        exported: its proven export.
        dataset: its data.
        runtime: ONNX Runtime for browsers.

    Raises:
        CommitteeError: the page would have more than 30 million bytes.
    """
    record, pixels = exported.record, dataset.train.pixels
    asked = np.concatenate([chosen(pixels, CHECKED), corners(record.image_shape, record.pixel_range, CHECKED)])
    committee = from_bytes(exported.content, str(folder))
    answers = committee.answer(asked).probabilities
    carried = min(NEAREST_FROM, max(1, NEAREST_BYTES // pixels[:1].nbytes), len(pixels))
    positions = spread(len(pixels), carried)
    known = record.images.familiarity
    data = PageData(
        model=model_info(folder.path, committee, record.not_sure, corrections=False),
        run=run_record(folder) if kind_of(folder.path) == "run" else None,
        writing=record.images.writing,
        familiarity=known,
        unfamiliar_below=unfamiliar_below(known),
        training=Training(
            count=len(positions),
            labels=tuple(dataset.train.labels[positions].tolist()),
            positions=tuple(positions.tolist()),
        ),
        check=Check(count=len(asked), probabilities=tuple(map(tuple, np.round(answers, 7).tolist()))),
    )
    parts = {
        "model": exported.content,
        "runtime-wasm": runtime.wasm,
        "training-images": as_bytes(pixels[positions]),
        "check-images": as_bytes(asked),
    }
    content = assembled(json_text(data.model_dump(mode="json")), parts, runtime.script)
    if len(content) > LARGEST:
        raise CommitteeError(
            f"a page has at most {LARGEST / 10**6:.0f} MB, and that of {folder} would have {len(content) / 10**6:.0f}, "
            f"{len(exported.content) / 10**6:.0f} of them the committee; give --quantize int8, fewer members, or a "
            "student of committee distil"
        )
    return content


def as_bytes(pixels: Pixels) -> bytes:
    """Pixels in the order of a browser's typed arrays."""
    return np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"))).tobytes()


def unfamiliar_below(known: Familiarity | None) -> float:
    """The first limit below which `Familiarity.unlike` calls a single image so; 0 where there is none."""
    if known is None:
        return 0.0
    return next((limit for limit in UNFAMILIAR if len(known.unlike(np.array([limit * 0.999])))), 0.0)


def assembled(data: str, parts: dict[str, bytes], runtime: str) -> bytes:
    """The page's text: style and scripts in place of their links, the data before them, a policy that names them."""
    html = _web("index.html")
    style = _web("page.css")
    names = re.findall(r'<script src="/page/([\w.]+)"></script>', html)
    scripts = [_web(each) for name in names for each in REPLACED.get(name, (name,))]
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in (runtime, *scripts))
    policy = (
        f"default-src 'none'; script-src {hashes} 'wasm-unsafe-eval'; style-src 'sha256-{_hash(style)}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    blocks = [f'<script type="application/json" id="committee-data">{data.replace("<", chr(92) + "u003c")}</script>']
    blocks += [
        f'<script type="application/octet-stream" id="{name}">{base64.b64encode(gzip.compress(part, mtime=0)).decode()}'
        "</script>"
        for name, part in parts.items()
    ]
    blocks += [f'<script type="module">{runtime}</script>', *(f"<script>{script}</script>" for script in scripts)]
    first, last = html.index("<script src="), html.rindex("</script>") + len("</script>")
    html = html[:first] + "\n".join(blocks) + html[last:]
    html = html.replace('<link rel="stylesheet" href="/page/page.css">', f"<style>{style}</style>")
    head = f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n<!-- {LICENCE} -->'
    return html.replace('<meta charset="utf-8">', head, 1).encode()


def _web(name: str) -> str:
    return files("committee.web").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
