#!/usr/bin/env bash
# TIFF files may keep each colour in a plane of its own (PlanarConfiguration 2). With 16 bits a channel Pillow opens such
# a file as 8-bit RGB and takes the first bytes of each plane for its pixels, one byte a pixel, without an error: the
# picture is wrong, and the bytes of the second half are never read. With 8 bits a channel it reads the same layout rightly.
# Seen with Pillow 13.0.0 (written with tifffile 2026.3.3, numpy 2.4.6), Python 3.11: red is
#   8 bits: [1, 2, 3, 4], as stored      16 bits, stored [257, 514, 771, 1028]: [1, 1, 2, 2]
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

seen = {}
for bits, red in ((8, [1, 2, 3, 4]), (16, [257, 514, 771, 1028])):
    path = f"{sys.argv[1]}/{bits}.tif"
    planes = np.zeros((3, 1, 4), dtype=f"uint{bits}")
    planes[0, 0] = red
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    with Image.open(path) as image:
        seen[bits] = np.asarray(image)[0, :, 0].tolist()
        print(f"{bits} bits, in planes: stored {red}, read {seen[bits]}, mode {image.mode}")
assert seen[8] == [1, 2, 3, 4], "8 bits in planes are read otherwise"
assert seen[16] == [1, 1, 2, 2], "16 bits in planes are read otherwise"
print("as described")
PYTHON
