"""The items that were erased on purpose: whose bytes are no longer in the store, and must not come back.

The ids of their records and a salted hash of their key are kept: that is what a list of suppressed items
needs, and neither says whose it was.
"""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlplatform.datasets.errors import ForgottenRecordError
from mlplatform.datasets.examples_folder import Shard, open_records
from mlplatform.datasets.format.features import feature_values, hash_feature_values, hash_values, show
from mlplatform.datasets.format.fields import DIGEST, NAME_32, Fields
from mlplatform.datasets.format.hashing import Ids, record_ids
from mlplatform.datasets.format.manifest import PackFacts, unsealed
from mlplatform.datasets.format.pack import index_path, records_path
from mlplatform.datasets.format.pack_records import pack_windows
from mlplatform.datasets.format.tfrecord import Int64s, Window, read_windows
from mlplatform.datasets.line import Line, forgotten_folder
from mlplatform.storage import Storage

_NAMED = 10
_ROUNDS = 1000  # of the salted hash; it is taken of one record in `_PREFIXES` only
_PREFIXES = 1 << 16


@dataclass(frozen=True)
class ErasedItem:
    """An item that was erased, so that it is known again.

    Attributes:
        key: Features that identify it.
        salt: 16 random bytes.
        prefix: The low 16 bits of its `features.hash_values`, to pass over nearly all other records.
        digest: PBKDF2-HMAC-SHA256 of the values of its key.
    """

    key: tuple[str, ...]
    salt: bytes
    prefix: int
    digest: bytes

    @classmethod
    def of(cls, key: Sequence[str], values: Sequence[bytes]) -> "ErasedItem":
        """Describe an item by the serialized `Feature`s of its key."""
        salt = secrets.token_bytes(16)
        return cls(tuple(key), salt, hash_feature_values(values) % _PREFIXES, _digest(salt, values))

    def is_of(self, values: Sequence[bytes]) -> bool:
        """Return whether these are the values of its key."""
        return _digest(self.salt, values) == self.digest

    def to_json(self) -> dict[str, object]:
        """Return it as a field of a note."""
        return {
            "key": list(self.key),
            "salt": self.salt.hex(),
            "prefix": self.prefix,
            "digest": self.digest.hex(),
        }


@dataclass(frozen=True)
class Erasure:
    """A note on what was erased.

    Attributes:
        records: Ids of the records, in hexadecimal.
        items: The item, once per way to write its key.
        versions: Versions that held it.
        why: The reason that was given.
        at: UTC time, ISO 8601.
    """

    records: list[str]
    items: list[ErasedItem]
    versions: list[str]
    why: str
    at: str

    @classmethod
    def from_json(cls, data: bytes, path: str) -> "Erasure":
        """Read its file. Raises CorruptStoreError."""
        fields = unsealed(data, path)
        return cls(
            fields.texts("records", NAME_32),
            [_item(one) for one in fields.nested_list("items")] if "items" in fields else [],
            fields.texts("versions"),
            fields.text("why"),
            fields.text("at"),
        )


def _item(fields: Fields) -> ErasedItem:
    return ErasedItem(
        tuple(fields.texts("key")),
        bytes.fromhex(fields.text("salt", NAME_32)),
        fields.count("prefix", 0, _PREFIXES - 1),
        bytes.fromhex(fields.text("digest", DIGEST)),
    )


def _digest(salt: bytes, values: Sequence[bytes]) -> bytes:
    whole = b"".join(len(value).to_bytes(8, "little") + value for value in values)
    return hashlib.pbkdf2_hmac("sha256", whole, salt, _ROUNDS)


def erased_path(dataset: str, pack: str) -> str:
    """Return the path of the note on what a gzip pack is since records were erased from it."""
    return f"{dataset}/erased/{pack}.json"


def read_erased(data: bytes, path: str) -> bytes:
    """Read what a gzip pack is since records were erased from it: its SHA-256. Raises CorruptStoreError."""
    return bytes.fromhex(unsealed(data, path).text("file_sha256", DIGEST))


def erasures(storage: Storage, dataset: str) -> list[Erasure]:
    """Return what was erased from a dataset, the oldest first. Raises CorruptStoreError."""
    found = []
    for name in storage.names(forgotten_folder(dataset)):
        if name.endswith(".json"):  # nothing else is ours
            path = f"{forgotten_folder(dataset)}/{name}"
            found.append(Erasure.from_json(storage.read(path), f"{storage.url}/{path}"))
    return sorted(found, key=lambda erasure: erasure.at)


