#!/usr/bin/env bash
# Parquet has had a registered media type since 2024, application/vnd.apache.parquet. mlcroissant validates metadata that name it
# without an error or a warning about it, and then cannot read the records of the file: it knows application/x-parquet alone.
# Seen with mlcroissant 1.1.1, pandas 3.1.1, pyarrow 26.0.1, Python 3.11:
#   application/x-parquet: 3 records; application/vnd.apache.parquet: validated, then "None of the provided encoding formats
#   ... returned a valid pandas dataframe"
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlcroissant==1.1.1 pandas==3.1.1 pyarrow==26.0.1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import hashlib
import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import mlcroissant
import pandas

folder = Path(sys.argv[1])
pandas.DataFrame({"label": [0, 1, 2]}).to_parquet(folder / "train.parquet")


def dataset(media_type):
    file = mlcroissant.FileObject(
        id="train.parquet",
        name="train.parquet",
        content_url="train.parquet",
        encoding_formats=[media_type],
        sha256=hashlib.sha256((folder / "train.parquet").read_bytes()).hexdigest(),
    )
    column = mlcroissant.Source(file_object="train.parquet", extract=mlcroissant.Extract(column="label"))
    field = mlcroissant.Field(id="train/label", name="label", data_types=mlcroissant.DataType.INTEGER, source=column)
    records = mlcroissant.RecordSet(id="train", name="train", fields=[field])
    metadata = mlcroissant.Metadata(name="three", distribution=[file], record_sets=[records])
    path = folder / "croissant.json"
    path.write_text(json.dumps(metadata.to_json(), default=str))
    return mlcroissant.Dataset(path)


print("application/x-parquet:", len(list(dataset("application/x-parquet").records("train"))), "records")
registered = dataset("application/vnd.apache.parquet")
assert not registered.metadata.ctx.issues.errors and "parquet" not in registered.metadata.ctx.issues.report(), (
    "otherwise than described"
)
try:
    list(registered.records("train"))
except Exception as error:
    print("application/vnd.apache.parquet: validated, then", error.__cause__)
    assert "returned a valid pandas dataframe" in str(error.__cause__), "otherwise than described"
else:
    raise SystemExit("otherwise than described")
PYTHON
echo "as described"
