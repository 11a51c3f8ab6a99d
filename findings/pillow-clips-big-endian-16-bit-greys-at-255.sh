#!/usr/bin/env bash
# Pillow opens 16-bit grey files as mode "I;16" or, where the file is big-endian (TIFF of ImageJ and of many microscopes),
# "I;16B", and 32-bit float TIFF as "F". Who brings them to one mode with convert("I;16") gets each value above 255 as 255
# out of the big-endian and the float image, without a warning, since the way there leads over 8 bits; out of mode "I" the
# same conversion keeps the values. The detour convert("I").convert("I;16") is right for all. JPEG 2000, which is lossless
# here, keeps "I;16" as it is and swaps the bytes of "I;16B"; PNG and TIFF keep both.
# Seen with Pillow 13.0.0 (written with tifffile 2026.3.3), numpy 2.4.6, Python 3.11; stored 0, 100, 300, 40000, each exactly
# as stored when opened; convert("I;16") gives
#   little-endian (I;16): [0, 100, 300, 40000]     big-endian (I;16B): [0, 100, 255, 255]
#   32-bit integers (I):  [0, 100, 300, 40000]     32-bit float (F):   [0, 100, 255, 255]
#   saved as JPEG 2000 and opened: I;16 [0, 100, 300, 40000], I;16B [0, 25600, 11265, 16540]
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np
import tifffile
from PIL import Image

stored = [0, 100, 300, 40000]
clipped = [0, 100, 255, 255]
for mode, dtype, order, expected in (
    ("I;16", "uint16", "<", stored),
    ("I;16B", "uint16", ">", clipped),
    ("I", "int32", "<", stored),
    ("F", "float32", "<", clipped),
):
    path = f"{sys.argv[1]}/image.tif"
    tifffile.imwrite(path, np.array([stored] * 8, dtype=dtype), byteorder=order, photometric="minisblack")
    with Image.open(path) as image:
        assert image.mode == mode and np.asarray(image)[0].tolist() == stored
        seen = np.asarray(image.convert("I;16"))[0].tolist()
        detour = np.asarray(image.convert("I").convert("I;16"))[0].tolist()
    print(f"{mode}: stored {stored}, convert('I;16') {seen}, by way of 'I' {detour}")
    assert seen == expected and detour == stored, "otherwise than described"
    for name in ("a.png", "a.tif", "a.jp2"):
        if not mode.startswith("I;16"):
            continue
        with Image.open(path) as image:
            image.save(f"{sys.argv[1]}/{name}")
        with Image.open(f"{sys.argv[1]}/{name}") as image:
            again = np.asarray(image)[0].tolist()
        print(f"{mode}, saved as {name} and opened again: {again}")
        swapped = mode == "I;16B" and name == "a.jp2"
        expected = np.array(stored, dtype="uint16").byteswap().tolist() if swapped else stored
        assert again == expected, "otherwise than described"
print("as described")
PYTHON
