"""Stores made by others: every file of them may hold anything, with right checksums.

Each input changes one file of a small store. Whatever it holds: every verb does its work or raises one error
of the library, nothing is written outside of the folder that was asked for, nothing hangs or takes memory
without bounds, and `verify` reports what is wrong.
"""

import contextlib
import gzip
import hashlib
import json
import os
import random
import resource
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import BadNameError
from mlplatform.datasets.format.manifest import sealed, version_digest
from mlplatform.errors import MlplatformError
from mlplatform.storage.errors import CorruptStoreError

Write = Callable[..., Path]
Make = Callable[..., bytes]

HOSTILE: list[Any] = [
    None, True, False, -1, 0, 1, 2, 2**31, 2**32, 2**53, 2**63, 2**64, 10**400, 0.5, float("nan"),
    float("inf"), "", "..", ".", "/", "/tmp/escaped", "x/../../escaped", "../../../escaped", "a\0b",
    "\ud800", "\x1b[2J",    "v1", "latest", "0" * 32, "f" * 64, "x" * 100_000, [], {}, [[]], [None], [""],
    {"": 0}, [{}], ["a"] * 1000, {"../escaped": {}},
]  # fmt: skip
# What `verify` can tell from the records; all else in a manifest is somebody's word.
CHECKED = {
    "format",
    "dataset",
    "number",
    "digest",
    "parent",
    "splits",
    "packs",
    "bitmaps",
    "added",
    "removed",
}


@dataclass
class Target:
    """A store to damage, and where nothing may be written."""

    store: DatasetStore
    around: Path

    @property
    def folder(self) -> Path:
        return Path(self.store.url) / "d"

    def outside(self) -> set[Path]:
        """What lies around the store and the folder `out`, which the verbs write to."""
        skipped = (Path(self.store.url), self.around / "out")
        return {
            path
            for path in self.around.rglob("*")
            if not any(path.is_relative_to(place) for place in skipped)
        }


@pytest.fixture(scope="module", params=["plain", "gzip"])
def target(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    write_examples: Write,
    make_example: Make,
) -> Target:
    around = tmp_path_factory.mktemp("hostile")
    store = DatasetStore(around / "deep" / "store")
    rows = [make_example({"id": f"i{n}", "label": "ab"[n % 2], "n": n}) for n in range(12)]
    gz = request.param == "gzip"
    first = {"train": [[*rows[:5], rows[0], rows[0]], rows[5:8]], "eval": [rows[8:]]}
    store.commit("d", write_examples(around / "a", first, gz), key=["id"], label="label")
    changed = make_example({"id": "i1", "label": "b", "n": 99})
    second = {"train": [[*rows[:1], changed, *rows[2:8]]], "eval": [rows[8:]]}
    store.commit("d", write_examples(around / "b", second, gz))
    store.commit("d", around / "b", label="n")
    store.tag("d", "v1", "gold")
    store.record_use("d", "v1", "model", "m@1")
    store.forget("d", "i3", is_erasing=True, why="asked to")
    store.checkout("d", "v1", around / "out")
    shutil.rmtree(around / "out")
    assert store.verify("d").is_whole, store.verify("d").problems
    return Target(store, around)


def verbs(target: Target, out: Path) -> dict[str, Callable[[], object]]:
    store = target.store
    return {
        "names": store.names,
        "log": lambda: store.log("d"),
        "tags": lambda: store.tags("d"),
        "show": lambda: store.show("d", "gold"),
        "uses": lambda: [*store.uses("d"), *store.copies("d")],
        "checkout": lambda: store.checkout("d", "v1", out),
        "export": lambda: store.export("d", "v1", out),
        "diff": lambda: [*store.diff("d", "v1", "v2").items()],
        "blame": lambda: store.blame("d", "i1"),
        "blame by bytes": lambda: store.blame("d", "b", key=["label"]),
        "erased": lambda: store.erased("d"),
        "gc": lambda: store.gc("d"),
        "forget": lambda: store.forget("d", "i2"),
    }


@contextlib.contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    """Let a file hold something else for a while."""
    before, mode = path.read_bytes(), path.stat().st_mode
    path.unlink()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.unlink()
        path.write_bytes(before)
        path.chmod(mode)


