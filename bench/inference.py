"""B4, inference: images a second and the latency of one image, for committees of 1 and of 10 members.

    python bench/inference.py [--recipe ensemble-cnn] [--rounds 3] [--sizes 1,10] [--isa avx2]

Beside it the same networks in PyTorch (evaluation mode, channels last, one function over all members) and, for P1's
network, in Keras on TensorFlow (one compiled function over all members). Of each peer every sensible setting is first
run once: float32, bfloat16, autocast; eager, TorchInductor with freezing, oneDNN's graph; both threads and one. For
each figure the best setting of each then takes part in the rounds, which go on, up to three times as many, while any
tool's spread is above 15 %. Intel's extension takes no part: intel-extension-for-pytorch has no release for this
torch, its newest, 2.8.0, is for torch 2.8.

Weights are random: they change no time. All may use both cores, or the GPU where there is one; files, scaling of the
window and start (tracing, compilation) count for nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from side_by_side import (
    ISAS,
    Setting,
    best_peer,
    best_settings,
    compare,
    features,
    one_figure,
    rounds,
    survey_all,
    use_isa,
    write,
)

IMAGES = 4_096
BATCH = 512  # of the peers; all batches have one size, so that nothing is compiled twice
FIGURES = {"images_per_second": "images/s", "latency_ms": "ms"}


def timed(predict: Callable[[Any], Any], many: Any, one: Any) -> dict[str, float]:
    """Images a second, and milliseconds for one image (the median of 30)."""
    for _ in range(3):  # TorchScript optimises at its second call
        predict(many[:BATCH])
    began = time.perf_counter()
    predict(many)
    speed = len(many) / (time.perf_counter() - began)
    for _ in range(3):
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


def ours(recipe_name: str, members: int) -> dict[str, float]:
    """The committee as `committee predict` has it."""
    from committee import load_recipe
    from committee.ensemble.committee import Committee
    from committee.nn.devices import pick_device

    recipe, device = load_recipe(recipe_name, []), pick_device()
    networks = random_networks(recipe, members, device)
    names, tta = tuple("0123456789"), recipe.committee.tta
    committee = Committee(tuple(networks), names, (28, 28, 1), 255, device=device, precision="bfloat16", tta=tta)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28, 1), dtype=np.uint8)
    return timed(committee.predict_proba, pixels, pixels[:1])


def plain(recipe_name: str, members: int, kind: str, precision: str, threads: int) -> dict[str, float]:
    """The same networks one after the other in PyTorch, 512 images at a time.

    Args:
        recipe_name: of P1's network, or another recipe.
        members: how many networks.
        kind: "eager", "inductor" (torch.compile, weights frozen) or "onednn graph" (traced, frozen, fused).
        precision: "float32", "bfloat16" (weights and images) or "autocast" (to bfloat16).
        threads: of torch.
    """
    import torch

    from committee import load_recipe
    from committee.nn.architectures import StemConv
    from committee.nn.devices import pick_device

    torch.set_num_threads(threads)
    recipe, device = load_recipe(recipe_name, []), pick_device()
    number = torch.bfloat16 if precision == "bfloat16" else torch.float32

    class Members(torch.nn.Module):
        """The sum of all members' probabilities."""

        def __init__(self) -> None:
            super().__init__()
            self.networks = torch.nn.ModuleList(random_networks(recipe, members, device))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.stack([network(images).float().softmax(1) for network in self.networks]).sum(0)

    together: Any = Members().eval().to(number)
    for module in together.modules():
        if isinstance(module, StemConv):  # which is always float32: a user of PyTorch has a plain convolution
            module.__class__ = torch.nn.Conv2d  # type: ignore[assignment]

    @cache
    def prepared(images: int) -> Any:
        """All members as one function, for so many images."""
        if kind == "eager":
            return together
        if kind == "inductor":
            from torch._inductor import config

            config.freezing = True
            return torch.compile(together, dynamic=False)
        torch._C._jit_set_autocast_mode(False)  # PyTorch's advice for oneDNN's graph under autocast
        torch.jit.enable_onednn_fusion(True)
        example = torch.zeros(images, 1, 28, 28, dtype=number).contiguous(memory_format=torch.channels_last)
        return torch.jit.freeze(torch.jit.trace(together, example))  # type: ignore[no-untyped-call]

    pixels = torch.randint(0, 256, (IMAGES, 1, 28, 28)).to(number).contiguous(memory_format=torch.channels_last)
    mixed = torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "autocast", cache_enabled=False)
    no_gradients = torch.inference_mode if kind == "eager" else torch.no_grad  # freezing is for no_grad

    def predict(images: torch.Tensor) -> torch.Tensor:
        with no_gradients(), mixed:
            parts = images.split(BATCH)  # type: ignore[no-untyped-call]
            return torch.cat([prepared(len(part))(part.to(device)) for part in parts]).cpu()

    return timed(predict, pixels, pixels[:1])


