#!/usr/bin/env bash
# ray.init(log_to_driver=False, logging_level="ERROR"), whose parameters are documented to keep the output of workers away
# from the driver, still prints on the driver's standard output when a worker process dies: what the raylet reports goes
# through a thread of its own, which print()s it to sys.stdout. A program that prints one JSON document there hands its
# reader something else as soon as a process of the cluster is killed. RAY_DEDUP_LOGS_SKIP_REGEX=.* in the environment,
# before ray is imported, is what keeps it away.
# Seen with ray 2.60.0, Python 3.11, Linux:
#   by its parameters alone: "... A worker died or was killed while executing a task ..." on standard output
#   with the variable: nothing
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cat > "$folder/program.py" <<'PYTHON'
import os
import signal
import time

import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
killed = ray.remote(max_retries=0)(lambda: os.kill(os.getpid(), signal.SIGKILL))
try:
    ray.get(killed.remote())
except ray.exceptions.WorkerCrashedError:
    time.sleep(3)
PYTHON
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_AUTH_TOKEN=only-for-this-script-0123456789abcdef
told=$("$folder/venv/bin/python" "$folder/program.py" 2> /dev/null)
quiet=$(RAY_DEDUP_LOGS_SKIP_REGEX=.* "$folder/venv/bin/python" "$folder/program.py" 2> /dev/null)
grep --quiet "A worker died or was killed" <<< "$told"
test -z "$quiet"
echo "by its parameters alone: ${told:0:90} ..."
echo "with the variable: nothing"
