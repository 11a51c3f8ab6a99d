#!/usr/bin/env bash
# Before opset 13, Softmax and LogSoftmax flatten their input to a matrix at the axis: the values after it share one sum. onnx's
# reference evaluator sums along the one axis, as opset 13 does, for a model of any opset. ONNX Runtime heeds the opset.
# Seen with onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11:
#   eight zeros of shape (1, 2, 4), opset 11, axis 1: ONNX Runtime 1/8 each, the reference 1/2 each
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

x = np.zeros((1, 2, 4), np.float32)
given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy")
for operator, right, wrong in (("Softmax", 1 / 8, 1 / 2), ("LogSoftmax", np.log(1 / 8), np.log(1 / 2))):
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], axis=1)], "softmax", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model, full_check=True)
    runtime = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    reference = ReferenceEvaluator(model).run(None, {"x": x})[0]
    print(f"{operator}, opset 11: ONNX Runtime {runtime.ravel()[0]:.4f}, reference {reference.ravel()[0]:.4f}")
    assert np.allclose(runtime, right) and np.allclose(reference, wrong), "otherwise than described"
PYTHON
echo "as described"
