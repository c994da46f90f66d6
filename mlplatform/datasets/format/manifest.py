"""What a version is, as a file: which records of which packs are in which split, and where it comes from."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlplatform.datasets.errors import StoreFormatError
from mlplatform.datasets.format.fields import DIGEST, NAME_32, Fields, is_split_name, unique
from mlplatform.storage.errors import CorruptStoreError

FORMAT = 1
RECORD_ID = "blake3-128/canonical-1"
MOST_RECORDS = 2**32 - 1  # of a pack: rows are 32-bit numbers
# Copies of records beyond the first of each: more than any oversampling needs, few enough for the memory.
_MOST_COPIES, _MOST_COPIES_EACH = 1 << 26, 1000
_BITMAPS = re.compile(r"[0-9a-f]{32}\.live")
_PARENT = re.compile(r"|[0-9a-f]{64}")
_TITLE = b"mlplatform dataset version 1\n"


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
        taxonomy: The design of its classes, a YAML document; "" where none is declared.
    """

    key: list[str]
    label: str
    training_splits: list[str]
    taxonomy: str = ""


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
        taxonomy: The design of its classes, a YAML document; "" where none is declared.
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
    taxonomy: str = ""

    @property
    def version(self) -> str:
        """The version's name, such as `v3`."""
        return f"v{self.number}"

    @property
    def records(self) -> int:
        """Records over all splits, each as often as it occurs."""
        return sum(split.records for split in self.splits.values())

    def _repr_html_(self) -> str:
        from mlplatform.datasets.notebook import versions_table

        return versions_table(f"{self.dataset}@{self.version}", [self])

    def to_json(self) -> bytes:
        """Return the file's bytes: the fields, and a checksum over them."""
        fields = asdict(self)
        if not self.taxonomy:
            del fields["taxonomy"]
        return sealed({"format": FORMAT, **fields})

    @classmethod
    def from_json(cls, data: bytes, path: str) -> "Manifest":
        """Read a manifest file.

        Raises:
            CorruptStoreError: The bytes are not what was written.
            StoreFormatError: The file has another format than this code reads.
        """
        fields = unsealed(data, path)
        if fields.value("record_id") != RECORD_ID:
            raise StoreFormatError(path, f"record ids {str(fields.value('record_id'))[:80]}", RECORD_ID)
        packs = [_pack(one) for one in fields.nested_list("packs")]
        unique((pack.name for pack in packs), path, "pack")
        manifest = cls(
            dataset=fields.text("dataset"),
            number=fields.count("number", 1),
            digest=fields.text("digest", DIGEST),
            parent=fields.text("parent", _PARENT),
            splits=_splits(fields.nested("splits"), {pack.name: pack.records for pack in packs}),
            packs=packs,
            bitmaps=fields.text("bitmaps", _BITMAPS),
            key=fields.texts("key"),
            label=fields.text("label"),
            training_splits=fields.texts("training_splits"),
            added=fields.count("added"),
            removed=fields.count("removed"),
            stored_bytes=fields.count("stored_bytes"),
            created_at=fields.text("created_at"),
            created_by=fields.text("created_by"),
            message=fields.text("message"),
            source=fields.text("source"),
            taxonomy=fields.text("taxonomy") if "taxonomy" in fields else "",
        )
        if (manifest.parent == "") != (manifest.number == 1):
            raise fields.wrong("parent", "the digest of the version before")
        content = {
            name: (split.records, bytes.fromhex(split.digest)) for name, split in manifest.splits.items()
        }
        if version_digest(content) != manifest.digest:
            raise fields.wrong("digest", "the digest of its splits")
        return manifest


def _pack(fields: Fields) -> PackFacts:
    return PackFacts(
        name=fields.text("name", NAME_32),
        records=fields.count("records", 0, MOST_RECORDS),
        stored_bytes=fields.count("stored_bytes"),
        is_gzip=fields.flag("is_gzip"),
        index_sha256=fields.text("index_sha256", DIGEST),
    )


def _splits(named: Fields, packs: Mapping[str, int]) -> dict[str, SplitFacts]:
    splits = {}
    for name in named:
        if not is_split_name(name):
            raise CorruptStoreError(
                named.path, f"its field 'splits' has a split {ascii(name)[:80]}, not a name"
            )
        fields = named.nested(name)
        counts = fields.nested("live")
        if strangers := [pack for pack in counts if pack not in packs]:
            raise counts.wrong(strangers[0], "of one of its packs")
        live = {pack: counts.count(pack, 0, packs[pack]) for pack in counts}
        distinct = fields.count("distinct")
        if distinct != sum(live.values()):
            raise fields.wrong("distinct", f"the {sum(live.values()):,} of its packs")
        records = fields.count("records", distinct, distinct * _MOST_COPIES_EACH + _MOST_COPIES)
        splits[name] = SplitFacts(records, distinct, fields.text("digest", DIGEST), live)
    return splits


def version_digest(splits: Mapping[str, tuple[int, bytes]]) -> str:
    """Return a version's digest, in hexadecimal.

    Args:
        splits: Records and digest per split.
    """
    total = hashlib.sha256(_TITLE)
    for name, (records, digest) in sorted(splits.items(), key=lambda item: item[0].encode()):
        text = name.encode()
        total.update(len(text).to_bytes(4, "little") + text + records.to_bytes(8, "little") + digest)
    return total.hexdigest()


def sealed(fields: dict[str, Any]) -> bytes:
    """Return a JSON document with a checksum over its other fields as its last one."""
    body = json.dumps(fields, indent=1, ensure_ascii=False).encode()
    return body[:-2] + _tail(hashlib.sha256(body).hexdigest())


def unsealed(data: bytes, path: str) -> Fields:
    """Read a sealed JSON document, checked.

    Raises:
        CorruptStoreError: The bytes are not what was written.
        StoreFormatError: The file has another format than this code reads.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptStoreError(path, "it is not a JSON document") from error
    fields = Fields(document, path)
    seal = fields.text("sha256", DIGEST)
    body, tail = data[: -len(_tail(seal))], data[-len(_tail(seal)) :]
    if tail != _tail(seal) or hashlib.sha256(body + b"\n}").hexdigest() != seal:
        raise CorruptStoreError(path, f"its content does not fit its checksum {seal}")
    if fields.value("format") != FORMAT:
        raise StoreFormatError(path, str(fields.value("format"))[:80], str(FORMAT))
    return fields


def _tail(seal: str) -> bytes:
    return f',\n "sha256": "{seal}"\n}}\n'.encode()