def check(target: Target, rng: random.Random, must_be_found: bool, what: object) -> None:
    """Run `verify` and some other verbs on a damaged store."""
    outside = target.outside()
    out = target.around / "out"
    tried = verbs(target, out)
    for verb in rng.sample(sorted(tried), 2):
        with contextlib.suppress(MlplatformError):
            tried[verb]()
        shutil.rmtree(out, ignore_errors=True)
        assert target.outside() == outside, (verb, what)
    try:
        is_whole = target.store.verify("d").is_whole
    except MlplatformError:
        is_whole = False
    assert not (is_whole and must_be_found), what


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value of a document."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(one, (*at, name))


def with_other_value(document: Any, at: tuple[Any, ...], rng: random.Random) -> tuple[Any, str]:
    """Return a document in which a value is another one, or is missing, or has another name."""
    document = json.loads(json.dumps(document))
    holder = document
    for step in at[:-1]:
        holder = holder[step]
    way = rng.choice(["set", "set", "set", "set", "delete", "rename"])
    if way == "set":
        holder[at[-1]] = rng.choice(HOSTILE)
    elif way == "rename" and isinstance(holder, dict):
        holder[str(rng.choice(HOSTILE))] = holder.pop(at[-1])
    else:
        del holder[at[-1]]
    return document, way


def json_attacks(target: Target, seed: int, count: int) -> None:
    rng = random.Random(seed)
    files = sorted(path for path in Path(target.store.url).rglob("*.json") if "seen" not in path.parts)
    manifests = [path for path in files if path.parent.name == "versions"]
    for number in range(count):
        path = rng.choice(manifests if number % 2 else files)
        fields = json.loads(path.read_text())
        del fields["sha256"]
        at = rng.choice(list(places(fields)))
        changed, way = with_other_value(fields, at, rng)
        is_manifest = path.parent.name == "versions"
        if is_manifest and at[0] in CHECKED and rng.random() < 0.5:  # who forges a split forges the digest
            with contextlib.suppress(Exception):
                changed["digest"] = version_digest(
                    {
                        name: (s["records"], bytes.fromhex(s["digest"]))
                        for name, s in changed["splits"].items()
                    }
                )
        is_other = any(changed.get(name) != fields.get(name) for name in CHECKED)
        with contextlib.suppress(UnicodeEncodeError), replaced(path, sealed(changed)):
            check(target, rng, is_manifest and is_other, (path.name, at, way, seed, number))


def binary_attacks(target: Target, seed: int, count: int) -> None:
    rng = random.Random(seed)
    files = sorted(path for kind in ("bitmaps", "packs", "keys") for path in (target.folder / kind).iterdir())
    for number in range(count):
        path = rng.choice(files)
        data = bytearray(path.read_bytes())
        begin = rng.randrange(len(data))
        way = rng.choice(["flip", "cut", "grow", "fill", "noise"])
        if way == "flip":
            data[begin] ^= 1 << rng.randrange(8)
        elif way == "cut":
            del data[begin:]
        elif way == "grow":
            data[begin:begin] = rng.randbytes(rng.randrange(1, 40))
        else:
            size = rng.choice([1, 2, 4, 8])
            data[begin : begin + size] = b"\xff" * size if way == "fill" else rng.randbytes(size)
        body = bytes(data)
        if path.suffix == ".live":  # with the checksum that belongs to it
            body = body[:-32] + hashlib.sha256(body[:-32]).digest()
        elif path.suffix in (".index", ".keys"):
            body = body[:-4] + zlib.crc32(body[:-4]).to_bytes(4, "little")
        with replaced(path, body):
            is_cache = path.suffix == ".keys"  # one that is of no use is not used
            check(
                target,
                rng,
                not is_cache and way in ("cut", "grow"),
                (path.name, way, begin, seed, number),
            )


def test_hostile_documents(target: Target) -> None:
    json_attacks(target, seed=1, count=80)


def test_hostile_packs_bitmaps_and_caches(target: Target) -> None:
    binary_attacks(target, seed=2, count=50)


@pytest.mark.soak
def test_many_hostile_documents_and_files(target: Target) -> None:
    for seed in range(10, 30):
        json_attacks(target, seed, 400)
        binary_attacks(target, seed, 400)


