#!/usr/bin/env bash
# A grey PNG without an alpha channel may name one grey that is transparent (chunk tRNS; optimisers of PNG files write it for
# drawings on a transparent ground). Pillow stretches the pixels of 2 and 4 bits to 0..255 and leaves that grey as it is,
# so that no pixel has it: convert("RGBA") gives an opaque white ground where the file has a transparent one, and saving the
# opened file loses it for good. With 16 bits it clips all pixels at 255 before it compares, so that with a transparent
# white all of the picture above 255 of 65535 becomes transparent (and white). 1 and 8 bits are read rightly.
# Seen with Pillow 13.0.0 (witness: pypng 0.20220715.0), numpy 2.4.6, Python 3.11; alpha of black, white, middle grey, white:
#   8 bits: [255, 0, 255, 0], as in the file      2, 4 bits: [255, 255, 255, 255]      16 bits: [255, 0, 0, 0]
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 pypng==0.20220715.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import png
from PIL import Image

alphas = {1: [255, 0, 0, 0], 2: [255] * 4, 4: [255] * 4, 8: [255, 0, 255, 0], 16: [255, 0, 0, 0]}
for bits, expected in alphas.items():
    white = 2**bits - 1
    levels = [0, white, white // 2 if bits > 1 else white, white]
    file = io.BytesIO()
    png.Writer(4, 1, greyscale=True, bitdepth=bits, transparent=white).write(file, [levels])
    _, _, rows, _ = png.Reader(bytes=file.getvalue()).asRGBA()
    alpha_stored = [255 if value else 0 for value in list(rows)[0][3::4]]
    with Image.open(file) as image:
        alpha = np.asarray(image.convert("RGBA"))[0, :, 3].tolist()
        saved = io.BytesIO()
        image.save(saved, "PNG")
    with Image.open(saved) as image:
        again = np.asarray(image.convert("RGBA"))[0, :, 3].tolist()
    print(f"{bits} bits, grey {levels}: alpha in the file {alpha_stored}, by Pillow {alpha}, after saving it {again}")
    assert alpha_stored == [0 if level == white else 255 for level in levels]
    assert alpha == again == expected, "otherwise than described"
    assert (alpha == alpha_stored) == (bits in (1, 8)), "otherwise than described"
print("as described")
PYTHON
