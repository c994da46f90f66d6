"""The laws of the store, for any data."""

import gzip
import itertools
import os
import random
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import CorruptRecordsError
from mlplatform.datasets.format.canonical import canonical_record

FLIPS = int(os.environ.get("SOAK_FLIPS", "1000000"))  # bytes of each file that the long study flips
laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
items = st.one_of(
    st.binary(max_size=30),
    st.dictionaries(st.sampled_from(["id", "a", "image/encoded", "z"]), st.binary(max_size=20), max_size=4),
)
splits = st.dictionaries(st.sampled_from(["train", "eval", "test"]), st.lists(items, max_size=12), min_size=1)


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="laws-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


class Writer:
    """Writes the same content in many ways."""

    def __init__(self, make_example: Callable[..., bytes], write_examples: Callable[..., Path]) -> None:
        self._make, self._write = make_example, write_examples

    def records(self, content: list[Any], seed: int | None) -> list[bytes]:
        made = [one if isinstance(one, bytes) else self._make(one, shuffled_by=seed) for one in content]
        if seed is not None:
            random.Random(seed).shuffle(made)
        return made

    def write(
        self, path: Path, content: dict[str, list[Any]], seed: int | None = None, gz: bool = False
    ) -> Path:
        shards = {}
        for split, ones in content.items():
            records = self.records(ones, seed)
            cuts = sorted(random.Random(seed).choices(range(len(records) + 1), k=seed % 4 if seed else 0))
            bounds = [0, *cuts, len(records)]
            shards[split] = [records[a:b] for a, b in itertools.pairwise(bounds)]
        return self._write(path, shards, gz)


@pytest.fixture(scope="module")
def writer(make_example: Callable[..., bytes], write_examples: Callable[..., Path]) -> Writer:
    return Writer(make_example, write_examples)


def multiset(found: dict[str, list[bytes]]) -> dict[str, Counter[bytes]]:
    return {split: Counter(map(canonical_record, records)) for split, records in found.items()}


@laws
@given(splits, st.booleans())
def test_commit_then_checkout_is_the_identity_on_the_multiset_of_records(
    writer: Writer, read_examples: Callable[..., Any], content: dict[str, list[Any]], gz: bool
) -> None:
    with folder() as path:
        source = writer.write(path / "in", content, seed=3, gz=gz)
        store = DatasetStore(path / "store")
        store.commit("d", source, is_firewall_on=False)
        assert multiset(read_examples(store.checkout("d", "v1", path / "out"))) == multiset(
            read_examples(source)
        )


@laws
@given(splits, st.integers(1, 10**6), st.booleans())
def test_the_digest_does_not_depend_on_order_shards_compression_and_map_order(
    writer: Writer, content: dict[str, list[Any]], seed: int, gz: bool
) -> None:
    with folder() as path:
        store = DatasetStore(path / "store")
        first = store.commit("d", writer.write(path / "one", content), is_firewall_on=False)
        again = store.commit("d", writer.write(path / "two", content, seed, gz), is_firewall_on=False)
        assert (again.is_new, again.stored_bytes) == (False, 0)
        assert again.manifest == first.manifest
        alone = DatasetStore(path / "other").commit("d", path / "two", is_firewall_on=False)
        assert alone.manifest.digest == first.manifest.digest


@laws
@given(st.lists(splits, min_size=2, max_size=4), st.sampled_from([None, ("id",), ("id", "a")]))
def test_a_difference_applied_to_the_old_version_gives_the_new_one(
    writer: Writer, contents: list[dict[str, list[Any]]], key: tuple[str, ...] | None
) -> None:
    with folder() as path:
        store = DatasetStore(path / "store")
        for number, content in enumerate(contents):
            source = writer.write(path / f"in{number}", content, seed=number + 1)
            store.commit("d", source, is_firewall_on=False)
        versions = list(reversed(store.log("d")))
        states = {one.version: ids_of(store, one.version) for one in versions}
        for old in versions:
            for new in versions:
                found = store.diff("d", old.version, new.version, key=key or ())
                state = Counter(states[old.version])
                for delta in store.deltas(found):
                    state[delta.split, delta.record] += delta.copies
                assert +state == states[new.version]
                assert min(state.values(), default=0) >= 0
                came = sum(found.count(kind) for kind in ("added", "changed", "moved"))
                came += sum(item.copies for item in found.of_kind("ambiguous") if item.after)
                assert came + found.unchanged == new.records


def ids_of(store: DatasetStore, version: str) -> Counter[tuple[str, str]]:
    """The record ids of a version, found by difference from nothing: hashes of what a checkout holds."""
    with folder() as path:
        out = store.checkout("d", version, path / "out")
        return Counter(
            (split, blake3(canonical_record(record)).hexdigest(16))
            for split, records in read_all(out).items()
            for record in records
        )


def read_all(out: Path) -> dict[str, list[bytes]]:
    import gzip

    found: dict[str, list[bytes]] = {}
    for file in sorted(out.glob("Split-*/*")):
        data = file.read_bytes()
        data = gzip.decompress(data) if file.suffix == ".gz" else data
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            found.setdefault(file.parent.name[6:], []).append(data[at + 12 : at + 12 + size])
            at += size + 16
    return found


def changing_content(writer: Writer, path: Path, store: DatasetStore, gz: bool) -> None:
    base = [{"id": f"{n}".encode(), "label": f"{n % 3}".encode()} for n in range(12)]
    store.commit(
        "d", writer.write(path / "a", {"train": base + base[:2], "eval": [b"raw"]}, 2, gz), key=["id"]
    )
    second = writer.write(path / "b", {"train": base[3:] + [b"more"], "eval": [b"raw"]}, 5, gz)
    store.commit("d", second)
    store.commit("d", second, label="label")
    store.tag("d", "v1", "gold")
    store.record_use("d", "v1", "model", "m@1")
    store.blame("d", "4")
    store.forget("d", "5", is_erasing=True)
    store.blame("d", "4")


