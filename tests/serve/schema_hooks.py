"""Loaded by schemathesis: some of the texts that it makes become images, so that it comes further than to base64."""

from __future__ import annotations

import base64
import io

import schemathesis
from PIL import Image


def image(seed: int) -> str:
    """An image in base64: of any small size, sometimes cut off, sometimes of the size that the committee takes."""
    size = (8, 8) if seed % 2 else (1 + seed % 40, 1 + seed // 7 % 40)
    content = io.BytesIO()
    mode, form = (("L", "PNG"), ("RGB", "JPEG"), ("RGBA", "PNG"), ("L", "GIF"), ("I;16", "PNG"))[seed % 5]
    Image.new(mode, size, seed % 256 if mode in ("L", "I;16") else (seed % 256,) * len(mode)).save(content, form)
    whole = content.getvalue()
    return base64.b64encode(whole[: len(whole) - (seed % 11 == 0) * 20]).decode()


def fits(each: object, depth: int = 0) -> bool:
    """Whether this is an image for the document: what it refuses must stay what it is."""
    if isinstance(each, list) and depth < 3:
        return all(fits(part, depth + 1) for part in each)
    return (isinstance(each, str) and depth == 0) or (type(each) is int and 0 <= each <= 65535 and depth >= 2)


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: object) -> object:
    """Images in the place of what is one by its type alone, in two bodies of three."""
    if not isinstance(body, dict):
        return body
    seed = sum(map(ord, repr(body)))
    if seed % 3 == 0:
        return body
    if isinstance(body.get("images"), list):
        body["images"] = [image(seed + i) if fits(each) else each for i, each in enumerate(body["images"])]
    for name in ("image", "pixels"):
        if isinstance(body.get(name), str):
            body[name] = image(seed)
    for name in ("label", "answer"):
        if isinstance(body.get(name), str):
            body[name] = str(seed % 10)
    return body
