"""What a version is, as a file: which records of which packs are in which split, and where it comes from."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from mlplatform.datasets.errors import CorruptStoreError, StoreFormatError

FORMAT = 1
RECORD_ID = "blake3-128/canonical-1"


@dataclass(frozen=True)
class PackFacts:
    """A pack that a version reads.

    Attributes:
        name: Its name, taken from its content; the files are `<name>.tfrecord[.gz]` and `<name>.index`.
        records: Records in the pack, live or not.
        stored_bytes: Bytes of its record file.
        is_gzip: The record file is gzip-compressed.
        index_sha256: SHA-256 of the index file.
    """

    name: str
    records: int
    stored_bytes: int
    is_gzip: bool
    index_sha256: str


@dataclass(frozen=True)
class SplitFacts:
    """One split of a version.

    Attributes:
        records: Records, each as often as it occurs.
        distinct: Different records.
        digest: SHA-256 of the split's sorted record ids.
        live: Names of the packs with live records, each with the number of them.
    """

    records: int
    distinct: int
    digest: str
    live: dict[str, int]


@dataclass(frozen=True)
class Declared:
    """What is said of a version's records.

    Attributes:
        key: Features that identify an item; empty where none does.
        label: Feature that holds the class; "" where none does.
        training_splits: Splits that are trained on; the items of all others are held out.
    """

    key: list[str]
    label: str
    training_splits: list[str]


@dataclass(frozen=True)
class Manifest:
    """An immutable version of a dataset.

    Attributes:
        dataset: The dataset's name.
        number: 1 for the first version.
        digest: SHA-256 that stands for the content: the same for the same records in the same splits.
        parent: Digest of the version before; "" for the first.
        splits: The splits by name.
        packs: The packs that it reads, in the order in which a checkout writes them.
        bitmaps: Name of the file that says which records of the packs are live.
        key: Features that identify an item; empty where none is declared.
        label: Feature that holds the class, for counts per class; "" where none is declared.
        training_splits: Splits that are trained on; the items of all others are held out.
        added, removed: Records that came and went since the parent, each as often as it occurs.
        stored_bytes: Bytes that this version added to the store, the manifest aside.
        created_at: UTC time, ISO 8601.
        created_by: Who committed, user@host.
        message: Why, in the words of who committed.
        source: What was committed: a folder's path or URL.
    """

    dataset: str
    number: int
    digest: str
    parent: str
    splits: dict[str, SplitFacts]
    packs: list[PackFacts]
    bitmaps: str
    key: list[str]
    label: str
    training_splits: list[str]
    added: int
    removed: int
    stored_bytes: int
    created_at: str
    created_by: str
    message: str
    source: str
    record_id: str = field(default=RECORD_ID)

    @property
    def version(self) -> str:
        """The version's name, such as `v3`."""
        return f"v{self.number}"

    @property
    def records(self) -> int:
        """Records over all splits, each as often as it occurs."""
        return sum(split.records for split in self.splits.values())

    def to_json(self) -> bytes:
        """Return the file's bytes: the fields, and a checksum over them."""
        return sealed({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, data: bytes, path: str) -> "Manifest":
        """Read a manifest file.

        Raises:
            CorruptStoreError: The bytes are not what was written.
            StoreFormatError: The file has another format than this code reads.
        """
        fields = unsealed(data, path)
        fields.pop("format")
        if fields["record_id"] != RECORD_ID:
            raise StoreFormatError(path, f"record ids {fields['record_id']}", RECORD_ID)
        fields["splits"] = {name: SplitFacts(**split) for name, split in fields["splits"].items()}
        fields["packs"] = [PackFacts(**pack) for pack in fields["packs"]]
        return cls(**fields)


def sealed(fields: dict[str, Any]) -> bytes:
    """Return a JSON document with a checksum over its other fields as its last one."""
    body = json.dumps(fields, indent=1, ensure_ascii=False).encode()
    return body[:-2] + _tail(hashlib.sha256(body).hexdigest())


def unsealed(data: bytes, path: str) -> dict[str, Any]:
    """Read a sealed JSON document, checked; its checksum is left out.

    Raises:
        CorruptStoreError: The bytes are not what was written.
        StoreFormatError: The file has another format than this code reads.
    """
    try:
        fields = dict(json.loads(data))
        seal = str(fields.pop("sha256"))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStoreError(path, "it is no sealed JSON document") from error
    body, tail = data[: -len(_tail(seal))], data[-len(_tail(seal)) :]
    if tail != _tail(seal) or hashlib.sha256(body + b"\n}").hexdigest() != seal:
        raise CorruptStoreError(path, f"its content does not fit its checksum {seal}")
    if fields.get("format") != FORMAT:
        raise StoreFormatError(path, str(fields.get("format")), str(FORMAT))
    return fields


def _tail(seal: str) -> bytes:
    return f',\n "sha256": "{seal}"\n}}\n'.encode()
