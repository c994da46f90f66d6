"""Checks a version out as Examples that TFX reads: `Split-<name>/` folders of TFRecord shards."""

import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from mlplatform.datasets.commit import read_live
from mlplatform.datasets.forgotten import forgotten_ids, is_forgotten
from mlplatform.datasets.format.live import Rows
from mlplatform.datasets.format.manifest import Manifest, PackFacts
from mlplatform.datasets.format.pack import PackIndex, read_index, records_path
from mlplatform.datasets.format.pack_records import check_size, read_batches
from mlplatform.datasets.format.tfrecord import FOOTER_BYTES, HEADER_BYTES, Int64s
from mlplatform.datasets.line import Line, forgotten_folder
from mlplatform.datasets.notes import record_copy
from mlplatform.datasets.reading import reading
from mlplatform.datasets.whole_folder import whole_folder
from mlplatform.datasets.write_packs import runs, write_gzip
from mlplatform.machine import usable_threads
from mlplatform.progress import Task, track
from mlplatform.storage.errors import CorruptStoreError

_COPY_RANGE_ABOVE_BYTES = 64 << 10  # mean run above which one system call a run is cheapest
_COPY_BYTES = 64 << 20  # in one system call, so that progress shows
_VECTORS = 1000  # pieces in one system call; Linux takes 1024


def checkout(
    line: Line, manifest: Manifest, folder: str | os.PathLike[str], *, link: bool = True, place: str = ""
) -> Path:
    """Write a version's records; see `DatasetStore.checkout`."""
    with whole_folder(folder) as (partial, target), reading(line.storage, line.dataset):
        _write(line, manifest, partial, link)
    record_copy(line, manifest, "checkout", place or str(target))
    return target


def _write(line: Line, manifest: Manifest, folder: Path, link: bool) -> None:
    live = live_records(line, manifest)
    packs = {pack.name: pack for pack in manifest.packs}
    order = {name: number for number, name in enumerate(packs)}
    # TensorFlow reads the shards of all splits as one kind: compressed only where every one of them is.
    is_gzip = bool(live) and all(packs[name].is_gzip for _, name in live)
    written: list[Future[None]] = []
    with (
        track("write records", sum(rows.distinct for rows in live.values())) as bar,
        ThreadPoolExecutor(usable_threads()) as threads,
    ):
        for split in manifest.splits:
            names = sorted((name for owner, name in live if owner == split), key=order.__getitem__)
            mine = [(packs[name], live[split, name]) for name in names]
            repeated = [(pack, rows) for pack, rows in mine if rows.repeated.size]
            has_last = bool(repeated) or not mine
            shards = _shards(folder / f"Split-{split}", len(mine) + has_last, is_gzip)
            for (pack, rows), path in zip(mine, shards, strict=False):
                if pack.is_gzip == is_gzip and rows.distinct == pack.records:
                    written.append(threads.submit(_copy_whole, line, pack, path, link, bar))
                else:
                    written.append(threads.submit(_write_shard, line, pack, rows, path, is_gzip, bar))
            if has_last:  # further copies of records that occur more than once; an empty split's only shard
                _write_pieces(_further_copies(line, repeated), shards[-1], is_gzip)
        for shard in as_completed(written):
            shard.result()


def _shards(folder: Path, count: int, is_gzip: bool) -> list[Path]:
    folder.mkdir(parents=True)
    suffix = ".gz" if is_gzip else ""
    return [folder / f"data_tfrecord-{number:05d}-of-{count:05d}{suffix}" for number in range(count)]


def _write_pieces(pieces: Iterator[bytes | memoryview], path: Path, is_gzip: bool) -> None:
    if is_gzip:
        write_gzip(pieces, path)
        return
    with open(path, "wb") as file:
        file.writelines(pieces)


def live_records(line: Line, manifest: Manifest) -> dict[tuple[str, str], Rows]:
    """Return the records of a version that are in the store: rows per split and pack."""
    live = {place: rows for place, rows in read_live(line, manifest).items() if place[0] in manifest.splits}
    forgotten = forgotten_ids(line.storage, line.dataset)
    if not len(forgotten):
        return live
    packs = {pack.name: pack for pack in manifest.packs}
    kept = {}
    for place, rows in live.items():
        gone = is_forgotten(read_index(line.storage, line.dataset, packs[place[1]]).ids, forgotten)
        kept[place] = Rows.from_copies(np.where(gone, 0, rows.copies()))
    return {place: rows for place, rows in kept.items() if rows.is_live.any()}


