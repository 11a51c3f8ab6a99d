"""LitServe with an exported committee: python litserve_peer.py MODEL PORT BATCH WORKERS THREADS."""

import base64
import io
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from PIL import Image

MODEL, PORT, BATCH, WORKERS, THREADS = sys.argv[1], *map(int, sys.argv[2:6])


class Committee(litserve.LitAPI):
    """{"images": [base64, ...]} -> {"answers": [{"label", "probabilities"}, ...]}, batched across requests."""

    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):  # LitServe asks for types by annotations: none means any JSON
        images = [Image.open(io.BytesIO(base64.b64decode(each))) for each in request["images"]]
        return np.stack([np.asarray(each)[..., None] for each in images])

    def batch(self, inputs: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
        return np.concatenate(inputs), [len(each) for each in inputs]

    def predict(self, x: Any) -> Any:
        images, counts = x if isinstance(x, tuple) else (x, [len(x)])
        (found,) = self.session.run(["probabilities"], {"images": images})
        parts = np.split(found, np.cumsum(counts)[:-1])
        return parts if isinstance(x, tuple) else parts[0]

    def unbatch(self, output: list[np.ndarray]) -> list[np.ndarray]:
        return output

    def encode_response(self, output):
        return {"answers": [{"label": int(row.argmax()), "probabilities": row.tolist()} for row in output]}


if __name__ == "__main__":
    batching = {"max_batch_size": BATCH, "batch_timeout": 0.002} if BATCH > 1 else {}
    server = litserve.LitServer(Committee(**batching), accelerator="cpu", workers_per_device=WORKERS)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning", num_api_servers=1)
