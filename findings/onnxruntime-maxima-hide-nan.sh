#!/usr/bin/env bash
# A network whose activations became NaN should answer NaN. In ONNX Runtime ReduceMax and GlobalMaxPool let NaN vanish (ReduceMax
# keeps one in the first place only), and ArgMax gives the position of another value, so that a broken image gets a
# confident answer. torch, NumPy and onnx's reference evaluator keep NaN.
# Seen with onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11:
#   ReduceMax of 1, NaN, 3 is 3, of NaN, 1, 3 NaN; GlobalMaxPool of either 3; ArgMax of 1, NaN, 3 is 2
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

nan = np.nan


def answers(operator, values, **attributes):
    x = np.array([[values]], np.float32)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    made = helper.make_tensor_value_info("y", TensorProto.INT64 if operator == "ArgMax" else TensorProto.FLOAT, [1, 1, 1])
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], **attributes)], "maximum", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    runtime = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0].item()
    return runtime, ReferenceEvaluator(model).run(None, {"x": x})[0].item()


cases = (
    ("ReduceMax", (1, nan, 3), {"axes": [2]}, 3),
    ("ReduceMax", (nan, 1, 3), {"axes": [2]}, nan),
    ("GlobalMaxPool", (1, nan, 3), {}, 3),
    ("GlobalMaxPool", (nan, 1, 3), {}, 3),
    ("ArgMax", (1, nan, 3), {"axis": 2}, 2),
)
for operator, values, attributes, expected in cases:
    runtime, reference = answers(operator, values, **attributes)
    print(f"{operator} of {values}: ONNX Runtime {runtime}, reference {reference}")
    assert np.array_equal(runtime, expected, equal_nan=True), "otherwise than described"
    assert reference == values.index(nan) if operator == "ArgMax" else np.isnan(reference), "otherwise than described"
PYTHON
echo "as described"
