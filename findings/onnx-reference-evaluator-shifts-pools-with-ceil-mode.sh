#!/usr/bin/env bash
# onnx's reference evaluator pads both sides of the input for ceil_mode where the specification only lets the last window
# hang over the end: average pooling of 0..6 by threes then starts before the first value, and max pooling with stride 1,
# where ceil_mode changes nothing, loses or gains values. SAME_LOWER with a stride rounds the size down instead of up.
# ONNX Runtime, shape inference and torch agree with each other. No error, no warning.
# Seen with onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11:
#   AveragePool 3, stride 3, ceil_mode: 1, 4, 6; reference 0.5, 3, 5
#   MaxPool 3, stride 1, pads 1, ceil_mode: 1, 2, 3, 4, 5, 6, 6; reference 2, 3, 4, 5, 6, 6
#   MaxPool 2, stride 2, SAME_LOWER: 0, 2, 4, 6; reference 2, 4, 6
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

x = np.arange(7, dtype=np.float32).reshape(1, 1, 7)
cases = (
    ("AveragePool", {"kernel_shape": [3], "strides": [3], "ceil_mode": 1}, [1, 4, 6], [0.5, 3, 5]),
    ("MaxPool", {"kernel_shape": [3], "pads": [1, 1], "ceil_mode": 1}, [1, 2, 3, 4, 5, 6, 6], [2, 3, 4, 5, 6, 6]),
    ("MaxPool", {"kernel_shape": [2], "strides": [2], "auto_pad": "SAME_LOWER"}, [0, 2, 4, 6], [2, 4, 6]),
)
for operator, attributes, right, wrong in cases:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, len(right)))
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], **attributes)], "pool", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)  # the size is the one that is right
    runtime = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0].ravel().tolist()
    reference = ReferenceEvaluator(model).run(None, {"x": x})[0].ravel().tolist()
    print(f"{operator} {attributes}: ONNX Runtime {runtime}, reference {reference}")
    assert runtime == right and reference == wrong, "otherwise than described"
PYTHON
echo "as described"
