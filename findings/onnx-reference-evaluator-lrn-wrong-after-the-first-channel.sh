#!/usr/bin/env bash
# onnx's reference evaluator computes LRN (local response normalisation, as in AlexNet and GoogLeNet) rightly for the first
# channel only: the sum of squares around later channels is not the one that the specification gives. ONNX Runtime computes
# the equation of the specification.
# Seen with onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11:
#   five channels of 1, size 3, alpha 3, beta 1, bias 1: the equation and ONNX Runtime give 1/3, 1/4, 1/4, 1/4, 1/3;
#   the reference 1/3, 1, 1, 1, 1
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

x = np.ones((1, 5, 1, 1), np.float32)
given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy")
node = helper.make_node("LRN", ["x"], ["y"], size=3, alpha=3.0, beta=1.0, bias=1.0)
graph = helper.make_graph([node], "lrn", [given], [made])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
squares = np.pad(x[0, :, 0, 0] ** 2, 1)
equation = 1 / (1 + 3 / 3 * (squares[:-2] + squares[1:-1] + squares[2:]))
runtime = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0].ravel()
reference = ReferenceEvaluator(model).run(None, {"x": x})[0].ravel()
print("equation", equation, "ONNX Runtime", runtime, "reference", reference)
assert np.allclose(runtime, equation, atol=1e-6), "otherwise than described"
assert np.isclose(reference[0], equation[0]) and (reference[1:] == 1).all(), "otherwise than described"
PYTHON
echo "as described"
