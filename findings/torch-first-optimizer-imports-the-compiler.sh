#!/usr/bin/env bash
# The first optimizer that a process makes imports torch.compile's machinery, although nothing is compiled: torch.optim's
# methods are wrapped by torch._disable_dynamo, which imports torch._dynamo at the first call, and with it sympy, torch.onnx's
# registrations and hundreds of other modules. Every training worker pays for it, in memory and in time, whatever the optimizer.
# Seen with torch 2.13.0 (CPU), Python 3.11, on Linux, where `import torch` alone has neither torch._dynamo nor sympy:
#   torch.optim.SGD([one parameter]): 800 modules or so more, more than 50 MB of resident memory more, more than half a second
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import time
from pathlib import Path

import torch


def resident_megabytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


weight = torch.zeros(1, requires_grad=True)
assert "torch._dynamo" not in sys.modules and "sympy" not in sys.modules, "otherwise than described"
modules, memory, began = len(sys.modules), resident_megabytes(), time.perf_counter()
torch.optim.SGD([weight])
modules, memory = len(sys.modules) - modules, resident_megabytes() - memory
print(f"torch {torch.__version__}: one SGD: {modules} modules, {memory:.0f} MB, {time.perf_counter() - began:.1f} s")
assert "torch._dynamo" in sys.modules and "sympy" in sys.modules, "otherwise than described"
assert modules > 400 and memory > 50, "otherwise than described"
PYTHON
echo "as described"
