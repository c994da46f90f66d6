"""Signatures of pushed versions, as OpenSSF Model Signing defines them (the package `model-signing`).

A signature covers every file of a version, its `push.json` included. The owner of the private key vouches for
the model; a server needs only the public key.
"""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlplatform.errors import MissingExtraError
from mlplatform.registry.contents import PUSH_FILE, SIGNATURE_FILE, model_folder
from mlplatform.registry.errors import SignatureError, SigningKeyError
from mlplatform.registry.push_record import read_push

SIGNING_KEY_VARIABLE = "MLPLATFORM_SIGNING_KEY"
PUBLIC_KEY_VARIABLE = "MLPLATFORM_PUBLIC_KEY"
_PEM_START = "-----BEGIN"


def signing_key(named: str = "") -> str:
    """Return the private key to sign with: `named`, else `$MLPLATFORM_SIGNING_KEY`; empty for none.

    A key is a PEM file's path, or the PEM text itself.
    """
    return named or os.environ.get(SIGNING_KEY_VARIABLE, "")


def public_key(named: str = "") -> str:
    """Return the public key to trust: `named`, else `$MLPLATFORM_PUBLIC_KEY`; empty where there is none."""
    return named or os.environ.get(PUBLIC_KEY_VARIABLE, "")


def check_public_key(key: str) -> None:
    """See that signatures can be verified with a public key.

    Raises:
        SigningKeyError: `key` is not a public key that can be used.
        MissingExtraError: The extra `signing` is not installed.
    """
    _verifier(_library(), key)


def sign(folder: Path, key: str) -> None:
    """Sign a version's files and write the signature beside them.

    Raises:
        SigningKeyError: `key` is not a private key that can be used.
        MissingExtraError: The extra `signing` is not installed.
    """
    library = _library()
    with _key_file(key) as file:
        try:
            signer = library.signing.Config().use_elliptic_key_signer(private_key=file)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SigningKeyError(_name_of(key), _text(error)) from error
    signer.set_hashing_config(_hashing(library)).sign(folder, folder / SIGNATURE_FILE)


def verify(folder: Path, key: str) -> None:
    """See that a version is signed by the owner of a public key, under the name of the model that it is.

    Args:
        folder: The version's folder, `NAME/VERSION` or `NAME/withdrawn/VERSION`.
        key: The public key: a PEM file or its text.

    Raises:
        SignatureError: It is not signed, signed by another key, for another model, or was changed since.
        SigningKeyError: `key` is not a public key that can be used.
        MissingExtraError: The extra `signing` is not installed.
    """
    library = _library()
    verifier = _verifier(library, key)
    if not (folder / SIGNATURE_FILE).is_file():
        raise SignatureError(folder, "it is not signed")
    try:
        verifier.set_hashing_config(_hashing(library)).verify(folder, folder / SIGNATURE_FILE)
    except Exception as error:  # whatever a forged signature makes of the parsers below
        raise SignatureError(folder, f"its signature does not hold: {_text(error)}") from error
    push, name = read_push(folder / PUSH_FILE), model_folder(folder).name
    if push is None or push.model != name:
        signed_for = repr(push.model) if push else "no model"
        raise SignatureError(folder, f"it was signed for {signed_for} and lies under {name!r}")


def public_part(key: str) -> str:
    """Return the public key, PEM, that belongs to a private one.

    Raises:
        SigningKeyError: `key` is not a private key that can be used.
    """
    from cryptography.hazmat.primitives import serialization

    with _key_file(key) as file:
        try:
            private = serialization.load_pem_private_key(file.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise SigningKeyError(_name_of(key), _text(error)) from error
    return (
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def _verifier(library: Any, key: str) -> Any:
    with _key_file(key) as file:
        try:
            return library.verifying.Config().use_elliptic_key_verifier(public_key=file)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SigningKeyError(_name_of(key), _text(error)) from error


def _hashing(library: Any) -> Any:
    return library.hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            # Google's key service client, which the library imports, warns of the Python and gRPC it finds.
            warnings.simplefilter("ignore", FutureWarning)
            import model_signing
    except ImportError as error:
        raise MissingExtraError("model-signing", "signing", "Signing models") from error
    return model_signing


@contextmanager
def _key_file(key: str) -> Iterator[Path]:
    """The file of a key: the library reads no text."""
    if not key.lstrip().startswith(_PEM_START):
        yield Path(key)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # mode 0600
        file.write(key)
        file.flush()
        yield Path(file.name)


def _name_of(key: str) -> str:
    return "the given PEM text" if key.lstrip().startswith(_PEM_START) else key


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
