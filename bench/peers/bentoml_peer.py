"""BentoML with an exported committee.

MODEL=M.onnx THREADS=1 BATCH=64 WORKERS=1 bentoml serve bentoml_peer:Committee --port PORT
"""

from __future__ import annotations

import base64
import io
import os

import bentoml
import numpy as np
import onnxruntime
from PIL import Image

THREADS, BATCH = int(os.environ["THREADS"]), int(os.environ["BATCH"])


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 60}, metrics={"enabled": False})
class Committee:
    """{"images": [base64, ...]} -> [{"label", "probabilities"}, ...], batched across requests."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=BATCH > 1, max_batch_size=max(BATCH, 2), max_latency_ms=1000)
    def predict(self, images: list[str]) -> list[dict]:  # type: ignore[type-arg]
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(each))))[..., None] for each in images])
        (found,) = self.session.run(["probabilities"], {"images": pixels})
        return [{"label": int(row.argmax()), "probabilities": row.tolist()} for row in found]
