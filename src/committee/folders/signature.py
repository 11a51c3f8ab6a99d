"""The signature of a bundle, in a file beside it: who holds a private key has seen these very bytes.

The file is a Sigstore bundle as OpenSSF's model-signing writes it, so that `model_signing verify key` checks it, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from committee import disk
from committee.errors import RunError, require
from committee.folders import files, parsing

ENDING = ".sig"
LARGEST = 2**20  # bytes of a signature or a key
PURPOSE = "Signing a bundle, or checking a signature,"


def sign(bundle: Path, private_key: Path) -> Path:
    """Sign a bundle; the signature's path is returned.

    Args:
        bundle: the file.
        private_key: of the curve P-256, P-384 or P-521, in PEM, without a password.

    Raises:
        MissingExtraError: model-signing is not installed.
        RunError: the key is none.
        StorageError: the signature cannot be written.
    """
    signing: Any = require("model_signing.signing", "signing", PURPOSE)
    files.read_bytes(private_key, LARGEST)
    signature = _signature_of(bundle)
    with disk.failures_said(signature):
        try:
            signing.Config().use_elliptic_key_signer(private_key=private_key).sign(bundle, signature)
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{private_key} is no private key that signs ({_first_line(error)}); make one with: openssl ecparam "
                "-name prime256v1 -genkey -noout -out private.pem"
            ) from error
    return signature


def check(bundle: Path, public_key: Path) -> None:
    """Check the signature beside a bundle.

    Args:
        bundle: the file.
        public_key: in PEM, of the private key that signed.

    Raises:
        MissingExtraError: model-signing is not installed.
        RunError: there is no signature, or it is not of this file and this key.
    """
    verifying: Any = require("model_signing.verifying", "signing", PURPOSE)
    signature = _signature_of(bundle)
    parsing.json_value(files.read_bytes(signature, LARGEST), signature)
    files.read_bytes(public_key, LARGEST)
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public_key).verify(bundle, signature)
    except Exception as error:  # of several libraries: whatever they say, the signature has not been confirmed
        raise RunError(
            f"{signature} is no signature of {bundle} with the key {public_key} ({_first_line(error)}); get bundle, "
            "signature and public key from their author again"
        ) from error


def _signature_of(bundle: Path) -> Path:
    return bundle.with_name(bundle.name + ENDING)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