def forgotten_ids(storage: Storage, dataset: str) -> Ids:
    """Return the ids of all forgotten records of a dataset."""
    names = {name for erasure in erasures(storage, dataset) for name in erasure.records}
    return Ids.from_bytes(bytes.fromhex("".join(sorted(names))))


def is_forgotten(ids: Ids, forgotten: Ids) -> "np.typing.NDArray[np.bool_]":
    """Return which ids are forgotten: bool, shape (records,)."""
    if not len(forgotten):
        return np.zeros(len(ids), np.bool_)
    suspects = np.flatnonzero(np.isin(ids.high, forgotten.high))
    result = np.zeros(len(ids), np.bool_)
    gone = set(forgotten.names())
    result[suspects] = [name in gone for name in ids[suspects].names()]
    return result


def check_none_forgotten(
    line: Line, parts: Sequence[Ids], shards: Sequence[Shard], key: Sequence[str]
) -> None:
    """Check that no erased record comes back.

    Args:
        line: The versions so far.
        parts: The ids of what is committed.
        shards: The files that are committed, to name in them what came back.
        key: Features that identify an item.

    Raises:
        ForgottenRecordError: Some do; names them, and the files that still have them.
    """
    forgotten = forgotten_ids(line.storage, line.dataset)
    back = sum(int(np.count_nonzero(is_forgotten(ids, forgotten))) for ids in parts)
    if back:
        raise ForgottenRecordError(line.dataset, _in_shards(shards, forgotten, key), back)


def check_no_erased_item(line: Line, new_packs: Sequence[PackFacts], source: str) -> None:
    """Check that no erased item comes back with other content; what was written of one is deleted at once.

    Args:
        line: The versions so far.
        new_packs: The packs that a commit wrote; no version reads them yet.
        source: What is committed.

    Raises:
        ForgottenRecordError: One does; names it.
    """
    by_key: dict[tuple[str, ...], list[ErasedItem]] = {}
    for erasure in erasures(line.storage, line.dataset) if new_packs else []:
        for item in erasure.items:
            by_key.setdefault(item.key, []).append(item)
    back = [
        f"{named} (in {source})"
        for pack in new_packs if by_key
        for window in pack_windows(line.storage, line.dataset, pack)
        for key, items in by_key.items()
        for named in _erased_items(window, key, items)
    ]  # fmt: skip
    if back:
        for pack in new_packs:
            line.storage.delete(records_path(line.dataset, pack))
            line.storage.delete(index_path(line.dataset, pack.name))
        raise ForgottenRecordError(line.dataset, back[:_NAMED], len(back))


def _erased_items(window: Window, key: tuple[str, ...], items: Sequence[ErasedItem]) -> Iterator[str]:
    """Yield the keys of the records of a window that are of erased items."""
    hashes = hash_values(window.buffer, window.starts, window.ends, key)
    prefixes = np.array([item.prefix for item in items], np.uint64)
    rows = np.flatnonzero((hashes != 0) & np.isin(hashes % np.uint64(_PREFIXES), prefixes))
    for row, values in zip(rows.tolist(), _values(window, rows, key), strict=True):
        mine = [item for item in items if item.prefix == int(hashes[row]) % _PREFIXES]
        if values is not None and any(item.is_of(values) for item in mine):
            yield named_key(key, values)


def _in_shards(shards: Sequence[Shard], forgotten: Ids, key: Sequence[str]) -> list[str]:
    """Name some of the forgotten records in the files that have them."""
    found: list[str] = []
    for shard in shards:
        with open_records(shard) as stream:
            for window in read_windows(stream, shard.path):
                ids = record_ids(window.buffer, window.starts, window.ends)
                rows = np.flatnonzero(is_forgotten(ids, forgotten))
                keys = _values(window, rows, key) if key else [None] * rows.size
                for record, values in zip(ids[rows].names(), keys, strict=True):
                    item = f"{named_key(key, values)}, " if values is not None else ""
                    found.append(f"{item}record {record} (in {shard.path})")
        if len(found) >= _NAMED:
            break
    return found[:_NAMED]


def _values(window: Window, rows: Int64s, key: Sequence[str]) -> list[tuple[bytes, ...] | None]:
    return feature_values(window.buffer, window.starts[rows], window.ends[rows], key)


def named_key(key: Sequence[str], values: Sequence[bytes]) -> str:
    """Return a key as text, such as `item_id=i-7`."""
    return ", ".join(f"{name}={show(value)}" for name, value in zip(key, values, strict=True))
