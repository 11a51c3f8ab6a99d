"""AutoKeras on the draws of bench/tuning.py: a search for as many seconds of the processor, then the test accuracy.

    python bench/tuning.py textures --draws 0 --export runs/draws      # the draws as NPZ files
    python bench/peers/autokeras_search.py runs/draws/textures-draw0.npz --seconds 120

In an environment of its own: pip install autokeras==3.0.0 tensorflow-cpu==2.21.0. Keras offers weights that were
trained on other images; they cannot be fetched here, and models that want them fail and count as trials of no value.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress
from pathlib import Path

import autokeras
import keras
import numpy as np


class OutOfTimeError(Exception):
    """The seconds of the processor are used up."""


class Deadline(keras.callbacks.Callback):
    """Ends a search after an epoch when the time is over."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.end = time.process_time() + seconds

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        if time.process_time() > self.end:
            raise OutOfTimeError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("draw", type=Path)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--folder", type=Path, default=Path("runs/autokeras"))
    arguments = parser.parse_args()
    data = np.load(arguments.draw)
    model = autokeras.ImageClassifier(
        max_trials=100, overwrite=True, directory=arguments.folder, project_name=arguments.draw.stem, seed=0
    )
    began = time.process_time()
    with suppress(OutOfTimeError):
        model.fit(data["images"], data["labels"], callbacks=[Deadline(arguments.seconds)], verbose=0)
    found = model.tuner.get_best_models(1)[0]
    answers = found.predict(data["test_images"], verbose=0)
    accuracy = float((answers.argmax(axis=1) == data["test_labels"]).mean())
    trials = [trial for trial in model.tuner.oracle.trials.values() if trial.status == "COMPLETED"]
    seconds = round(time.process_time() - began)
    print(json.dumps({"draw": arguments.draw.stem, "accuracy": accuracy, "trials": len(trials), "seconds": seconds}))


if __name__ == "__main__":
    main()