@pytest.mark.usefixtures("settled_at_once")
@pytest.mark.parametrize("gz", [False, True])
def test_verify_finds_flipped_bytes_in_every_file(writer: Writer, gz: bool) -> None:
    flip_bytes(writer, gz, most=6, seed=gz)


@pytest.mark.soak
@pytest.mark.usefixtures("settled_at_once")
@pytest.mark.parametrize("gz", [False, True])
def test_verify_finds_every_single_flipped_byte(writer: Writer, gz: bool, soak_seed: int) -> None:
    flip_bytes(writer, gz, most=FLIPS, seed=soak_seed)


def flip_bytes(writer: Writer, gz: bool, most: int, seed: int) -> None:
    """Flip a bit in bytes of every file of a store, `most` of each file; each flip must be found."""
    with folder() as path:
        store = DatasetStore(path / "store")
        changing_content(writer, path, store, gz)
        assert store.verify("d").is_whole
        files = [file for file in (path / "store").rglob("*") if file.is_file() and file.stat().st_size]
        kinds = {file.parent.name for file in files}
        assert kinds >= {
            "packs",
            "bitmaps",
            "versions",
            "declared",
            "gold",
            "keys",
            "seen",
            "store",
            "uses",
        }
        rng = random.Random(seed)
        flips = 0
        for file in files:
            file.chmod(0o644)
            data = file.read_bytes()
            every = sorted(rng.sample(range(len(data)), min(most, len(data))))
            for position in every:
                broken = bytearray(data)
                broken[position] ^= 1 << rng.randrange(8)
                file.write_bytes(broken)
                found = store.verify("d")
                assert not found.is_whole, (file, position)
                assert any(Path(problem.path).name == file.name for problem in found.problems), (
                    file,
                    position,
                )
                if ".tfrecord" in file.name and not gz:
                    assert found.problems[0].records, "the damaged record is named"
                flips += 1
            file.write_bytes(data)
        assert store.verify("d").is_whole
        assert flips > 100


@laws
@given(splits, st.data())
def test_truncated_or_corrupt_input_fails_before_anything_is_written(
    writer: Writer, content: dict[str, list[Any]], data: st.DataObject
) -> None:
    gz = data.draw(st.booleans())
    with folder() as path:
        source = writer.write(
            path / "in", {**content, "train": [b"some", b"records", b"more"]}, seed=2, gz=gz
        )
        store = DatasetStore(path / "store")
        file = data.draw(
            st.sampled_from(sorted(file for file in source.rglob("data*") if file.stat().st_size))
        )
        whole = file.read_bytes()
        if data.draw(st.booleans()):
            # A plain file cut exactly between two records is a shorter file: nothing tells it from one.
            kept = data.draw(st.integers(0, len(whole) - 1))
            if not gz and kept in boundaries(whole):
                return
            file.write_bytes(whole[:kept])
        else:
            position = data.draw(st.integers(0, len(whole) - 1))
            if gz and position < 10 and position != 0:
                return  # gzip's own header: time and system, which say nothing about the records
            broken = bytearray(whole)
            broken[position] ^= 1 << data.draw(st.integers(0, 7))
            if gz and is_same_when_unpacked(broken, whole):  # deflate's last byte has bits that mean nothing
                return
            file.write_bytes(broken)
        with pytest.raises(CorruptRecordsError):
            store.commit("d", source)
        written = [
            one
            for one in (path / "store").rglob("*")
            if one.is_file() and one.name not in ("store.json", "lock")
        ]
        assert written == []
        assert store.names() == []


def is_same_when_unpacked(one: bytes, other: bytes) -> bool:
    try:
        return gzip.decompress(one) == gzip.decompress(other)
    except (OSError, EOFError, zlib.error):
        return False


def boundaries(data: bytes) -> set[int]:
    at, found = 0, {0}
    while at < len(data):
        at += int.from_bytes(data[at : at + 8], "little") + 16
        found.add(at)
    return found


@laws
@given(st.lists(splits, min_size=1, max_size=4), st.integers(0, 5))
def test_gc_never_removes_what_a_version_reaches(
    writer: Writer, contents: list[dict[str, list[Any]]], litter: int
) -> None:
    with folder() as path:
        store = DatasetStore(path / "store")
        for number, content in enumerate(contents):
            source = writer.write(path / f"in{number}", content, seed=number + 1)
            store.commit("d", source, is_firewall_on=False)
        for number in range(litter):
            (path / "store" / "d" / "packs").mkdir(exist_ok=True)
            (path / "store" / "d" / "packs" / f"{number:032x}.tfrecord").write_bytes(b"half")
        if litter:  # what a killed commit on Beam leaves
            (path / "store" / "d" / ".aside-0").mkdir()
            (path / "store" / "d" / ".aside-0" / "note").write_bytes(b"half")
            litter += 1
        before = {one.version: ids_of(store, one.version) for one in store.log("d")}
        assert len(store.gc("d", is_dry_run=True, grace_s=0)) == litter
        assert len(store.gc("d", is_dry_run=False, grace_s=0)) == litter
        assert store.gc("d", grace_s=0) == []
        assert not (path / "store" / "d" / ".aside-0").exists()
        assert {one.version: ids_of(store, one.version) for one in store.log("d")} == before
        assert store.verify("d").is_whole