def erased_records(line: Line, manifest: Manifest) -> dict[str, int]:
    """Return how many records of each split are no longer in the store; see `DatasetStore.erased`."""
    if not line.storage.names(forgotten_folder(line.dataset)):
        return {}
    left = dict.fromkeys(manifest.splits, 0)
    for (split, _), rows in live_records(line, manifest).items():
        left[split] += rows.records
    return {
        split: facts.records - left[split]
        for split, facts in manifest.splits.items()
        if facts.records > left[split]
    }


def _write_shard(line: Line, pack: PackFacts, rows: Rows, path: Path, is_gzip: bool, bar: Task) -> None:
    chosen = np.flatnonzero(rows.is_live)
    if is_gzip or pack.is_gzip or (source := line.storage.local(records_path(line.dataset, pack))) is None:
        _write_pieces(_frames(line, pack, chosen, bar), path, is_gzip)
    else:
        check_size(line.storage, line.dataset, pack)
        _copy_runs(source, path, read_index(line.storage, line.dataset, pack), chosen, bar)


def _copy_whole(line: Line, pack: PackFacts, path: Path, link: bool, bar: Task) -> None:
    check_size(line.storage, line.dataset, pack)
    source = line.storage.local(records_path(line.dataset, pack))
    if source is None:
        with line.storage.open(records_path(line.dataset, pack)) as stream, open(path, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    elif not (link and _is_linked(source, path)):
        shutil.copyfile(source, path)
    bar.advance(pack.records)


def _is_linked(source: Path, path: Path) -> bool:
    """Link a file; False where it is on another file system, or on one without links."""
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        return False
    return True


def _copy_runs(source: Path, path: Path, index: PackIndex, chosen: Int64s, bar: Task) -> None:
    """Copy the frames of chosen rows of a plain pack, neighbours together."""
    bounds = index.frames()
    spans = [(int(bounds[first]), int(bounds[behind])) for first, behind in runs(chosen)]
    total = sum(end - begin for begin, end in spans)
    records_per_byte = chosen.size / max(total, 1)
    with open(source, "rb") as reader, open(path, "wb") as writer:
        if total > _COPY_RANGE_ABOVE_BYTES * len(spans):
            for begin, end in spans:
                while begin < end:
                    done = os.sendfile(writer.fileno(), reader.fileno(), begin, min(end - begin, _COPY_BYTES))
                    if not done:
                        raise CorruptStoreError(str(source), "it ends before its records do")
                    begin += done
                    bar.advance(done * records_per_byte)
            return
        import mmap

        with mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as data:
            for first in range(0, len(spans), _VECTORS):
                pieces = [data[begin:end] for begin, end in spans[first : first + _VECTORS]]
                _write_all(writer.fileno(), pieces)
                bar.advance(sum(len(piece) for piece in pieces) * records_per_byte)
                for piece in pieces:
                    piece.release()


def _write_all(descriptor: int, pieces: list[memoryview]) -> None:
    wanted = sum(len(piece) for piece in pieces)
    written = os.writev(descriptor, pieces)
    if written < wanted:  # a full disk raises at the next write
        rest = b"".join(pieces)[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _frames(line: Line, pack: PackFacts, rows: Int64s, bar: Task | None = None) -> Iterator[memoryview]:
    for batch in read_batches(line.storage, line.dataset, pack, rows):
        data = batch.buffer.data
        begins, ends = batch.starts - HEADER_BYTES, batch.ends + FOOTER_BYTES
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            yield data[begin:end]
        if bar is not None:
            bar.advance(batch.rows.size)


def _further_copies(line: Line, repeated: list[tuple[PackFacts, Rows]]) -> Iterator[bytes]:
    for pack, rows in repeated:
        chosen = rows.repeated["row"].astype(np.int64)
        for frame, copies in zip(_frames(line, pack, chosen), rows.repeated["copies"].tolist(), strict=True):
            yield bytes(frame) * (copies - 1)
