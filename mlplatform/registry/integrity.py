"""Is a version still what was pushed, and signed by whom it must be?"""

from pathlib import Path

from mlplatform.registry.contents import PUSH_FILE, model_folder, tree_digest
from mlplatform.registry.errors import LedgerAccessError, ModelChangedError, UnpushableFileError
from mlplatform.registry.history import History
from mlplatform.registry.ledger_file import LEDGER_FILE, Ledger
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


def check_unchanged(folder: Path) -> bool:
    """See that a version's files are those that were pushed; False where no record says what was pushed.

    Raises:
        ModelChangedError: A file was changed, added or removed since the push.
    """
    expected = _recorded_digests(folder)
    if not expected:
        return False
    try:
        found = tree_digest(folder)
    except (UnpushableFileError, OSError) as error:
        raise ModelChangedError(folder, expected[0], " ".join(str(error).split())) from error
    for digest in expected:
        if digest != found:
            raise ModelChangedError(folder, digest, found)
    return True


def _recorded_digests(folder: Path) -> list[str]:
    """Return the digest in the ledger and the one in `push.json`, as far as they are there."""
    found = []
    try:
        history = History.of(Ledger(model_folder(folder) / LEDGER_FILE).events())
        if digest := history.digests.get(int(folder.name)):
            found.append(digest)
    except (LedgerAccessError, ValueError):  # then what push.json says must do
        pass
    push = read_push(folder / PUSH_FILE)
    return [*found, push.digest] if push else found
