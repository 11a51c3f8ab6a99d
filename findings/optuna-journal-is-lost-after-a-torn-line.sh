#!/usr/bin/env bash
# Optuna's journal file (JournalFileBackend) whose last line a power cut or a full disk has torn opens without a word, and all
# earlier trials are there. The next record is written behind the torn one, on the same line: from then on the file cannot be read
# any more, by this process or by any other, and all trials are lost to Optuna. Cutting the torn line off before opening saves them.
# Seen with optuna 5.0.0, Python 3.11:
#   opened with 5 trials; after one more: JSONDecodeError; cut off first: 6 trials
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optuna==5.0.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)
journal = Path(sys.argv[1]) / "journal.log"


def study() -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(study_name="search", storage=storage, load_if_exists=True)


def one_more() -> str:
    try:
        study().optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        return f"{len(study().trials)} trials"
    except json.JSONDecodeError as error:
        return type(error).__name__


study().optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
lines = journal.read_bytes().splitlines(keepends=True)
torn = b"".join(lines[:-1]) + lines[-1][:20]
journal.write_bytes(torn)
opened = len(study().trials)
after = one_more()
journal.write_bytes(torn[: torn.rfind(b"\n") + 1])
saved = one_more()
print(f"opened with {opened} trials; after one more: {after}; cut off first: {saved}")
assert (opened, after, saved) == (5, "JSONDecodeError", "6 trials"), "otherwise than described"
PYTHON
echo "as described"
