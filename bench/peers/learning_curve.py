"""A published recipe trained by a peer: MNIST's test probabilities after every epoch; or only its speed.

    python bench/peers/learning_curve.py TOOL RECIPE MNIST.npz --out CURVE.npz [--seed 0] [--threads 1] [--device cuda]
    python bench/peers/learning_curve.py TOOL RECIPE MNIST.npz [--threads 1] [--precision bfloat16] [--compile]

TOOL is keras (on TensorFlow) or torch (PyTorch's plain loop; bfloat16 means channels last, too). Without --out, two
epochs of 6,000 images are trained and the second's images a second are printed as JSON. In the peer's favour, only its
training steps are timed: random changes of images are made beforehand by committee's own code, and judging is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from networks import RECIPES, Published, keras_model, torch_model
from numpy.typing import NDArray

Images = NDArray[np.float32]
SPEED_IMAGES = 6_000


def changed(images: Images, recipe: Published, generator: torch.Generator) -> Images:
    """The epoch's images (image, 28, 28, 1) in 0..1."""
    from committee.config.recipe import Augmentation
    from committee.data.augment import augment

    settings = Augmentation(**recipe.augmentation)
    if not settings.active:
        return images
    parts = torch.from_numpy(images).permute(0, 3, 1, 2).split(1000)
    return np.concatenate([augment(part, settings, generator).permute(0, 2, 3, 1).numpy() for part in parts])


def in_keras(recipe: Published, settings: argparse.Namespace) -> tuple[Callable[..., float], Callable[..., Any]]:
    """A function that trains one epoch at a rate and tells its seconds, and one that judges."""
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    import keras

    keras.config.set_dtype_policy({"float32": "float32", "bfloat16": "mixed_bfloat16"}[settings.precision])
    keras.utils.set_random_seed(settings.seed)
    model = keras_model(recipe.layers)
    assert model.count_params() == recipe.parameters
    optimiser = {"adam": keras.optimizers.Adam, "nadam": keras.optimizers.Nadam}[recipe.optimiser](recipe.rate)
    model.compile(optimiser, "sparse_categorical_crossentropy", jit_compile=settings.compile)
    model.train_on_batch(np.zeros((recipe.batch, 28, 28, 1), np.float32), np.zeros(recipe.batch))  # traces the step
    model.set_weights(keras_model(recipe.layers).get_weights())

    def train(images: Images, labels: Any, rate: float) -> float:
        optimiser.learning_rate = rate
        began = time.perf_counter()
        model.fit(images, labels, batch_size=recipe.batch, verbose=0)
        return time.perf_counter() - began

    return train, lambda images: model.predict(images, batch_size=1000, verbose=0)


def in_torch(recipe: Published, settings: argparse.Namespace) -> tuple[Callable[..., float], Callable[..., Any]]:
    """The same in PyTorch."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    device, fast = settings.device, settings.precision == "bfloat16"
    memory_format = torch.channels_last if fast else torch.contiguous_format
    network = torch_model(recipe.layers)
    assert sum(parameter.numel() for parameter in network.parameters()) == recipe.parameters
    for module in network:
        if hasattr(module, "weight"):  # Keras's start weights
            torch.nn.init.xavier_uniform_(module.weight)
            torch.nn.init.zeros_(module.bias)
    network = network.to(device).to(memory_format=memory_format)
    if settings.compile:
        network.compile()
    kind = {"adam": torch.optim.Adam, "nadam": torch.optim.NAdam}[recipe.optimiser]
    fused = {"fused": True} if recipe.optimiser == "adam" else {}
    optimiser = kind(network.parameters(), lr=recipe.rate, eps=1e-7, **fused)

    def train(images: Images, labels: Any, rate: float) -> float:
        optimiser.param_groups[0]["lr"] = rate
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
        x, y = x.to(device), torch.from_numpy(labels).to(device)
        network.train()
        began = time.perf_counter()
        for batch in torch.randperm(len(y), device=device).split(recipe.batch):
            optimiser.zero_grad()
            with torch.autocast(device, dtype=torch.bfloat16, enabled=fast):
                loss = torch.nn.functional.cross_entropy(network(x[batch]), y[batch])
            loss.backward()
            optimiser.step()
        loss.item()  # a GPU works on while Python goes ahead
        return time.perf_counter() - began

    def judge(images: Images) -> Any:
        network.eval()
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=fast):
            parts = torch.from_numpy(images).permute(0, 3, 1, 2).split(1000)
            return torch.cat([network(part.to(device)).float().softmax(1).cpu() for part in parts]).numpy()

    return train, judge


def learn(recipe: Published, settings: argparse.Namespace) -> tuple[list[float], list[Any]]:
    """Seconds of training and test probabilities (image, class) of every epoch, all of them."""
    data = np.load(settings.data)
    images, test = (data[name].astype(np.float32) / 255 for name in ("images", "test_images"))
    order = np.random.default_rng(settings.seed).permutation(len(images))
    own, held_out = order[: recipe.images], order[recipe.images :]
    train, judge = TOOLS[settings.tool](recipe, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    rate, best, waited, seconds, probabilities = recipe.rate, 0.0, 0, [], []
    for epoch in range(recipe.epochs):
        seconds.append(train(changed(images[own], recipe, generator), data["labels"][own], rate))
        probabilities.append(judge(test).astype(np.float16))
        accuracy = (probabilities[-1].argmax(1) == data["test_labels"]).mean()
        print(f"epoch {epoch + 1}  {seconds[-1]:.1f} s  test accuracy {accuracy:.4f}", flush=True)
        if recipe.plateau:
            found = float((judge(images[held_out]).argmax(1) == data["labels"][held_out]).mean())
            best, waited = max(best, found), 0 if found > best else waited + 1
            rate, waited = (max(rate / 2, 1e-5), 0) if waited >= 3 else (rate, waited)
    return seconds, probabilities


def speed(recipe: Published, settings: argparse.Namespace) -> float:
    """Images a second, the first epoch (compilation, caches) left out."""
    data = np.load(settings.data)
    images, labels = data["images"][:SPEED_IMAGES].astype(np.float32) / 255, data["labels"][:SPEED_IMAGES]
    train, _ = TOOLS[settings.tool](recipe, settings)
    train(images, labels, recipe.rate)
    return len(images) / train(images, labels, recipe.rate)


TOOLS = {"keras": in_keras, "torch": in_torch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=list(TOOLS))
    parser.add_argument("recipe", choices=list(RECIPES))
    parser.add_argument("data")
    parser.add_argument("--out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    settings = parser.parse_args()
    recipe = RECIPES[settings.recipe]
    if settings.out:
        seconds, probabilities = learn(recipe, settings)
        np.savez(settings.out, seconds=seconds, probabilities=np.stack(probabilities))
    else:
        print(json.dumps({"images_per_second": speed(recipe, settings)}))


if __name__ == "__main__":
    main()