def forged(store: DatasetStore, **changes: Any) -> None:
    """Write version 1 anew, with right checksums and digests."""
    path = Path(store.url) / "d" / "versions" / "v1.json"
    fields = json.loads(path.read_text())
    fields.update(changes)
    del fields["sha256"]
    splits = {name: (s["records"], bytes.fromhex(s["digest"])) for name, s in fields["splits"].items()}
    fields["digest"] = version_digest(splits)
    path.write_bytes(sealed(fields))


@pytest.fixture
def small(tmp_path: Path, write_examples: Write, make_example: Make) -> DatasetStore:
    store = DatasetStore(tmp_path / "deep" / "store")
    rows = [make_example({"id": f"i{n}"}) for n in range(3)]
    store.commit("d", write_examples(tmp_path / "a", {"train": [rows]}), key=["id"])
    return store


@pytest.mark.parametrize(
    "name", ["/tmp/escaped-split", "x/../../../escaped", "..", "a/b", "\x1b[2Jx", "a\0b"]
)
@pytest.mark.parametrize("verb", ["checkout", "export"])
def test_a_split_leads_nowhere(name: str, verb: str, tmp_path: Path, small: DatasetStore) -> None:
    split = small.show("d").splits["train"]
    facts = {"records": split.records, "distinct": split.distinct, "digest": split.digest, "live": split.live}
    forged(small, splits={name: facts})
    with pytest.raises(CorruptStoreError, match=r"versions/v1\.json.*'splits'.*not a name"):
        getattr(small, verb)("d", "v1", tmp_path / "out")
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/tmp/escaped-split").exists()


@pytest.mark.parametrize("field", ["name", "bitmaps"])
def test_a_pack_or_bitmap_is_a_file_of_its_own_folder(
    field: str, tmp_path: Path, small: DatasetStore
) -> None:
    (pack,) = json.loads((Path(small.url) / "d/versions/v1.json").read_text())["packs"]
    if field == "bitmaps":
        forged(small, bitmaps="../../../secret.live")
    else:
        forged(small, packs=[{**pack, "name": "../../../secret"}])
    with pytest.raises(CorruptStoreError, match=rf"field '[\w.]*{field}' is '\.\./\.\./\.\./secret"):
        small.show("d")


def test_is_gzip_is_checked_by_every_reader(small: DatasetStore) -> None:
    (pack,) = json.loads((Path(small.url) / "d/versions/v1.json").read_text())["packs"]
    forged(small, packs=[{**pack, "is_gzip": True}])
    plain = Path(small.url) / "d" / "packs" / f"{pack['name']}.tfrecord"
    plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(CorruptStoreError, match="it is of a plain file, and the manifest says otherwise"):
        small.blame("d", "i1")
    assert "manifest says otherwise" in small.verify("d").problems[0].what


def test_a_few_bytes_do_not_become_gigabytes(small: DatasetStore) -> None:
    """A bitmap of 500 million records, in some 70 kB of zlib."""
    (pack,) = json.loads((Path(small.url) / "d/versions/v1.json").read_text())["packs"]
    split = small.show("d").splits["train"]
    facts = {"records": 3, "distinct": 3, "digest": split.digest, "live": split.live}
    forged(small, packs=[{**pack, "records": 2**29}], splits={"train": facts})
    bits = zlib.compress(bytes(2**26))
    body = b"MLPLIVE1" + len(b"train").to_bytes(2, "little") + bytes(4) + len(bits).to_bytes(8, "little")
    body += bytes(8) + b"train" + bits
    (bitmap,) = (Path(small.url) / "d" / "bitmaps").iterdir()
    bitmap.write_bytes(body + hashlib.sha256(body).digest())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptStoreError, match="size of the 536,870,912 records"):
        small.diff("d", "v1", "v1")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("number", [0, -1, 2, 10**30, "1", None, True])
def test_a_tag_names_a_version_that_there_is(number: Any, small: DatasetStore) -> None:
    small.tag("d", "v1", "gold")
    path = Path(small.url) / "d" / "tags" / "gold" / "1.json"
    path.write_bytes(sealed({"format": 1, "tag": "gold", "number": number, "at": ""}))
    with pytest.raises(
        CorruptStoreError, match=r"tags/gold/1\.json is damaged: (its field 'number'|it names)"
    ):
        small.show("d", "gold")
    with pytest.raises(CorruptStoreError):
        small.tags("d")
    assert small.verify("d").is_whole == (number == 2)


