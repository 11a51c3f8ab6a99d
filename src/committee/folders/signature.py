"""The signature of a bundle, in a file beside it: who holds a private key has seen these very bytes.

The file is a Sigstore bundle as OpenSSF's model-signing writes it, so that `model_signing verify key` checks it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from committee import disk
from committee.errors import RunError, require
from committee.folders import files, parsing
from committee.temporary import temporary_folder

ENDING = ".sig"
LARGEST = 2**20  # bytes of a signature or a key
PURPOSE = "Signing a bundle, or checking a signature,"


MISMATCHES = {
    "Signature mismatch": "{bundle} was changed after it was signed",
    "Key mismatch": "{bundle} was signed with another key than {public_key}",
}
"""How model-signing's errors begin, and what they mean; any other is about the signature's own bytes."""


def signer(private_key: Path) -> Callable[[Path], Path]:
    """What signs bundles with a key: a bundle's path -> its signature's.

    The key is read now, before there is a bundle, so that none is written that then cannot be signed.

    Args:
        private_key: of the curve P-256, P-384 or P-521, in PEM, without a password.

    Raises:
        MissingExtraError: model-signing is not installed.
        RunError: the key is none.
        StorageError: what it returns is called, and the signature cannot be written.
    """
    signing: Any = require("model_signing.signing", "signing", PURPOSE)
    files.read_bytes(private_key, LARGEST)
    try:
        configured = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # of several libraries: whatever they say, there is no key
        raise RunError(
            f"{private_key} is no private key in PEM of the curve P-256, P-384 or P-521 without a password; make one "
            "with: openssl ecparam -name prime256v1 -genkey -noout -out private.pem"
        ) from error

    def sign(bundle: Path) -> Path:
        with temporary_folder(LARGEST, "a signature") as folder:  # the library does not write files whole
            configured.sign(bundle, folder / "signature")
            disk.write(path_of(bundle), (folder / "signature").read_bytes())
        return path_of(bundle)

    return sign


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
    signature = path_of(bundle)
    if not signature.exists():
        raise RunError(
            f"{bundle} is not signed: there is no {signature} beside it; ask its author for it, or leave --key away"
        )
    content, _ = files.read_bytes(signature, LARGEST), files.read_bytes(public_key, LARGEST)
    try:
        configured = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # as of `signer`
        raise RunError(
            f"{public_key} is no public key in PEM of the curve P-256, P-384 or P-521; ask the author of {bundle} for "
            "it, or make it of your private key with: openssl ec -in private.pem -pubout -out public.pem"
        ) from error
    try:
        parsing.json_value(content, signature)
        configured.verify(bundle, signature)
    except Exception as error:  # of several libraries: whatever they say, the signature has not been confirmed
        said = next((words for start, words in MISMATCHES.items() if str(error).startswith(start)), "")
        what = said.format(bundle=bundle, public_key=public_key) or f"{signature} is damaged or no signature"
        raise RunError(f"{what}; ask the author for the bundle, its signature and the public key again") from error


def path_of(bundle: Path) -> Path:
    """Where the signature of a bundle is, if it is signed."""
    return bundle.with_name(bundle.name + ENDING)
