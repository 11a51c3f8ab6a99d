#!/usr/bin/env bash
# safetensors.numpy writes the memory of an array as it lies and calls it C order, whatever the strides say: arrays in
# Fortran order (a transposed kernel, any matrix that scipy.io.loadmat read) and arrays with steps come back with their
# values in other places, of the right shape and type, without an error or a warning. The PyTorch side of the same package
# refuses such tensors, and up to 0.7.0 the NumPy side wrote them rightly. (Upstream: issue 825, open when this was written.)
# Seen with safetensors 0.8.0 and 0.7.0, numpy 2.4.6, scipy 1.17.1, Python 3.11:
#   0.8.0: kernel.T [[0, 3], [1, 4], [2, 5]] comes back as [[0, 1], [2, 3], [4, 5]],
#          [[0, 1, 2], [3, 4, 5]] out of a .mat file as [[0, 3, 1], [4, 2, 5]], pixels[::2] [0, 2, 4] as [0, 1, 2]
#   0.7.0: all three come back as they were
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
for version in 0.7.0 0.8.0; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "safetensors==$version" numpy==2.4.6 scipy==1.17.1
  "$folder/venv/bin/python" - "$folder" "$version" <<'PYTHON'
import sys

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.io import loadmat, savemat

folder, version = sys.argv[1:]
kernel = np.arange(6.0).reshape(2, 3)
savemat(f"{folder}/images.mat", {"images": kernel})
from_matlab = loadmat(f"{folder}/images.mat")["images"]
arrays = {"kernel.T": kernel.T, "of a .mat file": from_matlab, "pixels[::2]": np.arange(6.0)[::2]}
save_file(arrays, f"{folder}/arrays.safetensors")
loaded = load_file(f"{folder}/arrays.safetensors")
for name, array in arrays.items():
    print(f"safetensors {version}, {name}: stored {array.tolist()}, read {loaded[name].tolist()}")
    assert loaded[name].shape == array.shape and loaded[name].dtype == array.dtype
    assert np.array_equal(loaded[name], array) == (version == "0.7.0"), "otherwise than described"
    # What comes back is the memory from the first value on.
    packed = array.ravel(order="F") if array.ndim == 2 else array.base[:3]
    assert version == "0.7.0" or np.array_equal(loaded[name].ravel(), packed), "otherwise than described"
PYTHON
done
echo "as described"
