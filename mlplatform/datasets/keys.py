"""Hashes of the keys of records: made by the first commit that needs them and kept beside the pack."""

import hashlib
import json
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from mlplatform.datasets.format.features import hash_values
from mlplatform.datasets.format.manifest import PackFacts
from mlplatform.datasets.format.pack_records import pack_windows
from mlplatform.datasets.format.tfrecord import UInt64s
from mlplatform.progress import track
from mlplatform.storage import Storage

_MAGIC = b"MLPKEYS1"
_CRC = struct.Struct("<I")


def keys_path(dataset: str, pack: str, key: Sequence[str]) -> str:
    """Return the path of a pack's key hashes in the store."""
    name = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:16]
    return f"{dataset}/keys/{pack}-{name}.keys"


def key_hashes(
    storage: Storage, dataset: str, packs: Sequence[PackFacts], key: Sequence[str]
) -> dict[str, UInt64s]:
    """Return the key hash of every record of some packs; see `features.hash_values`.

    Call it with the dataset held: hashes that are kept must not be of bytes that are being erased.

    Returns:
        Per pack name: uint64, shape (records of the pack,); 0 where a record has no key.
    """
    hashes: dict[str, UInt64s] = {}
    missing = []
    for pack in packs:
        found = kept_hashes(storage, dataset, pack, key)
        if found is None:
            missing.append(pack)
        else:
            hashes[pack.name] = found
    if missing:
        with track("read keys", sum(pack.records for pack in missing)) as bar:
            for pack in missing:
                parts = [np.zeros(0, np.uint64)]
                for window in pack_windows(storage, dataset, pack):
                    parts.append(hash_values(window.buffer, window.starts, window.ends, key))
                    bar.advance(window.starts.size)
                hashes[pack.name] = np.concatenate(parts)
                body = _MAGIC + hashes[pack.name].astype("<u8").tobytes()
                storage.put(keys_path(dataset, pack.name, key), body + _CRC.pack(zlib.crc32(body)))
    return hashes


def kept_hashes(storage: Storage, dataset: str, pack: PackFacts, key: Sequence[str]) -> UInt64s | None:
    """Return the key hashes of a pack that a commit kept; None where there are none, or damaged ones."""
    try:
        data = storage.read(keys_path(dataset, pack.name, key))
    except FileNotFoundError:
        return None
    if len(data) != len(_MAGIC) + 8 * pack.records + _CRC.size or not is_key_file_whole(data):
        return None
    return np.frombuffer(memoryview(data)[len(_MAGIC) : -_CRC.size], "<u8").astype(np.uint64)


def is_key_file_whole(data: bytes) -> bool:
    """Return whether a file of key hashes is what was written."""
    body = memoryview(data)[: -_CRC.size]
    return (
        len(data) >= len(_MAGIC) + _CRC.size
        and bytes(body[: len(_MAGIC)]) == _MAGIC
        and zlib.crc32(body) == _CRC.unpack_from(data, len(body))[0]
    )