def keras(_: str, members: int, kind: str, precision: str, threads: int) -> dict[str, float]:
    """P1's network in Keras on TensorFlow, all members in one function."""
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from keras import config
    from peers.networks import P1, keras_model

    config.set_dtype_policy({"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision])
    networks = [keras_model(P1) for _ in range(members)]
    assert kind == "traced"
    predict_part = tf.function(lambda x: tf.add_n([network(x, training=False) for network in networks]))
    pixels = np.random.default_rng(0).random((IMAGES, 28, 28, 1), dtype=np.float32)

    def predict(images: np.ndarray) -> np.ndarray:
        parts = [predict_part(tf.constant(images[i : i + BATCH])).numpy() for i in range(0, len(images), BATCH)]
        return np.concatenate(parts)

    return timed(predict, pixels, pixels[:1])


PEERS = {"PyTorch": plain, "Keras on TensorFlow": keras}
KINDS = {
    ("PyTorch", "eager"): ("float32", "bfloat16", "autocast"),
    ("PyTorch", "inductor"): ("float32", "bfloat16", "autocast"),
    ("PyTorch", "onednn graph"): ("float32", "autocast"),
    ("Keras on TensorFlow", "traced"): ("float32", "bfloat16"),
}


def settings(recipe: str, members: int, device: str) -> dict[str, list[Setting]]:
    """Every setting of every tool; Keras has P1's network only, oneDNN's graph and threads are for the CPU."""
    size = str(members)
    tools = {"committee": [Setting("as it is", (__file__, "ours", recipe, size))]}
    for (tool, kind), precisions in KINDS.items():
        if (tool == "PyTorch" or recipe == "ensemble-cnn") and (kind != "onednn graph" or device == "cpu"):
            tools.setdefault(tool, []).extend(
                Setting(
                    f"{kind}, {precision}, {threads} threads",
                    (__file__, "peer", tool, recipe, size, kind, precision, threads),
                )
                for precision in precisions
                for threads in (("2", "1") if device == "cpu" else ("2",))
            )
    return tools


def compared(recipe: str, members: int, device: str, number: int) -> dict[str, Any]:
    """One size of committee: the survey, and for each figure the rounds and their summary."""
    tools = settings(recipe, members, device)
    print(f"{members} members; survey: images a second, milliseconds for one image", flush=True)
    surveyed = survey_all(tools)
    content: dict[str, Any] = {"survey": surveyed}
    for figure, unit in FIGURES.items():
        least = figure == "latency_ms"
        chosen = best_settings(tools, one_figure(surveyed, figure), least)
        values = rounds(chosen, figure, number, most=3 * number)
        summary = compare(values, "committee", unit)
        times = None
        if peer := best_peer(summary, "committee", least):
            ratio = summary[peer]["ours_over_it"]
            times = 1 / ratio if least else ratio
            print(f"{members} members, {figure}: {times:.2f} times as good as the best peer, {peer}", flush=True)
        picked = {tool: setting.name for tool, setting in chosen.items()}
        content[figure] = {"settings": picked, "rounds": values, "summary": summary, "times_as_good": times}
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="ensemble-cnn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="1,10", help="numbers of members, with commas")
    parser.add_argument("--isa", choices=list(ISAS), default="", help="hold all tools to these instructions")
    arguments = parser.parse_args()
    use_isa(arguments.isa)
    found_features = features()
    from committee.nn.devices import pick_device

    content: dict[str, Any] = {
        "benchmark": "B4",
        "recipe": arguments.recipe,
        "isa": arguments.isa or "the processor's",
        "features": found_features,
    }
    for members in map(int, arguments.sizes.split(",")):
        content[f"{members} members"] = compared(arguments.recipe, members, pick_device(), arguments.rounds)
    write("-".join(filter(None, ("inference", arguments.recipe, arguments.isa))), content)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        print(json.dumps(ours(sys.argv[2], int(sys.argv[3]))))
    elif sys.argv[1:2] == ["peer"]:
        tool, recipe, size, kind, precision, threads = sys.argv[2:]
        print(json.dumps(PEERS[tool](recipe, int(size), kind, precision, int(threads))))
    else:
        main()
