#!/usr/bin/env bash
# TIFF files may say that 0 is white (PhotometricInterpretation 0, "MinIsWhite"; scanners and X-ray machines write it).
# Pillow turns such files round for 8 bits, so that 0 is black in its arrays, but not for 16 bits: the same grey image
# comes out black on white or white on black, depending on its depth alone, without a warning.
# Seen with Pillow 13.0.0 (written with tifffile 2026.3.3, numpy 2.4.6), Python 3.11:
#   8 bits, 0 is white: [255, 192, 128, 0]      16 bits, 0 is white: [0, 16383, 32767, 65535]
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

stored = {8: [0, 63, 127, 255], 16: [0, 16383, 32767, 65535]}
seen = {}
for bits, values in stored.items():
    path = f"{sys.argv[1]}/{bits}.tif"
    tifffile.imwrite(path, np.array([values], dtype=f"uint{bits}"), photometric="miniswhite")
    with Image.open(path) as image:
        seen[bits] = np.asarray(image)[0].tolist()
    print(f"{bits} bits, 0 is white: stored {values}, read {seen[bits]}")
assert seen[8] == [255 - value for value in stored[8]], "8 bits are no longer turned round"
assert seen[16] == stored[16], "16 bits are turned round now, or read otherwise"
print("as described")
PYTHON