def test_a_version_of_a_huge_number_is_one_problem(small: DatasetStore) -> None:
    (Path(small.url) / "d" / "versions" / f"v{10**200}.json").write_bytes(b"{}")
    with pytest.raises(CorruptStoreError, match=r"v2\.json is damaged: it is missing"):
        small.log("d")
    problems = {problem.path: problem.what for problem in small.verify("d").problems}
    assert problems["d/versions/v2.json"] == "it is missing"


@pytest.mark.parametrize("data", [b"[" * 100_000, b"1" * 10_000, b"\xff\xfe{}", b"null", b'"x"', b"{}", b""])
def test_what_is_no_document_is_one_error(data: bytes, small: DatasetStore) -> None:
    (Path(small.url) / "d" / "versions" / "v1.json").write_bytes(data)
    with pytest.raises(CorruptStoreError, match=r"v1\.json is damaged"):
        small.show("d")


@pytest.mark.parametrize(
    "place", ["versions/v1.json", "packs/*.tfrecord", "packs/*.index", "bitmaps/*", "lock"]
)
def test_a_pipe_where_a_file_belongs_holds_nobody_up(place: str, tmp_path: Path, small: DatasetStore) -> None:
    (path,) = (Path(small.url) / "d").glob(place)
    path.unlink()
    os.mkfifo(path)
    with contextlib.suppress(MlplatformError):
        small.checkout("d", "v1", tmp_path / "out")
    with contextlib.suppress(MlplatformError):
        assert not small.verify("d").is_whole or place == "lock"


def test_a_lock_is_no_way_to_another_file(tmp_path: Path, small: DatasetStore) -> None:
    lock = Path(small.url) / "d" / "lock"
    lock.unlink()
    lock.symlink_to(tmp_path / "made-by-the-lock")
    with pytest.raises(OSError, match="symbolic links"):
        small.checkout("d", "v1", tmp_path / "out")
    assert not (tmp_path / "made-by-the-lock").exists()


def test_what_held_out_marks_and_kept_keys_say_is_verified(
    tmp_path: Path, write_examples: Write, make_example: Make
) -> None:
    store = DatasetStore(tmp_path / "store")
    rows = [make_example({"id": f"i{n}"}) for n in range(8)]
    store.commit("d", write_examples(tmp_path / "a", {"train": [rows[:4]], "eval": [rows[4:]]}), key=["id"])
    store.commit("d", write_examples(tmp_path / "b", {"train": [rows[:3]], "eval": [rows[4:]]}))
    store.commit(
        "d",
        write_examples(
            tmp_path / "c", {"train": [[*rows[:3], make_example({"id": "new"})]], "eval": [rows[5:]]}
        ),
    )
    assert store.verify("d").is_whole
    kept = sorted((Path(store.url) / "d" / "keys").iterdir())[0]
    whole = kept.read_bytes()
    body = whole[:8] + bytes(len(whole) - 12)  # no record has a key: the firewall would see nothing
    kept.write_bytes(body + zlib.crc32(body).to_bytes(4, "little"))
    (problem,) = store.verify("d").problems
    assert (problem.path, problem.what) == (
        f"d/keys/{kept.name}",
        "it has not the keys of its records; it can be deleted",
    )
    kept.write_bytes(whole)
    path = Path(store.url) / "d" / "versions" / "v1.json"
    fields = json.loads(path.read_text())
    del fields["sha256"]
    path.write_bytes(sealed({**fields, "training_splits": ["train", "eval"]}))
    assert "marks as held out" in store.verify("d").problems[0].what


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "\udcff", "x" * 201])
def test_a_commit_refuses_what_no_reader_would_take(name: str, tmp_path: Path, store: DatasetStore) -> None:
    try:
        (tmp_path / "in" / f"Split-{name}").mkdir(parents=True)
    except OSError:
        pytest.skip("this file system has no such name")
    with pytest.raises(BadNameError, match="is not a valid split name"):
        store.commit("d", tmp_path / "in")
