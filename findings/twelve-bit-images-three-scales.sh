#!/usr/bin/env bash
# The same picture of 12 bits (0 to 4095: microscopes, industrial cameras) comes out on three scales, by container and
# library, always as 16-bit or wider integers and without a word about the scale. Pillow stretches PGM to 65535 exactly,
# leaves TIFF as it is and shifts JPEG 2000 by four bits; OpenCV leaves PGM as it is and shifts TIFF. So a classifier that
# was trained on the TIFFs of a camera sees its PGMs sixteen times as bright.
# Seen with Pillow 13.0.0, opencv-python-headless 5.0.0.93, tifffile 2026.3.3, imagecodecs 2026.3.6, Python 3.11; stored 1000:
#   Pillow: PGM 16004, TIFF 1000, JPEG 2000 16000      OpenCV: PGM 1000, TIFF 16000
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pillow==13.0.0 opencv-python-headless==5.0.0.93 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile
from PIL import Image

root = Path(sys.argv[1])
values = np.tile(np.array([0, 1000, 2048, 4095], dtype=np.uint16), (8, 4))
(root / "a.pgm").write_bytes(b"P5 16 8 4095\n" + values.astype(">u2").tobytes())
tifffile.imwrite(root / "a.tif", values, bitspersample=12, photometric="minisblack")
(root / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, level=0, bitspersample=12, reversible=True))
for name in ("a.tif", "a.jp2"):  # both files hold what was written
    stored = tifffile.imread(root / name) if name == "a.tif" else imagecodecs.imread(root / name)
    assert (stored == values).all()
seen = {}
for name in ("a.pgm", "a.tif", "a.jp2"):
    with Image.open(root / name) as image:
        seen["Pillow", name] = np.asarray(image)[0, :4].tolist()
for name in ("a.pgm", "a.tif"):
    seen["OpenCV", name] = cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED)[0, :4].tolist()
for (library, name), read in seen.items():
    print(f"{library}, {name}: stored {values[0, :4].tolist()}, read {read}")
exact, shifted, as_stored = [0, 16004, 32776, 65535], [0, 16000, 32768, 65520], [0, 1000, 2048, 4095]
assert seen == {
    ("Pillow", "a.pgm"): exact,
    ("Pillow", "a.tif"): as_stored,
    ("Pillow", "a.jp2"): shifted,
    ("OpenCV", "a.pgm"): as_stored,
    ("OpenCV", "a.tif"): shifted,
}
print("as described")
PYTHON
