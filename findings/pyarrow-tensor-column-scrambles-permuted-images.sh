#!/usr/bin/env bash
# Arrow's columns of fixed-shape tensors keep the memory of images as it lies, and a permutation beside it, so that a view
# (channels first, of images that lie with channels last; images with height and width exchanged) needs no copy. What
# pyarrow builds of such a view with FixedShapeTensorArray.from_numpy_ndarray comes back otherwise:
# - channels first: the whole column has another shape and other pixels, or, at the usual sizes of images, cannot be read;
# - height and width exchanged: the whole column is right, but a single image, column[i].to_numpy(), has the right shape and
#   pixels of other places (its strides are those of the unpermuted shape), or cannot be read. Squares come back rightly.
# Where it is no error there is no warning. Memory in C order (np.ascontiguousarray first) comes back rightly everywhere.
# Seen with pyarrow 26.0.1 (and, looked at once, 19.0.1), numpy 2.4.6, Python 3.11; images as they lie -> the view:
#   2x4x3 -> 3x2x4:     column of shape 2x4x3x2 (it was 2x3x2x4), image 4x3x2
#   28x28x3 -> 3x28x28: ArrowInvalid: strides must not involve buffer over run, both
#   2x4x3 -> 4x2x3:     column as stored, image: the right shape, half of its pixels wrong
#   28x28x3, exchanged: column and image as stored
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from collections.abc import Callable

import numpy as np
import pyarrow as pa


def verdict(read: Callable[[], np.ndarray], stored: np.ndarray) -> str:
    """What a reading gives, beside what was stored."""
    try:
        seen = read()
    except pa.ArrowInvalid as error:
        return f"ArrowInvalid: {error}"
    if seen.shape != stored.shape:
        return f"shape {'x'.join(map(str, seen.shape))}"
    wrong = (seen != stored).mean()
    return f"{wrong:.0%} of the values wrong" if wrong else "as stored"


channels_first, exchanged = (0, 3, 1, 2), (0, 2, 1, 3)
overrun = "ArrowInvalid: strides must not involve buffer over run"
for height, width, axes, column_expected, image_expected in (
    (2, 4, channels_first, "shape 2x4x3x2", "shape 4x3x2"),
    (28, 28, channels_first, overrun, overrun),
    (2, 4, exchanged, "as stored", "50% of the values wrong"),
    (28, 28, exchanged, "as stored", "as stored"),
):
    images = np.arange(2 * height * width * 3).reshape(2, height, width, 3)
    view = images.transpose(axes)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(view)
    seen = verdict(column.to_numpy_ndarray, view), verdict(column[1].to_numpy, view[1])
    print(f"images {images.shape[1:]}, seen as {view.shape[1:]}: column {seen[0]}; image {seen[1]}")
    assert seen == (column_expected, image_expected), "otherwise than described"
    copied = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(view))
    assert verdict(copied.to_numpy_ndarray, view) == verdict(copied[1].to_numpy, view[1]) == "as stored"
print("as described")
PYTHON
