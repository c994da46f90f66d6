"""Forgets an item: says which versions, models and pushes used it, and erases its bytes where that is asked.

Versions are not changed by this: their names, counts and digests stay, and each says that records are gone.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mlplatform.datasets.blame import Blame, blame, trace, wanted_values
from mlplatform.datasets.forgotten import (
    ErasedItem,
    erased_path,
    forgotten_ids,
    is_forgotten,
)
from mlplatform.datasets.format.hashing import payload_checksums
from mlplatform.datasets.format.manifest import FORMAT, PackFacts, sealed
from mlplatform.datasets.format.pack import read_index, records_path
from mlplatform.datasets.format.pack_records import pack_windows, read_batches
from mlplatform.datasets.format.tfrecord import FOOTER_BYTES, HEADER_BYTES, Bytes, Int64s, Window, mask
from mlplatform.datasets.line import Line, forgotten_folder
from mlplatform.datasets.notes import now, user
from mlplatform.datasets.unneeded import unneeded
from mlplatform.datasets.whole_folder import naming_a_full_disk
from mlplatform.datasets.write_packs import write_gzip
from mlplatform.progress import track


@dataclass(frozen=True)
class Forgotten:
    """What forgetting an item means, or did.

    Attributes:
        blame: Its records, the versions that hold them, and what was made from those.
        is_erased: The records' bytes are no longer in the store.
    """

    blame: Blame
    is_erased: bool


def forget(
    line: Line, value: str | Sequence[str], key: Sequence[str] | None, *, is_erasing: bool, why: str
) -> Forgotten:
    """Trace an item and, where asked, erase it; see `DatasetStore.forget`."""
    if not is_erasing:
        return Forgotten(blame(line, value, key, is_by_key=True), is_erased=False)
    line.resolve()
    with line.storage.hold(line.dataset, alone=True):
        line = Line.read(line.storage, line.dataset)  # with what was committed while this waited
        found = trace(line, value, key, is_by_key=True)
        is_held = line.storage.local(line.dataset) is not None  # elsewhere a commit may be under way
        for path in unneeded(line) if is_held else ():  # of killed and refused commits: they may hold it, too
            line.storage.delete(path)
        if not found.records:
            return Forgotten(found, is_erased=False)
        records = sorted({record.record for record in found.records})
        note = {
            "format": FORMAT,
            # The item's key may itself be personal: only a salted hash of it is kept.
            "records": records,
            # Without it, the same item would come back unnoticed as soon as its content differs in a byte.
            "items": [
                ErasedItem.of(found.key, values).to_json() for values in wanted_values(value, found.key)
            ],
            "versions": found.versions,
            "uses": [asdict(use) for use in found.uses],
            "why": why,
            "by": user(),
            "at": now(),
        }
        name = hashlib.sha256("".join(records).encode()).hexdigest()[:32]
        line.storage.create(f"{forgotten_folder(line.dataset)}/{name}.json", sealed(note))
        erase_forgotten(line)  # after the note: what a kill leaves undone, the next `forget` or `gc` does
    return Forgotten(found, is_erased=True)


def erase_forgotten(line: Line) -> None:
    """Erase the bytes of all forgotten records that are still there. Call it with the dataset held alone."""
    forgotten = forgotten_ids(line.storage, line.dataset)
    if not len(forgotten):
        return
    with track("look for forgotten records", len(line.packs), "packs") as bar:
        for pack in line.packs:
            gone = np.flatnonzero(is_forgotten(read_index(line.storage, line.dataset, pack).ids, forgotten))
            if gone.size and _has_bytes(line, pack, gone):
                _erase(line, pack, gone)
            bar.advance()


def _has_bytes(line: Line, pack: PackFacts, rows: Int64s) -> bool:
    return any(
        any(payload.strip(b"\0") for payload in batch.payloads())
        for batch in read_batches(line.storage, line.dataset, pack, rows)
    )


def _erase(line: Line, pack: PackFacts, rows: Int64s) -> None:
    """Write the pack anew, with zeros in place of some payloads; all others keep their places.

    The file comes last: what is killed before it is begun again, and nothing that tells of the bytes is left.
    """
    storage, dataset = line.storage, line.dataset
    for name in storage.names(f"{dataset}/keys"):
        if name.startswith(pack.name):
            storage.delete(f"{dataset}/keys/{name}")
    partial = storage.aside(dataset)
    try:
        with naming_a_full_disk(partial):
            if pack.is_gzip:
                digest = write_gzip(_erased_windows(line, pack, rows), partial)
                note = {"format": FORMAT, "pack": pack.name, "file_sha256": digest.hex()}
                storage.put(erased_path(dataset, pack.name), sealed(note))
            else:
                with open(partial, "wb") as file:
                    file.writelines(_erased_windows(line, pack, rows))
        partial.chmod(0o444)
        storage.put_file(records_path(dataset, pack), partial)
    finally:
        partial.unlink(missing_ok=True)


def _erased_windows(line: Line, pack: PackFacts, rows: Int64s) -> Iterator[bytes]:
    before = 0
    with track(f"erase from pack {pack.name[:8]}", pack.records) as bar:
        for window in pack_windows(line.storage, line.dataset, pack):
            first, last = np.searchsorted(rows, (before, before + window.starts.size))
            yield _erased(window, rows[first:last] - before)
            before += window.starts.size
            bar.advance(window.starts.size)


def _erased(window: Window, rows: Int64s) -> bytes:
    begin, end = int(window.starts[0]) - HEADER_BYTES, int(window.ends[-1]) + FOOTER_BYTES
    buffer: Bytes = window.buffer.copy()
    starts, ends = window.starts[rows], window.ends[rows]
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        buffer[first:last] = 0
    crcs = mask(payload_checksums(buffer, starts, ends)) if rows.size else np.zeros(0, np.uint32)
    for last, crc in zip(ends.tolist(), crcs, strict=True):
        buffer[last : last + FOOTER_BYTES] = np.frombuffer(crc.astype("<u4").tobytes(), np.uint8)
    return buffer[begin:end].tobytes()
