"""Packs: immutable TFRecord files, each with an index of the records in it."""

import hashlib
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.errors import CorruptStoreError, StoreFormatError
from mlplatform.datasets.hashing import ID_BYTES, Ids
from mlplatform.datasets.manifest import PackFacts
from mlplatform.datasets.storage import Storage
from mlplatform.datasets.tfrecord import FRAME_BYTES, Int64s

_MAGIC = b"MLPKIDX\0"
_VERSION = 1
_HEADER = struct.Struct("<8sHHIQ32s")  # magic, format, is gzip, nothing, records, SHA-256 of the gzip file
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class PackIndex:
    """The records of a pack, in file order.

    Attributes:
        ids: The records' ids.
        sizes: uint32, shape (records,): payload bytes.
        is_gzip: The record file is gzip-compressed.
        file_sha256: SHA-256 of the record file where it is compressed (a flipped byte of gzip's own header
            would go unseen otherwise), 32 zero bytes where it is plain.
    """

    ids: Ids
    sizes: npt.NDArray[np.uint32]
    is_gzip: bool
    file_sha256: bytes = bytes(32)

    @property
    def name(self) -> str:
        """The pack's name: the same for the same records in the same frames."""
        content = hashlib.sha256(self.ids.to_bytes())
        content.update(self.sizes.astype("<u4").tobytes())
        content.update(self.file_sha256)
        return content.hexdigest()[:32]

    def frames(self) -> Int64s:
        """Return where frames begin in the uncompressed file, and where the last one ends.

        Returns:
            int64, shape (records + 1,).
        """
        bounds = np.zeros(self.sizes.size + 1, np.int64)
        np.cumsum(self.sizes.astype(np.int64) + FRAME_BYTES, out=bounds[1:])
        return bounds

    def to_bytes(self) -> bytes:
        """Return the index file's bytes."""
        header = _HEADER.pack(_MAGIC, _VERSION, int(self.is_gzip), 0, len(self.ids), self.file_sha256)
        body = header + self.ids.to_bytes() + self.sizes.astype("<u4").tobytes()
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> "PackIndex":
        """Read an index file.

        Raises:
            CorruptStoreError: The bytes are not what was written.
            StoreFormatError: The file has another format than this code reads.
        """
        if len(data) < _HEADER.size + _CRC.size or data[: len(_MAGIC)] != _MAGIC:
            raise CorruptStoreError(path, "it is no pack index")
        _, version, is_gzip, _, records, file_sha256 = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise StoreFormatError(path, str(version), str(_VERSION))
        if len(data) != _HEADER.size + records * (ID_BYTES + 4) + _CRC.size:
            raise CorruptStoreError(path, f"it does not have the size of {records:,} records")
        if zlib.crc32(memoryview(data)[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
            raise CorruptStoreError(path, "its bytes do not fit their checksum")
        body = memoryview(data)[_HEADER.size : -_CRC.size]
        return cls(
            Ids.from_bytes(body[: records * ID_BYTES]),
            np.frombuffer(body[records * ID_BYTES :], "<u4"),
            bool(is_gzip),
            file_sha256,
        )


def records_path(dataset: str, pack: PackFacts) -> str:
    """Return the path of a pack's record file in the store."""
    return f"{dataset}/packs/{pack.name}.tfrecord" + (".gz" if pack.is_gzip else "")


def index_path(dataset: str, name: str) -> str:
    """Return the path of a pack's index in the store."""
    return f"{dataset}/packs/{name}.index"


def read_index(storage: Storage, dataset: str, pack: PackFacts) -> PackIndex:
    """Read the index of a pack.

    Raises:
        CorruptStoreError: It is missing, or not what was written.
    """
    path = index_path(dataset, pack.name)
    try:
        data = storage.read(path)
    except FileNotFoundError as error:
        raise CorruptStoreError(f"{storage.url}/{path}", "it is missing") from error
    index = PackIndex.from_bytes(data, f"{storage.url}/{path}")
    if len(index.ids) != pack.records:
        raise CorruptStoreError(
            f"{storage.url}/{path}", f"it has {len(index.ids):,} records, not {pack.records:,}"
        )
    return index
