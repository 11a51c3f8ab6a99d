#!/usr/bin/env bash
# Keras on JAX with an optimizer that keeps an exponential moving average (use_ema=True): what a fit has trained can be
# saved, but not once evaluate or predict has looked at it ("Array has been deleted"), and a second fit fails before its
# first step and takes the weights with it: the model can then neither predict nor be saved. At its end fit puts the averages
# in the place of the weights without a copy, and the next call gives the weights to a compiled function that frees what it
# is given (donate_argnums), and with them the averages. Without use_ema the same lines work, as does saving right after fit.
# One would have expected that looking at a model changes nothing, as with any other optimizer.
# Seen with keras 3.15.1, jax 0.10.2, numpy 2.4.6, Python 3.11:
#   plain: fit, evaluate, save, fit, predict, save: all fine      EMA: fit, save: fine
#   EMA: fit, evaluate, save or fit, predict, save: RuntimeError: Array has been deleted with shape=float32[4,1].
#   EMA: fit, fit, predict, save: TypeError: 'NoneType' object is not callable, from the second fit on
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
KERAS_BACKEND=jax KERAS_HOME="$folder/home" JAX_PLATFORMS=cpu "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import keras
import numpy as np

inputs = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
targets = inputs.sum(axis=1, keepdims=True)


def verdicts(steps: str, ema: bool) -> list[str]:
    """What each of the steps says, for a fresh model."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, use_ema=ema), "mse")
    actions = {
        "fit": lambda: model.fit(inputs, targets, verbose=0),
        "evaluate": lambda: model.evaluate(inputs, targets, verbose=0),
        "predict": lambda: model.predict(inputs, verbose=0),
        "save": lambda: model.save(f"{sys.argv[1]}/model.keras"),
    }
    seen = []
    for step in steps.split():
        try:
            actions[step]()
            seen.append("fine")
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}")
    print(f"{'EMA' if ema else 'plain'}: {', '.join(f'{step} {word}' for step, word in zip(steps.split(), seen, strict=True))}")
    return seen


deleted = "RuntimeError: Array has been deleted with shape=float32[4,1]."
lost = "TypeError: 'NoneType' object is not callable"
assert verdicts("fit evaluate save fit predict save", ema=False) == ["fine"] * 6, "otherwise than described"
assert verdicts("fit save", ema=True) == ["fine"] * 2, "otherwise than described"
for look in ("evaluate", "predict"):
    assert verdicts(f"fit {look} save", ema=True) == ["fine", "fine", deleted], "otherwise than described"
assert verdicts("fit fit predict save", ema=True) == ["fine", lost, lost, lost], "otherwise than described"
print("as described")
PYTHON
