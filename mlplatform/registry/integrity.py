"""Is a version still what was pushed, and signed by whom it must be?"""

from collections.abc import Sequence
from pathlib import Path

from mlplatform.registry.contents import PUSH_FILE, model_folder, tree_digest
from mlplatform.registry.errors import LedgerAccessError, ModelChangedError, UnpushableFileError
from mlplatform.registry.history import History
from mlplatform.registry.model_ledger import ModelLedger
from mlplatform.registry.push_record import read_push
from mlplatform.registry.signing import verify


def check_version(folder: Path, trusted_key: str = "") -> None:
    """See that a version's files are those that were pushed; called before they are loaded.

    A folder without a record of its push, which something else put there, is not checked, unless signatures
    are asked for.

    Args:
        folder: The version's folder.
        trusted_key: Public key, PEM file or text, by whose owner it must be signed; empty asks for none.

    Raises:
        ModelChangedError: A file was changed, added or removed since the push.
        SignatureError: It is not signed by the key's owner, or changed since.
    """
    check_unchanged(folder)
    if trusted_key:
        verify(folder, trusted_key)


def check_unchanged(folder: Path, recorded: Sequence[str] = (), *, place: str = "") -> bool:
    """See that a version's files are those that were pushed; False where no record says what was pushed.

    Args:
        folder: The version's folder.
        recorded: Digests that it must have, of a copy whose ledger lies elsewhere; of a folder of models, the
            ledger beside it has them.
        place: Where `folder` was copied from, for the error.

    Raises:
        ModelChangedError: A file was changed, added or removed since the push.
    """
    expected = [*(recorded or _in_ledger(folder)), *_in_push_record(folder)]
    if not expected:
        return False
    try:
        found = tree_digest(folder)
    except (UnpushableFileError, OSError) as error:
        text = " ".join(str(error).split())
        raise ModelChangedError(place or folder, expected[0], text) from error
    for digest in expected:
        if digest != found:
            raise ModelChangedError(place or folder, digest, found)
    return True


def _in_ledger(folder: Path) -> list[str]:
    model = model_folder(folder)
    try:
        history = History.of(ModelLedger(str(model.parent)).events(model.name))
        digest = history.digests.get(int(folder.name))
    except (LedgerAccessError, ValueError):  # then what push.json says must do
        return []
    return [digest] if digest else []


def _in_push_record(folder: Path) -> list[str]:
    push = read_push(folder / PUSH_FILE)
    return [push.digest] if push else []
