"""Photographs of digits given to a committee: the share right as they are and prepared, and what familiar says.

    python bench/photographs.py RUN [--images 100] [--sheet docs/photographs.png]

RUN is a finished run on MNIST; its data set is found as `committee evaluate` finds it. The photographs are made of test
digits by tests/photographs.py, `--images` in each of its styles; preparing was developed on training digits. All test
images are given, too: preparing may change none of them. Prints JSON; the sheet shows a photograph in each style above
the same prepared.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=100, help="photographs in each style")
    parser.add_argument("--sheet", type=Path, help="a picture of photographs and what they become")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    photographs = importlib.import_module("photographs")  # that of the tests

    import committee
    from committee.data.catalog import load_dataset
    from committee.data.dataset import open_test
    from committee.folders.run_folder import RunFolder
    from committee.runs.predictions import predict

    source = RunFolder.finished(options.run).data.reload
    assert source is not None, "a run that was trained on files or a data set by name is expected"
    dataset = load_dataset(source.data, data_dir=source.data_dir)
    members, rng = committee.load(options.run), np.random.default_rng(0)

    def answers(folder: Path, how: Any) -> tuple[Any, int, Any]:
        preparation = members.preparation(how)
        images = members.read_images([folder], preparation)
        found = predict(members, images.names, images.pixels)
        return found, sum(each.prepared for each in preparation.originals), found.probabilities.argmax(axis=1)

    with tempfile.TemporaryDirectory() as temporary:
        test = open_test(dataset, Path(temporary) / "record.jsonl", "photographs")
        labels: list[int] = []
        folder = Path(temporary) / "photographs"
        folder.mkdir()
        chosen = iter(rng.choice(len(test), options.images * len(photographs.STYLES), replace=False))
        for style in photographs.STYLES.values():
            for _ in range(options.images):
                image = int(next(chosen))
                photo = photographs.photograph(test.pixels[image, ..., 0], style, rng)
                (folder / f"{len(labels):05d}.jpg").write_bytes(photo)
                labels.append(int(test.labels[image]))
        if options.sheet:
            preparation = members.preparation("auto")
            sheet = Image.new("RGB", (len(photographs.STYLES) * 124, 240), "white")
            for column in range(len(photographs.STYLES)):
                photo = Image.open(folder / f"{column * options.images:05d}.jpg").convert("RGB")
                small = preparation(np.asarray(photo)[None], "sheet")[0, ..., 0]
                photo.thumbnail((120, 120))
                sheet.paste(photo, (column * 124, 120 - photo.height))
                sheet.paste(
                    Image.fromarray(small).resize((112, 112), Image.Resampling.NEAREST), (column * 124 + 4, 126)
                )
            sheet.save(options.sheet, optimize=True)
        result: dict[str, Any] = {"run": str(options.run), "photographs": len(labels)}
        for how in ("as-is", "auto"):
            found, prepared, choices = answers(folder, how)
            right = (choices == np.array(labels)).reshape(-1, options.images).sum(axis=1)
            result[how] = {
                "right": int(right.sum()),
                "prepared": prepared,
                "unlike": len(found.unlike),
                "reason": found.reason,
                "familiar_below_.01": int((found.familiar < 0.01).sum()),
                "right_of_each_style": dict(zip(photographs.STYLES, map(int, right), strict=True)),
            }
        own = Path(temporary) / "own.npy"
        np.save(own, test.pixels)
        before, _, _ = answers(own, "as-is")
        after, prepared, _ = answers(own, "auto")
        result["own test images"] = {
            "images": len(test),
            "prepared": prepared,
            "answers_changed": int((before.probabilities != after.probabilities).any(axis=1).sum()),
            "unlike": len(after.unlike),
            "familiar_below_.01": int((after.familiar < 0.01).sum()),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
