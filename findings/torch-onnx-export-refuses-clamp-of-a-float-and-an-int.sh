#!/usr/bin/env bash
# torch.onnx.export refuses x.clamp(0.5, 1): one bound a float and the other an int. Eager PyTorch computes it, torch.export captures
# it, and its decompositions pass; two floats, or two ints, are exported. The exporter promotes the types of both bounds, and then
# finds no overload of aten.clamp for one number and one tensor. The message names an operator and a cast, and the remedy, 1.0 for 1, is not in it.
# Seen with torch 2.13.0 (CPU), onnx 1.23.2, onnxscript 0.7.2, Python 3.11:
#   (0.5, 1.0) exported, (0, 1) exported, (0.5, 1) and (0, 1.0) ConversionError
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import torch


class Clamp(torch.nn.Module):
    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.bounds = low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(*self.bounds)


def outcome(low: float, high: float) -> str:
    module, x = Clamp(low, high).eval(), torch.rand(2, 3)
    module(x)
    torch.export.export(module, (x,)).run_decompositions()
    try:
        torch.onnx.export(module, (x,), dynamo=True, verbose=False)
    except Exception as error:
        return type(error).__name__
    return "exported"


found = [outcome(*bounds) for bounds in ((0.5, 1.0), (0, 1), (0.5, 1), (0, 1.0))]
print(torch.__version__, found)
assert found == ["exported", "exported", "ConversionError", "ConversionError"], "otherwise than described"
PYTHON
echo "as described"
