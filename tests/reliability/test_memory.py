"""No leak: a process that predicts for days needs no more memory than one that predicts for a minute."""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from scale import cases, record_figure

from committee.data.dataset import ImageDataset
from committee.folders.records import ImagesRecord
from committee.metrics import familiarity
from committee.runs.predictions import predict
from committee.sklearn import CommitteeClassifier

IMAGES = cases(20_000, 1_000_000)
SIZES = (1, 1, 1, 5, 64, 200, 1000)
"""Images in a call, in turn: fewer and more than are predicted at a time, by one thread and by several."""
ALLOWED = 6_000_000
"""Bytes that threads and the allocator may take at some time; a leak of 400 an image is more, in the long form of 8."""


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_however_many_images_are_predicted(digits: ImageDataset) -> None:
    train = digits.train.pixels
    classifier = CommitteeClassifier("fast", members=2, epochs=1, image_shape=digits.image_shape)
    classifier.fit(train[:300].reshape(300, -1), digits.train.labels[:300])
    known = ImagesRecord(familiarity=familiarity.fit(train[:300], None))
    members, began = replace(classifier.committee_, images=known), time.monotonic()
    pixels = np.resize(train, (max(SIZES), *digits.image_shape))
    done, early = 0, 0
    for size in cycle(SIZES):
        records = predict(members, [f"{done + i}.png" for i in range(size)], pixels[:size]).records()
        assert len(records) == size
        done += size
        if not early and done >= IMAGES // 5:
            early = resident()
        if done >= IMAGES:
            break
    grown = resident() - early
    seconds = time.monotonic() - began
    record_figure("memory", f"{done:,} images predicted in {seconds:.0f} s; {grown / 1e6:+.1f} MB after a fifth")
    assert grown < ALLOWED
