"""B4, inference: images a second and the latency of one image, for committees of 1, 5 and 10 members.

    python bench/inference.py [--recipe ensemble-cnn] [--rounds 3]

Beside it the same networks in PyTorch (evaluation mode, inference_mode, channels last) and, for P1's network, in Keras
on TensorFlow (one compiled function over all members), both in bfloat16 and in float32. Weights are random: they change
no time. All use both cores, or the GPU where there is one; files, scaling of the window and start count for nobody.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from side_by_side import Setting, measure, write

SIZES = (1, 5, 10)
IMAGES = 4_000


def timed(predict: Callable[[Any], Any], many: Any, one: Any) -> dict[str, float]:
    """Images a second, and milliseconds for one image (the median of 30)."""
    predict(many[:256])
    began = time.perf_counter()
    predict(many)
    speed = len(many) / (time.perf_counter() - began)
    predict(one)
    latencies = []
    for _ in range(30):
        began = time.perf_counter()
        predict(one)
        latencies.append(time.perf_counter() - began)
    return {"images_per_second": speed, "latency_ms": statistics.median(latencies) * 1e3}


def random_networks(recipe: Any, members: int, device: str) -> list[Any]:
    """Networks of a recipe for MNIST's images, ready to predict."""
    import torch

    from committee.nn.architectures import build

    networks: list[Any] = [
        build(recipe.network.of_member(m), (1, 28, 28), 10, torch.Generator().manual_seed(m)) for m in range(members)
    ]
    return [network.to(device).to(memory_format=torch.channels_last).eval() for network in networks]


def ours(recipe_name: str, members: int, precision: str) -> dict[str, float]:
    """The committee as `committee predict` has it."""
    from committee import load_recipe
    from committee.ensemble.committee import Committee
    from committee.nn.devices import pick_device

    recipe, device = load_recipe(recipe_name, []), pick_device()
    networks = random_networks(recipe, members, device)
    names, tta = tuple("0123456789"), recipe.committee.tta
    committee = Committee(tuple(networks), names, (28, 28, 1), 255, device=device, precision=precision, tta=tta)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28, 1), dtype=np.uint8)
    return timed(committee.predict_proba, pixels, pixels[:1])


def plain(recipe_name: str, members: int, precision: str) -> dict[str, float]:
    """The same networks one after the other in PyTorch, 512 images at a time."""
    import torch

    from committee import load_recipe
    from committee.nn.devices import pick_device

    recipe, device = load_recipe(recipe_name, []), pick_device()
    networks = random_networks(recipe, members, device)
    pixels = torch.randint(0, 256, (IMAGES, 1, 28, 28)).float().contiguous(memory_format=torch.channels_last)

    def predict(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            on_it = (part.to(device) for part in images.split(512))  # type: ignore[no-untyped-call]
            parts = [sum(network(part).float().softmax(1) for network in networks) for part in on_it]
        return torch.cat(parts).cpu()

    return timed(predict, pixels, pixels[:1])


def keras(recipe_name: str, members: int, precision: str) -> dict[str, float]:
    """P1's network in Keras on TensorFlow, all members in one compiled function."""
    import os

    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import tensorflow as tf
    from keras import config
    from peers.networks import P1, keras_model

    config.set_dtype_policy({"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision])
    networks = [keras_model(P1) for _ in range(members)]
    predict_part = tf.function(lambda x: tf.add_n([network(x, training=False) for network in networks]))
    pixels = np.random.default_rng(0).random((IMAGES, 28, 28, 1), dtype=np.float32)

    def predict(images: np.ndarray) -> np.ndarray:
        parts = [predict_part(tf.constant(images[i : i + 500])).numpy() for i in range(0, len(images), 500)]
        return np.concatenate(parts)

    return timed(predict, pixels, pixels[:1])


TOOLS = {
    "committee": (ours, "bfloat16"),
    "PyTorch": (plain, "bfloat16"),
    "PyTorch, float32": (plain, "float32"),
    "Keras on TensorFlow": (keras, "float32"),
    "Keras on TensorFlow, bfloat16": (keras, "bfloat16"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="ensemble-cnn")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tools = [tool for tool in TOOLS if arguments.recipe == "ensemble-cnn" or "Keras" not in tool]
    found: dict[str, dict[str, list[float]]] = {}
    for turn in range(arguments.rounds):
        for members in SIZES:
            for tool in tools:
                once = measure(Setting(tool, (__file__, "one", tool, arguments.recipe, str(members)))) or {}
                for figure, value in once.items():
                    found.setdefault(f"{tool}, {members}", {}).setdefault(figure, []).append(value)
        print(f"round {turn + 1} of {arguments.rounds}", flush=True)
    for name, figures in found.items():
        speed, latency = (figures[figure] for figure in ("images_per_second", "latency_ms"))
        print(
            f"{name:34} {statistics.median(speed):10,.0f} images/s ({min(speed):,.0f} to {max(speed):,.0f})"
            f"   one image {statistics.median(latency):7.2f} ms ({min(latency):.2f} to {max(latency):.2f})"
        )
    write(f"inference-{arguments.recipe}", {"benchmark": "B4", "recipe": arguments.recipe, "rounds": found})


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        run, precision = TOOLS[sys.argv[2]]
        print(json.dumps(run(sys.argv[3], int(sys.argv[4]), precision)))
    else:
        main()
