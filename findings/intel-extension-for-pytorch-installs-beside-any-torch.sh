#!/usr/bin/env bash
# intel-extension-for-pytorch needs the very torch release that it was built for, but its metadata asks for none, so pip puts its
# newest release beside any torch without a word. The import prints which torch it needs and then means to leave by os.exit,
# which does not exist, so that it ends in a traceback: AttributeError: module 'os' has no attribute 'exit'. A program that guards
# the import by `except ImportError`, as one does for an extension, ends there, too.
# Seen with intel-extension-for-pytorch 2.8.0, torch 2.13.0 (CPU), Python 3.11: pip ends without an error, the metadata
# asks for no torch, import intel_extension_for_pytorch raises that AttributeError. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 intel-extension-for-pytorch==2.8.0
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import requires, version

import torch

asked = [each for each in requires("intel-extension-for-pytorch") or [] if each.lower().startswith("torch")]
print(f"intel-extension-for-pytorch {version('intel-extension-for-pytorch')} beside torch {torch.__version__}; asks for: {asked}")
assert not asked, "otherwise than described"
try:
    import intel_extension_for_pytorch  # noqa: F401
except AttributeError as error:
    print(f"import: AttributeError: {error}")
    assert str(error) == "module 'os' has no attribute 'exit'", "otherwise than described"
else:
    raise SystemExit("otherwise than described: the import works")
PYTHON
echo "as described"
