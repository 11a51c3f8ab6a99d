#!/usr/bin/env bash
# torch computes logsigmoid, binary cross-entropy with logits, logaddexp and logcumsumexp without overflow; that is what they are
# for. Its ONNX exporter writes each as the formula that overflows (Log of Sigmoid, Log of a sum of Exp), so that the exported
# network answers with infinity where the network does with -100. No error, no warning; numbers near 0 agree. softplus and
# log_softmax keep their care.
# Seen with torch 2.13.0, onnxscript 0.7.2, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11:
#   logsigmoid(-100): torch -100, exported -inf; its cross-entropy with the target 1: 100, exported inf
#   logaddexp(200, 0): torch 200, exported inf; logcumsumexp(-100, 200): torch begins with -100, exported with -inf
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
from torch.nn import functional

warnings.simplefilter("ignore")
x = torch.tensor([[-100.0, 0.5, 200.0]])
cases = {
    "logsigmoid": (functional.logsigmoid, 0),
    "binary_cross_entropy_with_logits": (
        lambda x: functional.binary_cross_entropy_with_logits(x, torch.ones_like(x), reduction="none"),
        0,
    ),
    "logaddexp": (lambda x: torch.logaddexp(x, torch.zeros_like(x)), 2),
    "logcumsumexp": (lambda x: torch.logcumsumexp(x, 1), 0),
    "softplus": (functional.softplus, None),
    "log_softmax": (lambda x: functional.log_softmax(x, 1), None),
}


class Network(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


for name, (function, wrong) in cases.items():
    with contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(Network(function), (x,), dynamo=True, verbose=False)
    model = program.model_proto
    session = onnxruntime.InferenceSession(model.SerializeToString())
    exported = session.run(None, {model.graph.input[0].name: x.numpy()})[0].ravel()
    there = function(x).numpy().ravel()
    print(f"{name} of {x.ravel().tolist()}: torch {there}, exported {exported}, by {[n.op_type for n in model.graph.node]}")
    assert np.isfinite(there).all(), "otherwise than described"
    if wrong is None:
        assert np.allclose(exported, there, rtol=1e-4), "otherwise than described"
    else:
        assert np.isinf(exported[wrong]), "otherwise than described"
PYTHON
echo "as described"
