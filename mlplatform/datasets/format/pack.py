"""Packs: immutable TFRecord files, each with an index of the records in it."""

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from isal.isal_zlib import crc32  # the values of zlib's, several times as quick

from mlplatform.datasets.errors import StoreFormatError
from mlplatform.datasets.format.hashing import ID_BYTES, Ids
from mlplatform.datasets.format.manifest import PackFacts
from mlplatform.datasets.format.tfrecord import FRAME_BYTES, LARGEST_RECORD, Int64s
from mlplatform.storage import Storage
from mlplatform.storage.errors import CorruptStoreError

_MAGIC = b"MLPKIDX\0"
_VERSION = 1
_HEADER = struct.Struct("<8sHHIQ32s")  # magic, format, is gzip, nothing, records, SHA-256 of the gzip file
_CRC = struct.Struct("<I")
_MOST_INFLATED = 1040  # bytes out of a byte of gzip: deflate reaches 1032


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
        content = hashlib.sha256(self._records)
        content.update(self.file_sha256)
        return content.hexdigest()[:32]

    @cached_property
    def _records(self) -> bytes:
        return self.ids.to_bytes() + self.sizes.astype("<u4").tobytes()

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
        body = header + self._records
        return body + _CRC.pack(crc32(body))

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
        if is_gzip > 1:
            raise CorruptStoreError(path, f"its mark of gzip is {is_gzip}, not 0 or 1")
        if len(data) != _HEADER.size + records * (ID_BYTES + 4) + _CRC.size:
            raise CorruptStoreError(path, f"it does not have the size of {records:,} records")
        if crc32(memoryview(data)[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
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
    if (problem := _difference(index, pack)) is not None:
        raise CorruptStoreError(f"{storage.url}/{path}", problem)
    return index


def check_index_size(storage: Storage, dataset: str, pack: PackFacts) -> None:
    """Check that there are as many records as a manifest says, before there is memory for each of them.

    Raises:
        CorruptStoreError: The index is missing, or is not that of so many records.
    """
    path = index_path(dataset, pack.name)
    try:
        size = storage.size(path)
    except FileNotFoundError as error:
        raise CorruptStoreError(f"{storage.url}/{path}", "it is missing") from error
    if size != _HEADER.size + pack.records * (ID_BYTES + 4) + _CRC.size:
        problem = f"it does not have the size of the {pack.records:,} records that the manifest names"
        raise CorruptStoreError(f"{storage.url}/{path}", problem)


def _difference(index: PackIndex, pack: PackFacts) -> str | None:
    """Return in what an index is not that of the pack that a manifest names; None where it is."""
    frames = int(index.frames()[-1])
    if len(index.ids) != pack.records:
        return f"it has {len(index.ids):,} records, not {pack.records:,}"
    if index.is_gzip != pack.is_gzip:
        return f"it is of a {'gzip' if index.is_gzip else 'plain'} file, and the manifest says otherwise"
    if index.sizes.max(initial=0) > LARGEST_RECORD:
        return "it has a record of more than 2 GiB"
    if not pack.is_gzip and frames != pack.stored_bytes:
        return f"its records have {frames:,} bytes, not the {pack.stored_bytes:,} of the manifest"
    if frames > _MOST_INFLATED * pack.stored_bytes:
        return f"its records have {frames:,} bytes, more than {pack.stored_bytes:,} bytes of gzip can hold"
    return None
