#!/usr/bin/env bash
# A program exported for 1 to 64 images becomes an ExecuTorch program for at most 15 where a convolution gets a permuted view of the
# images (height, width, channel -> channel first, the usual first step for raw pixels). Nothing is said when it is lowered; the first
# batch of 16 is refused when it runs. torch.export's own program keeps 1 to 64, and so does the lowered one without the permutation,
# or with the same values copied. The range of the batch shrinks while the operators are broken up: a test for batches below 16, which
# only chooses between ways to compute, is recorded as a fact about the input.
# Seen with executorch 1.5.1, torch 2.13.0 (CPU), Python 3.11:
#   exported for 1 to 64; lowered: as it is 64, permuted 15, permuted and copied 64
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 executorch==1.5.1 numpy==2.4.6 setuptools
"$folder/venv/bin/python" -W ignore - <<'PYTHON' 2>/dev/null
from importlib.metadata import version

import torch
from executorch.exir import to_edge_transform_and_lower


class Network(torch.nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.convolution = how, torch.nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return self.convolution(self.how(images))


HOW = {
    "as it is": (lambda images: images, (2, 3, 28, 28), 64),
    "permuted": (lambda images: images.permute(0, 3, 1, 2), (2, 28, 28, 3), 15),
    "permuted and copied": (lambda images: images.permute(0, 3, 1, 2).contiguous(), (2, 28, 28, 3), 64),
}
for name, (how, shape, expected) in HOW.items():
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Network(how).eval(), (torch.rand(shape),), dynamic_shapes={"images": {0: batch}})
    exported = [each.upper for each in program.range_constraints.values()]
    lowered = to_edge_transform_and_lower(program).exported_program()
    found = [int(each.upper) for each in lowered.range_constraints.values()]
    print(f"executorch {version('executorch')}, torch {torch.__version__}, {name}: exported for up to {exported}, lowered {found}")
    assert exported == [64] and found == [expected], "otherwise than described"
PYTHON
echo "as described"
