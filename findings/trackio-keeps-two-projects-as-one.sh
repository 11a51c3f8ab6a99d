#!/usr/bin/env bash
# Trackio keeps a project in a file named by the letters, digits, "-" and "_" of its name, so that projects whose names differ in
# other characters only are one: lr-0.1 and lr-01 show each other's runs. No error, no warning.
# Seen with trackio 0.43.0, Python 3.11:
#   a run of "lr-0.1" and a run of "lr-01" are both listed as runs of either
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trackio==0.43.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import os
import sys

os.environ["TRACKIO_DIR"] = os.environ["HF_HOME"] = sys.argv[1] + "/trackio"
import trackio

for project, rate in (("lr-0.1", 0.1), ("lr-01", 1.0)):
    trackio.init(project=project, name=f"run-{rate}", embed=False)
    trackio.log({"loss": rate})
    trackio.finish()
names = {project: sorted(run.name for run in trackio.Api().runs(project)) for project in ("lr-0.1", "lr-01")}
print(names)
assert names["lr-0.1"] == names["lr-01"] == ["run-0.1", "run-1.0"], "otherwise than described"
PYTHON
echo "as described"
