#!/usr/bin/env bash
# Pillow and big-endian TIFF files (ImageJ, many microscopes and satellites): without compression all depths are read
# rightly, with compression only 8 bits and unsigned 16 bits. Signed 16-bit, 32-bit integer and float pixels come out with
# their bytes swapped, without an error or a warning: libtiff hands them over in the order of the machine, and Pillow turns
# them round once more. tifffile and OpenCV read the same files as they were written.
# Seen with Pillow 13.0.0 (written with tifffile 2026.3.3, imagecodecs 2026.3.6; witness opencv-python-headless 5.0.0.93),
# numpy 2.4.6, Python 3.11; big-endian, stored 1, 2, 300, 1000; zlib, LZW and PackBits alike:
#   uint16:  [1, 2, 300, 1000]           int16: [256, 512, 11265, -6141]
#   int32:   [16777216, 33554432, 738263040, -402456576]
#   float32: [4.6006e-41, 8.9683e-44, 5.3904e-41, 4.3861e-41]
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pillow==13.0.0 tifffile==2026.3.3 imagecodecs==2026.3.6 opencv-python-headless==5.0.0.93 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import cv2
import numpy as np
import tifffile
from PIL import Image

path = f"{sys.argv[1]}/image.tif"
for dtype in ("uint8", "uint16", "int16", "int32", "float32"):
    stored = np.array([[1, 2, 30, 100] if dtype == "uint8" else [1, 2, 300, 1000]] * 8, dtype=dtype)
    for order in "<>":
        for compression in (None, "zlib", "lzw", "packbits"):
            tifffile.imwrite(path, stored, byteorder=order, compression=compression, photometric="minisblack")
            assert np.array_equal(tifffile.imread(path), stored)
            assert np.array_equal(cv2.imread(path, cv2.IMREAD_UNCHANGED), stored)
            with Image.open(path) as image:
                seen = np.asarray(image)
            if not np.array_equal(seen, stored):
                print(f"{dtype}, byte order {order}, {compression}: stored {stored[0].tolist()}, read {seen[0].tolist()}")
            expected = stored
            if order == ">" and compression is not None and dtype in ("int16", "int32", "float32"):
                expected = stored.byteswap()
            assert np.array_equal(seen, expected), "otherwise than described"
print("all else as stored; as described")
PYTHON
