"""Classifies images with the committee in model.onnx beside this file: python example.py IMAGE [IMAGE ...].

It needs the packages onnxruntime, numpy and pillow.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

MODES = {"I;16": "I", "1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA"}
"""Modes of Pillow whose values are pixels as they are; other images, such as those with a palette, become RGB."""


def read(path: str, shape: tuple[int, int, int], pixel_range: int) -> np.ndarray[Any, Any]:
    """An image in the form that the committee takes: resized and converted, and nothing else.

    A photograph of writing is better given to `committee predict`, which makes it like the training images.

    Args:
        path: of the image.
        shape: height, width and channels (1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha).
        pixel_range: 255, or 65535 for 16 bits.
    """
    height, width, channels = shape
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    wide = image.mode.startswith("I")
    if image.mode not in MODES and not wide:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    values = np.asarray(image).astype(np.float64)
    values = values[..., None] if values.ndim == 2 else values
    colour, alpha = (values[..., :-1], values[..., -1:]) if values.shape[2] in (2, 4) else (values, None)
    if colour.shape[2] == 3 and channels <= 2:
        colour = np.rint(colour @ np.array([0.299, 0.587, 0.114]))[..., None]
    colour = np.broadcast_to(colour, (*colour.shape[:2], 1 if channels <= 2 else 3))
    if channels in (2, 4):
        full = np.full(colour[..., :1].shape, 65535.0 if wide else 255.0)
        colour = np.concatenate([colour, full if alpha is None else alpha], axis=2)
    elif alpha is not None and alpha.min() < (65535 if wide else 255):
        sys.exit(f"{path}: parts of the image are transparent; put it on a background like the training images'")
    resized = [resize(colour[..., channel], (width, height), wide) for channel in range(channels)]
    pixels = np.stack(resized, axis=-1)
    if wide and pixel_range == 255:
        return np.asarray((pixels + 128) // 257, np.uint8)
    return np.asarray(pixels, np.uint8) if pixel_range == 255 else np.asarray(pixels * (1 if wide else 257), np.uint16)


def resize(plane: np.ndarray[Any, Any], size: tuple[int, int], wide: bool) -> np.ndarray[Any, Any]:
    """One channel in another size (width, height): bilinear, with antialiasing."""
    picture = Image.fromarray(plane.astype(np.float32 if wide else np.uint8))
    return np.asarray(np.rint(np.asarray(picture.resize(size, Image.Resampling.BILINEAR))), np.int64)


def main(paths: list[str]) -> None:
    """Print each image's class, its probability and whether it is of the kind that the committee knows."""
    if not paths:
        sys.exit("python example.py IMAGE [IMAGE ...]")
    session = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["committee"])
    images = [read(path, tuple(about["image_shape"]), about["pixel_range"]) for path in paths]
    names = ("probabilities", "familiar")
    probabilities, familiar = session.run(list(names), {"images": np.stack(images)})
    for path, chances, known in zip(paths, probabilities, familiar, strict=True):
        best = int(chances.argmax())
        print(f"{path}: {about['class_names'][best]!a}, probability {chances[best]:.4f}, familiar {known:.3f}")
        if known < 0.01:
            note = (
                "unlike the training images, do not rely on it; committee predict prepares photographs, this does not"
            )
            print(f"{path}: {note}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
