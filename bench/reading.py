"""B6, reading: a folder of 20,000 small PNG files, beside a plain loop of Pillow's open on one core.

    python bench/reading.py [--data-dir DIR] [--images 20000] [--rounds 5]

The files are MNIST's first training images, as Pillow writes them, in class folders. Ours is all of `read_dataset`:
listing the folder, labels, decoding, checks, setting a test part aside. The loop only decodes files whose names it is
given. Both are timed after their imports, in turn, in fresh processes, with the files in the system's cache. The peak
of memory is the most that Python and NumPy held while reading (tracemalloc), over the size of the pixels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import Setting, compare, measure, rounds, write

from committee.data.catalog import load_dataset
from committee.data.readers import read_dataset

OURS, LOOP, MEMORY = "committee", "loop of Pillow's open", "memory"


def timed(tool: str, folder: Path) -> dict[str, float]:
    """Images a second; or the most memory held while reading, over the pixels' size."""
    names = sorted(folder.glob("*/*.png"))
    with tempfile.TemporaryDirectory() as few:  # imports that wait for the first use
        for i in range(4):
            (Path(few) / str(i % 2)).mkdir(exist_ok=True)
            (Path(few) / str(i % 2) / f"{i}.png").write_bytes(names[i].read_bytes())
        read_dataset(Path(few))
    if tool == MEMORY:
        tracemalloc.start()
        dataset = read_dataset(folder)
        size = (len(dataset.train) + len(dataset.test)) * int(np.prod(dataset.image_shape))
        return {"peak_over_pixels": tracemalloc.get_traced_memory()[1] / size}
    began = time.perf_counter()
    if tool == OURS:
        read_dataset(folder)
    else:
        for name in names:
            np.asarray(Image.open(name))
    return {"images_per_second": len(names) / (time.perf_counter() - began)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where MNIST's IDX files are, if not in the cache")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tool", choices=[OURS, LOOP, MEMORY], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tool:
        print(json.dumps(timed(arguments.tool, arguments.folder)))
        return
    train = load_dataset("mnist", data_dir=arguments.data_dir).train
    with tempfile.TemporaryDirectory() as name:
        for i in range(arguments.images):
            place = Path(name) / str(train.labels[i]) / f"{i}.png"
            place.parent.mkdir(exist_ok=True)
            Image.fromarray(train.pixels[i, ..., 0]).save(place)
        tools = {tool: Setting("", (__file__, "--tool", tool, "--folder", name)) for tool in (OURS, LOOP, MEMORY)}
        values = rounds({tool: tools[tool] for tool in (OURS, LOOP)}, "images_per_second", arguments.rounds)
        memory = (measure(tools[MEMORY]) or {}).get("peak_over_pixels", float("nan"))
    speed = compare(values, OURS, "images/s")
    print(f"peak of memory over the pixels' size: {memory:.2f}")
    write("reading", {"benchmark": "B6", "images": arguments.images, "speed": speed, "peak_over_pixels": memory})


if __name__ == "__main__":
    main()
