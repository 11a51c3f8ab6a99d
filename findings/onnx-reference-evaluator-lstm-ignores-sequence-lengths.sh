#!/usr/bin/env bash
# onnx's reference evaluator takes the input sequence_lens of LSTM and does not look at it: shorter sequences of a batch are read
# to the end of the longest one, padding and all, so that their last states are others. ONNX Runtime stops where they end.
# Seen with onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11:
#   two sequences of ones, of 3 and of 1 steps: ONNX Runtime gives the second one the state after 1 step, the reference
#   that after 3, which is the first one's
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

feed = {
    "x": np.ones((3, 2, 1), np.float32),
    "w": np.full((1, 4, 1), 0.5, np.float32),
    "r": np.full((1, 4, 1), 0.5, np.float32),
    "b": np.zeros((1, 8), np.float32),
    "lengths": np.array([3, 1], np.int32),
}
inputs = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feed.items()]
made = helper.make_tensor_value_info("last", TensorProto.FLOAT, (1, 2, 1))
node = helper.make_node("LSTM", list(feed), ["", "last"], hidden_size=1)
model = helper.make_model(helper.make_graph([node], "lstm", inputs, [made]), opset_imports=[helper.make_opsetid("", 14)])
model.ir_version = 8
onnx.checker.check_model(model, full_check=True)
runtime = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)[0].ravel()
reference = ReferenceEvaluator(model).run(None, feed)[0].ravel()
print("last states: ONNX Runtime", runtime, "reference", reference)
assert runtime[1] < runtime[0] - 0.1 and reference[0] == reference[1], "otherwise than described"
assert np.isclose(runtime[0], reference[0], atol=1e-6), "otherwise than described"
PYTHON
echo "as described"
