"""P1's network trained by Keras on TensorFlow, JAX or PyTorch; prints images a second as JSON.

    KERAS_BACKEND=jax python bench/peers/keras_peer.py IMAGES.npz --threads 2 --precision bfloat16 --compile --epochs 3

The first epoch (tracing, compilation) is left out. bfloat16 is Keras's policy mixed_bfloat16, --compile is jit_compile.
"""

from __future__ import annotations

import argparse
import json
import os
import time

from networks import P1, keras_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    backend = os.environ["KERAS_BACKEND"]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if backend == "jax" and arguments.threads == 1:
        one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {one}"
    if backend == "tensorflow":
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    if backend == "torch":
        import torch

        torch.set_num_threads(arguments.threads)
    import keras
    import numpy as np

    if arguments.precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    data = np.load(arguments.images)
    images, labels = data["images"].astype("float32") / 255, data["labels"]

    model = keras_model(P1)
    assert model.count_params() == 331_450
    model.compile(keras.optimizers.Nadam(2e-3), "sparse_categorical_crossentropy", jit_compile=arguments.compile)

    starts: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: starts.append(time.perf_counter()))
    model.fit(images, labels, batch_size=128, epochs=arguments.epochs, verbose=0, callbacks=[clock])
    seconds = time.perf_counter() - starts[1]
    print(json.dumps({"images_per_second": len(labels) * (arguments.epochs - 1) / seconds}))


if __name__ == "__main__":
    main()
