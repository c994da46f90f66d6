"""What lies in a folder that models are pushed to, so that a cache knows when others push or roll back."""

from mlplatform.errors import MlplatformError
from mlplatform.fingerprints.digests import UNSEEN, text_digest
from mlplatform.orchestration.local.cache.sources import names_digest
from mlplatform.storage.urls import is_local, name, parent


def versions_digest(folder: str) -> str:
    """Return the digest of the versions in a folder that something was pushed to.

    Of a local folder, the names in it: a roll-back moves a version away. At a URL, where it stays, the
    versions that serve by the ledger; or the names, of what has no ledger.

    Returns:
        Hexadecimal, 32 characters; empty where the folder is not there; `UNSEEN` where it cannot be reached.
    """
    if is_local(folder):
        return names_digest(folder)
    # Here: local roots need neither.
    from mlplatform.registry.history import History
    from mlplatform.registry.model_ledger import ModelLedger
    from mlplatform.storage import open_storage

    try:
        if events := ModelLedger(parent(folder)).events(name(folder)):
            history = History.of(events)
            serving = history.digests.keys() - history.withdrawn.keys() - history.removed
            names = [f"{version} {history.digests[version]}" for version in sorted(serving)]
        else:
            names = open_storage(folder).names("")
    except MlplatformError:
        return UNSEEN
    return text_digest("\n".join(names)) if names else ""
