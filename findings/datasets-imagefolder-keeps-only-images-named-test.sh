#!/usr/bin/env bash
# Hugging Face's imagefolder builder looks for split words (train, test, val, dev, eval ...) in file names, too. Where any
# image has one between separators, only images with such a word are kept: of 20 images in two class folders, two of which
# are called bolt_03_test.png and nut_03_test.png, the data set is these two, as a test split; 18 are gone, no warning. A
# class folder called "test tube" beside "flask" likewise leaves that class alone, and no labels.
# Seen with datasets 5.2.0 (pillow 13.0.0, numpy 2.4.6), Python 3.11:
#   names without a split word: {'train': 20}      two names with _test: {'test': 2}      folders flask, test tube: {'test': 10}
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
from datasets import disable_progress_bars, load_dataset
from PIL import Image

disable_progress_bars()


def sizes(case: str, names: list[str]) -> dict[str, int]:
    """How many images each split has after these files were written."""
    root = Path(sys.argv[1]) / case
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 10 * number, dtype=np.uint8)).save(root / name)
    found = {split: len(images) for split, images in load_dataset("imagefolder", data_dir=str(root)).items()}
    print(f"{case}: {len(names)} images, read as {found}")
    return found


plain = [f"{name}/{name}_{number:02d}.png" for name in ("bolt", "nut") for number in range(10)]
assert sizes("plain", plain) == {"train": 20}
assert sizes("named", [name.replace("_03", "_03_test") for name in plain]) == {"test": 2}
assert sizes("folders", [f"{name}/{number:02d}.png" for name in ("flask", "test tube") for number in range(10)]) == {"test": 10}
print("as described")
PYTHON
