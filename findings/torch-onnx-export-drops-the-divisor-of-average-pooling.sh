#!/usr/bin/env bash
# avg_pool2d(..., divisor_override=3) divides a window's sum by 3, whatever its size; torch's ONNX exporter leaves that out, and
# the exported network divides by the size. No error, no warning.
# Seen with torch 2.13.0, onnxscript 0.7.2, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11:
#   windows of 2 x 2 ones: torch 4/3, exported 1
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import contextlib
import io
import warnings

import numpy as np
import onnxruntime
import torch

warnings.simplefilter("ignore")
network = torch.nn.AvgPool2d(2, divisor_override=3)
x = torch.ones(1, 1, 4, 4)
with contextlib.redirect_stdout(io.StringIO()):
    model = torch.onnx.export(network, (x,), dynamo=True, verbose=False).model_proto
session = onnxruntime.InferenceSession(model.SerializeToString())
exported = session.run(None, {model.graph.input[0].name: x.numpy()})[0]
print("torch", network(x).unique().tolist(), "exported", np.unique(exported).tolist())
assert np.allclose(network(x), 4 / 3) and np.allclose(exported, 1), "otherwise than described"
PYTHON
echo "as described"
