#!/usr/bin/env bash
# Keras's BackupAndRestore continues a killed training, and silently continues another one than was killed:
# - With save_freq=N (batches) it writes the number of the batch beside the weights and never reads it. The epoch starts
#   again from its first batch with the weights of its middle, so that the batches before the backup are trained twice.
# - Dropout's generators are not among what it (or model.save) keeps, although they are variables of the model: with
#   Dropout(0.5, seed=1) even a backup at the end of an epoch goes on with the masks of the first one.
# One would have expected the same weights as without the kill, or a warning. Without dropout and at epoch ends it is exact.
# Seen with keras 3.15.1 (backend jax 0.10.2), numpy 2.4.6, Python 3.11; 3 epochs of 4 batches in order, killed in the second:
#   no dropout, save_freq="epoch": 12 steps, weights as without the kill
#   no dropout, save_freq=3:       14 steps, weights other; backup: {"epoch": 1, "batch": 1}, went on with epoch 1, batch 0
#   dropout, save_freq="epoch":    12 steps, weights other; counter of the generator 12 without the kill, 8 with it
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
KERAS_BACKEND=jax KERAS_HOME="$folder/home" JAX_PLATFORMS=cpu "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import keras
import numpy as np

inputs = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
targets = inputs.sum(axis=1, keepdims=True)


class Watch(keras.callbacks.Callback):
    """Notes each batch, and ends the training as a kill would after one of them."""

    def __init__(self, killed_after: tuple[int, int] | None):
        super().__init__()
        self.epoch, self.killed_after, self.seen = 0, killed_after, []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((self.epoch, batch))
        if self.seen[-1] == self.killed_after:
            raise KeyboardInterrupt


def train(name: str, rate: float, save_freq: str | int, killed_after: tuple[int, int] | None = None):
    """A fresh model, trained as far as it gets; the same call goes on from the backup."""
    keras.utils.set_random_seed(0)
    dropout = [keras.layers.Dropout(rate, seed=1)] if rate else []
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), *dropout, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    watch = Watch(killed_after)
    backup = keras.callbacks.BackupAndRestore(f"{sys.argv[1]}/{name}", save_freq=save_freq)
    try:
        model.fit(inputs, targets, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[backup, watch])
    except KeyboardInterrupt:
        pass
    weights = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    counters = [int(keras.ops.convert_to_numpy(each)[1]) for each in model.variables if "seed_generator" in each.path]
    return weights, int(keras.ops.convert_to_numpy(model.optimizer.iterations)), counters, watch.seen


for rate, save_freq, same, steps in ((0.0, "epoch", True, 12), (0.0, 3, False, 14), (0.5, "epoch", False, 12)):
    whole, whole_steps, whole_counters, _ = train(f"whole {rate} {save_freq}", rate, save_freq)
    name = f"killed {rate} {save_freq}"
    train(name, rate, save_freq, killed_after=(1, 2))
    noted = Path(sys.argv[1], name, "training_metadata.json").read_text()
    weights, seen_steps, counters, seen = train(name, rate, save_freq)
    seen_same = all(np.array_equal(one, other) for one, other in zip(whole, weights, strict=True))
    print(f"dropout {rate}, save_freq {save_freq!r}: backup {noted}, went on with epoch and batch {seen[0]};", end=" ")
    print(f"{whole_steps} steps whole, {seen_steps} with a kill, same weights: {seen_same};", end=" ")
    print(f"counters of generators {whole_counters} and {counters}")
    assert (whole_steps, seen_steps, seen_same, seen[0]) == (12, steps, same, (1, 0)), "otherwise than described"
    assert (whole_counters == counters) == (rate == 0), "otherwise than described"
print("as described")
PYTHON
