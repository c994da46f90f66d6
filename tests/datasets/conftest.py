"""Small real Examples, written without TensorFlow."""

import gzip
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from mlplatform import progress
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.format import native
from mlplatform.datasets.format.tfrecord import frame

Examples = Mapping[str, Sequence[Sequence[bytes]]]  # split -> shards -> records
WriteExamples = Callable[..., Path]
MakeExample = Callable[..., bytes]
ReadExamples = Callable[[Path], dict[str, list[bytes]]]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def field(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + varint(len(data)) + data


def feature(value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return field(0x1A, field(0x0A, varint(value % 2**64)))
    return field(0x0A, field(0x0A, value if isinstance(value, bytes) else value.encode()))


@pytest.fixture(scope="session")
def make_example() -> MakeExample:
    """A tf.Example; its map entries in the order given, or in a random one."""

    def make(features: Mapping[str, bytes | str | int], shuffled_by: int | None = None) -> bytes:
        names = list(features)
        if shuffled_by is not None:
            random.Random(shuffled_by).shuffle(names)
        entries = [
            field(0x0A, field(0x0A, name.encode()) + field(0x12, feature(features[name]))) for name in names
        ]
        return field(0x0A, b"".join(entries))

    return make


@pytest.fixture(scope="session")
def write_examples() -> WriteExamples:
    """Write `Split-*` folders; `gz` compresses the shards."""

    def write(folder: Path, examples: Examples, gz: bool = False) -> Path:
        for split, shards in examples.items():
            place = folder / f"Split-{split}"
            place.mkdir(parents=True)
            for number, records in enumerate(shards):
                data = b"".join(map(frame, records))
                name = f"data_tfrecord-{number:05d}-of-{len(shards):05d}" + (".gz" if gz else "")
                (place / name).write_bytes(gzip.compress(data, 1) if gz else data)
        return folder

    return write


@pytest.fixture(scope="session")
def read_examples() -> ReadExamples:
    """Read all records below `Split-*`, per split, in file order; with nothing of the code under test."""

    def read(folder: Path) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for place in sorted(folder.glob("Split-*")):
            records = found.setdefault(place.name.removeprefix("Split-"), [])
            for path in sorted(place.iterdir()):
                data = path.read_bytes()
                if path.suffix == ".gz":
                    data = gzip.decompress(data)
                at = 0
                while at < len(data):
                    size = int.from_bytes(data[at : at + 8], "little")
                    records.append(data[at + 12 : at + 12 + size])
                    at += size + 16
        return found

    return read


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "store")


@pytest.fixture
def settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store trusts the times of files that were just written."""
    monkeypatch.setattr("mlplatform.datasets.seen._SETTLED_AFTER_S", 0.0)


@pytest.fixture(scope="module", params=["C", "NumPy"])
def each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """With the C library and without; what a module promises holds for both."""
    if request.param == "C":
        assert native.is_built(), "there is no C library: make env builds it, with a C compiler"
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "is_built", lambda: False)
        yield


class _Waiting:
    """A progress sink that hears when somebody waits for a lock."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def update(self, task: progress.Task) -> None:
        if task.description.startswith("wait for others"):
            self.begun.set()

    def finish(self, task: progress.Task) -> None:
        pass

    def report_line(self, text: str) -> None:
        pass


@pytest.fixture
def is_waiting() -> Iterator[threading.Event]:
    """Set as soon as some thread found a dataset held by another, and waits."""
    sink = _Waiting()
    before = progress.set_sink(sink)
    yield sink.begun
    progress.set_sink(before)
