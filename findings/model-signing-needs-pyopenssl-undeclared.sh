#!/usr/bin/env bash
# model-signing (signed manifests of model folders) imports pyOpenSSL as soon as it is imported itself, but does not ask for
# it: sigstore brought it along up to 4.5.0, and 4.5.1 dropped it. So a plain `pip install model-signing` ends well, `pip
# check` finds nothing amiss, and every use of it ends in a ModuleNotFoundError, `model_signing --help` and signing with a
# plain key included, which need no certificate at all. With pyOpenSSL beside it the same line signs, and what it signed
# verifies.
# Seen with model-signing 1.1.1, sigstore 4.5.1, cryptography 50.0.2, then pyOpenSSL 26.4.0, Python 3.11:
#   pip check: No broken requirements found.      model_signing --help: ModuleNotFoundError: No module named 'OpenSSL'
#   with pyOpenSSL: signed, verified
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
install model-signing==1.1.1 sigstore==4.5.1 cryptography==50.0.2
echo "pip check: $("$folder/venv/bin/pip" check --disable-pip-version-check)"
mkdir "$folder/model"
echo "weights" >"$folder/model/weights.txt"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

key = ec.generate_private_key(ec.SECP256R1())
Path(sys.argv[1], "key").write_bytes(
    key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
)
Path(sys.argv[1], "key.pub").write_bytes(
    key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)
PYTHON
tool="$folder/venv/bin/model_signing"
sign=("$tool" sign key "$folder/model" --private_key "$folder/key" --signature "$folder/signature")
missing="ModuleNotFoundError: No module named 'OpenSSL'"
for command in help sign; do
  if [ "$command" = help ]; then line=("$tool" --help); else line=("${sign[@]}"); fi
  if "${line[@]}" >"$folder/output" 2>&1; then echo "$command works now"; exit 1; fi
  echo "$command: $(tail -n 1 "$folder/output")"
  [ "$(tail -n 1 "$folder/output")" = "$missing" ]
done
install pyopenssl==26.4.0 cryptography==50.0.2
"${sign[@]}"
"$tool" verify key "$folder/model" --public_key "$folder/key.pub" --signature "$folder/signature"
echo "as described"
