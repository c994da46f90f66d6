"""`manifest.json` of an index: what it holds, of which embedding, and the digest of every file."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mlplatform.config import Config, parse_config
from mlplatform.config_file import ConfigError
from mlplatform.search.errors import IndexDamagedError, NoIndexError
from mlplatform.search.fingerprint import file_digest

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1
VECTORS, ITEM_IDS, ID_OFFSETS, ITEM_ROWS, ID_ORDER = (
    "vectors.npy", "item_ids.utf8", "id_offsets.npy", "item_rows.npy", "id_order.npy",
)  # fmt: skip
PHOTOS, GOLDEN, FAISS = "photos.npy", "golden.npz", "index.faiss"
_REQUIRED = (VECTORS, ITEM_IDS, ID_OFFSETS, ITEM_ROWS, ID_ORDER, PHOTOS, GOLDEN)
_MAX_MANIFEST_BYTES = 16 << 20

Kind = Literal["exact", "ivf", "pq"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*(\.[a-z0-9]+)?$", max_length=100)]


class FileFacts(Config):
    """Size and digest of a file."""

    bytes: int = Field(ge=0)
    sha256: Digest


class FilterColumn(Config):
    """A column that searches can be filtered by.

    Attributes:
        kind: `text` (codes of a dictionary), `int` or `float`.
        file: Its values, one per entry.
        dictionary: The texts by their codes; only of texts.
    """

    kind: Literal["text", "int", "float"]
    file: FileName
    dictionary: FileName | None = None


class Counts(Config):
    """Where the records went: `records` = `indexed` + `duplicates` + `rejected` + `removed`.

    Attributes:
        records: Records that were read, those of items that were added since included.
        indexed: Distinct vectors.
        duplicates: Records whose photo, or vector, is that of an indexed one; their ids are found with it.
        rejected: Records without a photo, an id or a usable vector.
        removed: Records of items that were removed, or added anew with another photo.
    """

    records: int = Field(ge=0)
    indexed: int = Field(ge=0)
    duplicates: int = Field(ge=0)
    rejected: int = Field(ge=0)
    removed: int = Field(ge=0)


class IndexManifest(Config):
    """What an index says of itself.

    Attributes:
        format_version: 1.
        fingerprint: The embedding that its vectors are of; see `embedding_fingerprint`.
        dimensions: Numbers of a vector.
        metric: `cosine`: vectors have length 1, and scores are their products.
        rows: Distinct vectors.
        entries: Item ids; several may share a vector, and an item may have several.
        kind: `exact`, `ivf` (cells with 8-bit codes) or `pq` (cells with product codes).
        parameters: Of the kind: `cells`, `probe`, `candidates`, `subvectors`.
        results: Items in a served answer.
        columns: What searches can be filtered by, by name.
        counts: Where the records went.
        dataset: The dataset version that it was built from; empty where it is not known.
        segment: Number of the last segment that it contains; 0 for none.
        library: What built it, with its version.
        report: What was measured of it.
        files: Every other file.
    """

    format_version: int
    fingerprint: Digest
    dimensions: int = Field(ge=1, le=65_536)
    metric: Literal["cosine"]
    rows: int = Field(ge=1)
    entries: int = Field(ge=1)
    kind: Kind
    parameters: dict[str, int]
    results: int = Field(ge=1, le=10_000)
    columns: dict[str, FilterColumn]
    counts: Counts
    dataset: str
    segment: int = Field(ge=0)
    library: str
    report: dict[str, Any]
    files: dict[FileName, FileFacts]


def read_manifest(folder: Path) -> IndexManifest:
    """Return the manifest of the index in `folder`.

    Raises:
        NoIndexError: There is none.
        IndexDamagedError: It is not one that this version of the library reads.
    """
    file = folder / MANIFEST_FILE
    if not file.is_file():
        raise NoIndexError(str(folder))
    if file.stat().st_size > _MAX_MANIFEST_BYTES:
        raise IndexDamagedError(str(folder), MANIFEST_FILE, f"is larger than {_MAX_MANIFEST_BYTES} bytes")
    try:
        document = json.loads(file.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("is not a JSON object")
    except ValueError as error:
        raise IndexDamagedError(str(folder), MANIFEST_FILE, f"is not readable ({error})") from error
    version = document.get("format_version")
    if version != FORMAT_VERSION:
        problem = f"has format version {version!r}, and this library reads {FORMAT_VERSION}"
        raise IndexDamagedError(str(folder), MANIFEST_FILE, problem)
    try:
        return parse_config(IndexManifest, document, source=MANIFEST_FILE)
    except ConfigError as error:
        raise IndexDamagedError(str(folder), MANIFEST_FILE, f"is wrong ({error})") from error


def verify_files(folder: Path, manifest: IndexManifest) -> None:
    """See that every file is the one that the builder wrote. Nothing but their bytes is looked at.

    Raises:
        IndexDamagedError: One is missing, a link, too many, or of other bytes.
    """
    where = str(folder)
    referred = {
        *_REQUIRED,
        *(column.file for column in manifest.columns.values()),
        *(column.dictionary for column in manifest.columns.values() if column.dictionary),
        *([FAISS] if manifest.kind != "exact" else []),
    }
    for name in sorted(referred - {*manifest.files}):
        raise IndexDamagedError(where, MANIFEST_FILE, f"does not list {name}")
    found = {path.name for path in folder.iterdir()} - {MANIFEST_FILE}
    for name in sorted(found - {*manifest.files}):
        raise IndexDamagedError(where, name, "is not listed in the manifest")
    for name, facts in sorted(manifest.files.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise IndexDamagedError(where, name, "is missing, or is not a plain file")
        if path.stat().st_size != facts.bytes:
            raise IndexDamagedError(where, name, f"has {path.stat().st_size} bytes instead of {facts.bytes}")
        if file_digest(path) != facts.sha256:
            raise IndexDamagedError(where, name, "was changed since it was written (its sha256 differs)")
