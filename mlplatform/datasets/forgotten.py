"""The records that were forgotten on purpose: whose bytes are no longer in the store."""

from collections.abc import Sequence

import numpy as np

from mlplatform.datasets.errors import ForgottenRecordError
from mlplatform.datasets.hashing import Ids
from mlplatform.datasets.line import Line
from mlplatform.datasets.manifest import unsealed
from mlplatform.datasets.storage import Storage

_NAMED = 10


def forgotten_folder(dataset: str) -> str:
    """Return the folder of the notes on what was forgotten."""
    return f"{dataset}/forgotten"


def erased_path(dataset: str, pack: str) -> str:
    """Return the path of the note on what a gzip pack is since records were erased from it."""
    return f"{dataset}/erased/{pack}.json"


def forgotten_ids(storage: Storage, dataset: str) -> Ids:
    """Return the ids of all forgotten records of a dataset."""
    names: list[str] = []
    for note in storage.names(forgotten_folder(dataset)):
        path = f"{forgotten_folder(dataset)}/{note}"
        names += unsealed(storage.read(path), f"{storage.url}/{path}")["records"]
    return Ids.from_bytes(bytes.fromhex("".join(sorted(set(names)))))


def is_forgotten(ids: Ids, forgotten: Ids) -> "np.typing.NDArray[np.bool_]":
    """Return which ids are forgotten: bool, shape (records,)."""
    if not len(forgotten):
        return np.zeros(len(ids), np.bool_)
    suspects = np.flatnonzero(np.isin(ids.high, forgotten.high))
    result = np.zeros(len(ids), np.bool_)
    gone = set(forgotten.names())
    result[suspects] = [name in gone for name in ids[suspects].names()]
    return result


def check_none_forgotten(line: Line, parts: Sequence[Ids]) -> None:
    """Check that no forgotten record comes back. Raises ForgottenRecordError."""
    forgotten = forgotten_ids(line.storage, line.dataset)
    if not len(forgotten):
        return
    back = Ids.join([ids[is_forgotten(ids, forgotten)] for ids in parts])
    if len(back):
        raise ForgottenRecordError(line.dataset, back[:_NAMED].names(), len(back))
