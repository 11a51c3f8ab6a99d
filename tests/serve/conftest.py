"""A run of real digits that is served, and its server: one for all tests that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from server_process import Server, serving

from committee.data.dataset import ImageDataset
from committee.folders.run_folder import RunFolder


@pytest.fixture(scope="session")
def server(run: RunFolder) -> Iterator[Server]:
    """Its server, with short time limits."""
    with serving(
        run.path, "--read-timeout", "2s", "--max-body", "2M", "--max-images", "8", "--timeout", "10s"
    ) as found:
        yield found


@pytest.fixture(scope="session")
def images(digits: ImageDataset) -> np.ndarray:
    """(image, height, width) of the data set, 64 of them."""
    return digits.train.pixels[:64, ..., 0]
