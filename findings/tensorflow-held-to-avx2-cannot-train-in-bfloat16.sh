#!/usr/bin/env bash
# ONEDNN_MAX_CPU_ISA=AVX2, oneDNN's own way to reproduce what a laptop's processor does, leaves TensorFlow without a convolution
# in bfloat16, and nothing takes its place: Keras's mixed_bfloat16, which trains without that variable on the same machine,
# ends in "could not create a primitive descriptor for the convolution forward propagation primitive". PyTorch, held to AVX2 by
# the same variable, falls back to a slower way and trains. float32 is not affected.
# Seen with tensorflow-cpu 2.21.0, Keras 3.15.1, Python 3.11, on a processor with AVX512-bf16 (elsewhere the first of the two
# trainings may fail, too, and this script says so). Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 keras==3.15.1
cat >"$folder/train.py" <<'PYTHON'
import sys

import keras
import numpy as np

keras.config.set_dtype_policy(sys.argv[1])
layers = keras.layers
model = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        layers.Conv2D(16, 3, activation="relu"),
        layers.Conv2D(16, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(10),
    ]
)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
draws = np.random.default_rng(0)
images, labels = draws.random((256, 28, 28, 1), dtype="float32"), draws.integers(0, 10, 256)
model.fit(images, labels, batch_size=128, epochs=1, verbose=0)
print("trained")
PYTHON
export KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3
run() { "$folder/venv/bin/python" "$folder/train.py" "$@" 2>&1; }
grep -qw avx512_bf16 /proc/cpuinfo || { echo "this needs a processor with AVX512-bf16"; exit 0; }
echo "mixed_bfloat16: $(run mixed_bfloat16 | tail -n 1)"
run mixed_bfloat16 | grep -qx trained || { echo "otherwise than described"; exit 1; }
export ONEDNN_MAX_CPU_ISA=AVX2
echo "float32, held to AVX2: $(run float32 | tail -n 1)"
run float32 | grep -qx trained || { echo "otherwise than described"; exit 1; }
failure=$(run mixed_bfloat16 || true)
echo "mixed_bfloat16, held to AVX2: $(grep -o 'could not create a primitive descriptor[^.]*' <<<"$failure" | head -n 1)"
grep -q "could not create a primitive descriptor for the convolution forward" <<<"$failure" || { echo "otherwise than described"; exit 1; }
echo "as described"
