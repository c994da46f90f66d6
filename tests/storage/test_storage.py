"""What every storage promises, on each backend: a folder, memory, and an S3 server in this process."""

import errno
import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.errors import MissingExtraError
from mlplatform.storage import FsspecStorage, LocalStorage, Storage, open_storage
from mlplatform.storage.errors import BadPathError, NoAtomicCreateError, StoreAccessError
from mlplatform.storage.file_systems import identities

# Names that a pattern, a URL or a shell would read in another way.
ODD_NAMES = (
    "ä",
    "日本",
    "a b",
    "a*",
    "[a]",
    "a?b",
    "a#b",
    "%41",
    "a&b=c",
    "é" * 60,
    "{x}",
    "~",
    "-r",
    "a\\b",
)
PATHS = ["../out", "a/../../out", "/etc/out", "a\0b", "a//b", "./a", "a/.", "a/", "\udcff", "a/.."]
FILE = st.sampled_from(["a", "b", "saved_model.pb", *ODD_NAMES])
# A name ending in 'd' is a folder's and any other a file's, so that none is both.
FOLDER = st.lists(st.sampled_from(["d", "variables.d", "日d", "x d"]), max_size=2)
TREES = st.dictionaries(
    st.builds(lambda folder, file: "/".join([*folder, file]), FOLDER, FILE),
    st.binary(max_size=20),
    max_size=6,
)
PLACES = st.sampled_from(["models/d/1", "models/d/2", "models/d/1/d", "other"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put_tree"), PLACES, TREES),
        st.tuples(st.just("put"), PLACES, st.tuples(FILE, st.binary(max_size=20))),
        st.tuples(st.just("delete_tree"), PLACES, st.none()),
        st.tuples(st.just("fetch_tree"), PLACES, st.none()),
    ),
    max_size=6,
)
_EXAMPLES = itertools.count()


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files by their relative names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return the files below a local folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


class Killed(BaseException):
    """A process that ends in the middle."""


def failing_after(calls: int, function: Callable[..., object]) -> Callable[..., object]:
    """Let some calls of a function pass; the ones after raise."""
    numbers = itertools.count()

    def call(*arguments: object, **named: object) -> object:
        if next(numbers) >= calls:
            raise Killed
        return function(*arguments, **named)

    return call


def refused(code: str) -> OSError:
    """What s3fs makes of a server's refusal."""
    from botocore.exceptions import ClientError

    error = OSError(errno.EIO, code)
    error.__cause__ = ClientError({"Error": {"Code": code, "Message": code}}, "PutObject")
    return error


class StorageContract:
    """The promises of a storage."""

    @pytest.fixture
    def url(self) -> str:
        """A root that nothing was written to."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self, url: str) -> Storage:
        return open_storage(url)

    @pytest.fixture
    def fill(self, storage: Storage, tmp_path: Path) -> Callable[..., None]:
        """Put a tree."""
        numbers = itertools.count()

        def put(path: str, files: Mapping[str, bytes], last: tuple[str, ...] = ()) -> None:
            storage.put_tree(path, write_tree(tmp_path / f"source-{next(numbers)}", files), last)

        return put

    def test_what_is_put_is_read_in_full_and_in_ranges(self, storage: Storage) -> None:
        storage.put("d/file", b"0123456789")
        storage.put("d/other", b"")
        assert storage.read("d/file") == b"0123456789"
        assert storage.read("d/file", 3) == b"3456789"
        assert storage.read("d/file", 3, 5) == b"34"
        assert storage.read("d/file", 8, 50) == b"89"
        assert storage.read("d/file", 4, 4) == b""
        assert storage.read_all(["d/other", "d/file"]) == [b"", b"0123456789"]
        assert storage.read_all([]) == []
        with storage.open("d/file") as file:
            assert file.read(4) == b"0123"
        assert (storage.size("d/file"), storage.size("d/other")) == (10, 0)
        assert -60 < storage.age_s("d/file") < 600
        storage.put("d/file", b"new")
        assert storage.read("d/file") == b"new"

    def test_a_file_made_aside_is_moved_to_its_place(self, storage: Storage) -> None:
        source = storage.aside("d")
        source.write_bytes(b"data")
        storage.put_file("d/file", source)
        assert storage.read("d/file") == b"data"
        assert not source.exists()
        assert storage.paths("d") == ["file"]

    def test_each_reader_has_a_position_of_its_own(self, storage: Storage) -> None:
        storage.put("d/file", b"0123456789")
        with storage.open("d/file") as one:
            assert one.read(4) == b"0123"
            with storage.open("d/file") as other:
                assert other.read() == b"0123456789"
            assert one.read() == b"456789"

    def test_what_many_fetch_and_put_at_once_is_whole(self, storage: Storage, tmp_path: Path) -> None:
        whole = bytes(3_000_000)
        source = write_tree(tmp_path / "source", {"a": whole})
        storage.put_tree("t/0", source)

        def work(number: int) -> bool:
            storage.put_tree(f"t/{number}", source)
            storage.fetch_tree("t/0", tmp_path / f"copy-{number}")
            copies = [(tmp_path / f"copy-{number}" / "a").read_bytes(), storage.read(f"t/{number}/a")]
            return copies == [whole, whole]

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(work, range(1, 9)))

    def test_a_missing_file_is_a_missing_file(self, storage: Storage) -> None:
        storage.put("d/there", b"1")
        for act in (storage.read, storage.size, storage.age_s, storage.open):
            with pytest.raises(FileNotFoundError):
                act("d/missing")
        with pytest.raises(FileNotFoundError):
            storage.read_all(["d/there", "d/missing"])
        storage.delete("d/missing")
        storage.delete_folder("d/missing")
        storage.delete("d/there")
        assert storage.paths("") == []

    def test_listings_are_sorted_and_relative(self, storage: Storage) -> None:
        for path in ("d/b", "d/a/2", "d/a/1/x", "d/a0", "d2/y", "z"):
            storage.put(path, b"1")
        assert storage.paths("d") == ["a/1/x", "a/2", "a0", "b"]
        assert storage.paths("") == ["d/a/1/x", "d/a/2", "d/a0", "d/b", "d2/y", "z"]
        assert [name for name in storage.names("d") if name != ".aside"] == ["a", "a0", "b"]
        assert storage.names("d/a") == ["1", "2"]
        for nothing in ("missing", "d/missing/deeper", "z"):
            assert storage.paths(nothing) == []
        assert storage.names("missing") == []

    def test_a_listing_sees_what_another_has_just_written(self, url: str, storage: Storage) -> None:
        other = open_storage(url)
        assert storage.paths("d") == storage.names("d") == []
        other.put("d/x/a", b"1")
        assert (storage.paths("d"), storage.names("d/x")) == (["x/a"], ["a"])
        other.delete("d/x/a")
        assert storage.paths("d") == []

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_names_are_taken_as_they_are(self, storage: Storage, name: str) -> None:
        storage.put(f"d/{name}", b"1")
        storage.put("d/aa", b"2")
        assert storage.paths("d") == sorted([name, "aa"])
        assert storage.read_all([f"d/{name}", "d/aa"]) == [b"1", b"2"]
        assert not storage.create(f"d/{name}", b"3")
        storage.delete(f"d/{name}")
        assert storage.paths("d") == ["aa"]

    @pytest.mark.parametrize("path", PATHS)
    def test_a_path_that_leads_out_of_the_root_is_refused(
        self, storage: Storage, tmp_path: Path, path: str
    ) -> None:
        source = write_tree(tmp_path / "source", {"file": b"1"})
        acts: list[Callable[[], object]] = [
            lambda: storage.read(path),
            lambda: storage.read_all([path]),
            lambda: storage.open(path),
            lambda: storage.size(path),
            lambda: storage.put(path, b"1"),
            lambda: storage.put_file(path, source / "file"),
            lambda: storage.create(path, b"1"),
            lambda: storage.delete(path),
            lambda: storage.names(path),
            lambda: storage.paths(path),
            lambda: storage.put_tree(path, source),
            lambda: storage.fetch_tree(path, tmp_path / "target"),
            lambda: storage.delete_tree(path),
        ]
        for act in acts:
            with pytest.raises(BadPathError, match="cannot be a file or folder below"):
                act()
        assert read_tree(tmp_path / "source") == {"file": b"1"}
        assert not (tmp_path / "target").exists()

    def test_the_root_itself_and_what_is_reserved_are_not_written(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        source = write_tree(tmp_path / "source", {"file": b"1"})
        for path in ("", ".aside", ".aside/x", "d/.aside/x"):
            with pytest.raises(BadPathError):
                storage.put_tree(path, source)
            with pytest.raises(BadPathError):
                storage.put(path, b"1")
        with pytest.raises(BadPathError):
            storage.delete_tree("")

    def test_a_team_may_take_the_name_aside(
        self, storage: Storage, fill: Callable[..., None], tmp_path: Path
    ) -> None:
        fill("aside/1", {"a": b"1"})
        storage.put("d/aside/b", b"2")
        assert storage.paths("") == ["aside/1/a", "d/aside/b"]
        storage.fetch_tree("aside/1", tmp_path / "out")
        assert read_tree(tmp_path / "out") == {"a": b"1"}

    def test_of_many_that_create_one_name_one_wins(self, url: str) -> None:
        storages = [open_storage(url) for _ in range(6)]
        start = threading.Barrier(len(storages))

        def create(number: int) -> bool:
            start.wait()
            return storages[number].create("d/versions/v1.json", b"%d" % number)

        with ThreadPoolExecutor(len(storages)) as threads:
            wins = list(threads.map(create, range(len(storages))))
        assert wins.count(True) == 1
        assert storages[0].read("d/versions/v1.json") == b"%d" % wins.index(True)
        assert storages[1].paths("") == ["d/versions/v1.json"]

    def test_a_reader_sees_one_whole_file_or_another(self, url: str, storage: Storage) -> None:
        whole = {bytes([letter]) * 200_000 for letter in b"ab"}
        storage.put("d/file", min(whole))
        is_done = threading.Event()

        def write() -> None:
            writer = open_storage(url)
            for data in sorted(whole) * 5:
                writer.put("d/file", data)
            is_done.set()

        with ThreadPoolExecutor(1) as threads:
            writing = threads.submit(write)
            while not is_done.is_set() and not writing.done():
                assert storage.read("d/file") in whole
            writing.result()

    def test_a_tree_goes_in_and_comes_out(
        self, storage: Storage, fill: Callable[..., None], tmp_path: Path
    ) -> None:
        files = {"saved_model.pb": b"graph", "variables/data": b"1" * 5000, "assets/ä [1]": b"", "b*": b"2"}
        fill("models/items/3", files, ("saved_model.pb", "not-there"))
        assert storage.paths("models/items/3") == sorted(files)
        assert storage.paths("models") == sorted(f"items/3/{name}" for name in files)
        storage.fetch_tree("models/items/3", tmp_path / "new" / "model")
        assert read_tree(tmp_path / "new" / "model") == files
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]

    def test_a_tree_replaces_what_was_there(self, storage: Storage, fill: Callable[..., None]) -> None:
        fill("t", {"a": b"1", "old/b": b"1", "mark": b"1"}, ("mark",))
        storage.put("t2", b"neighbour")
        fill("t", {"a": b"2", "new/c": b"2", "mark": b"2"}, ("mark",))
        assert storage.paths("") == ["t/a", "t/mark", "t/new/c", "t2"]
        assert storage.read_all(["t/a", "t/mark"]) == [b"2", b"2"]

    def test_an_empty_tree_and_empty_folders_leave_nothing(
        self, storage: Storage, tmp_path: Path, fill: Callable[..., None]
    ) -> None:
        (tmp_path / "empty" / "folder").mkdir(parents=True)
        storage.put_tree("t", tmp_path / "empty")
        assert storage.paths("") == []
        with pytest.raises(FileNotFoundError, match="no file below"):
            storage.fetch_tree("t", tmp_path / "out")
        fill("t", {"a": b"1"})
        storage.put_tree("t", tmp_path / "empty")
        assert storage.paths("") == []
        assert not (tmp_path / "out").exists()

    def test_links_in_a_source_are_followed(self, storage: Storage, tmp_path: Path) -> None:
        write_tree(tmp_path / "elsewhere", {"x": b"1"})
        source = write_tree(tmp_path / "source", {"a": b"2"})
        (source / "folder").symlink_to(tmp_path / "elsewhere")
        (source / "file").symlink_to("a")
        storage.put_tree("t", source)
        storage.fetch_tree("t", tmp_path / "out")
        assert read_tree(tmp_path / "out") == {"a": b"2", "file": b"2", "folder/x": b"1"}
        assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))

    def test_a_source_that_is_no_tree_of_files_changes_nothing(
        self, storage: Storage, tmp_path: Path, fill: Callable[..., None]
    ) -> None:
        fill("t", {"a": b"1"})
        broken = write_tree(tmp_path / "broken", {"b": b"2"})
        (broken / "link").symlink_to("nowhere")
        circle = write_tree(tmp_path / "circle", {"b": b"2"})
        (circle / "again").symlink_to(circle)
        pipe = write_tree(tmp_path / "pipe", {"b": b"2"})
        os.mkfifo(pipe / "pipe")
        for source in (broken, circle, pipe, tmp_path / "missing", broken / "b"):
            with pytest.raises(OSError, match=r"link|again|pipe|not a folder"):
                storage.put_tree("t", source)
        assert storage.paths("") == ["t/a"]

    def test_a_target_that_is_taken_stays(
        self, storage: Storage, fill: Callable[..., None], tmp_path: Path
    ) -> None:
        fill("t", {"a": b"1"})
        write_tree(tmp_path / "taken", {"mine": b"2"})
        with pytest.raises(FileExistsError, match="there already"):
            storage.fetch_tree("t", tmp_path / "taken")
        assert read_tree(tmp_path / "taken") == {"mine": b"2"}

    def test_of_two_that_fetch_to_one_folder_one_wins(
        self, url: str, fill: Callable[..., None], tmp_path: Path
    ) -> None:
        fill("t", {f"{n}": b"1" for n in range(20)})

        def fetch(storage: Storage) -> bool:
            try:
                storage.fetch_tree("t", tmp_path / "fetched" / "t")
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(4) as threads:
            wins = list(threads.map(fetch, [open_storage(url) for _ in range(4)]))
        assert wins.count(True) == 1
        assert len(read_tree(tmp_path / "fetched" / "t")) == 20
        assert [path.name for path in (tmp_path / "fetched").iterdir()] == ["t"]

    def test_a_fetch_that_fails_leaves_nothing(
        self, storage: Storage, fill: Callable[..., None], tmp_path: Path
    ) -> None:
        fill("t", {"a": b"1", "b": b"2"})
        (tmp_path / "locked").mkdir()
        (tmp_path / "locked").chmod(stat.S_IRUSR | stat.S_IXUSR)
        if os.access(tmp_path / "locked", os.W_OK):  # root writes everywhere
            (tmp_path / "locked").rmdir()
            (tmp_path / "locked").write_text("a file where a folder belongs")
        with pytest.raises(OSError, match="locked"):
            storage.fetch_tree("t", tmp_path / "locked" / "t")
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_a_tree_that_is_deleted_is_gone_with_all_below(
        self, storage: Storage, fill: Callable[..., None]
    ) -> None:
        fill("d/t", {"a": b"1", "b/c/d": b"1"})
        fill("d/t1", {"a": b"1"})
        storage.delete_tree("d/t")
        storage.delete_tree("d/t")
        storage.delete_tree("missing/deeper")
        assert storage.paths("") == ["d/t1/a"]
        storage.delete_tree("d/t1/a")  # a file, not a folder
        assert storage.paths("") == ["d/t1/a"]

    def test_a_big_tree_is_whole(self, storage: Storage, fill: Callable[..., None], tmp_path: Path) -> None:
        files = {f"{n % 7}/{n:03}": b"%d" % n * (n % 50) for n in range(60)} | {"big": os.urandom(6_000_000)}
        fill("t", files)
        assert storage.paths("t") == sorted(files)
        storage.fetch_tree("t", tmp_path / "out")
        assert read_tree(tmp_path / "out") == files
        storage.delete_tree("t")
        assert storage.paths("") == []

    @given(steps=STEPS)
    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,  # each backend is one
            HealthCheck.too_slow,
        ],
    )
    def test_trees_behave_as_a_mapping_from_path_to_bytes(
        self, url: str, steps: list[tuple[str, str, object]]
    ) -> None:
        """Whatever is put, replaced, deleted and fetched in whatever order."""
        top = f"h/{next(_EXAMPLES)}"
        storage, model = open_storage(url), dict[str, bytes]()
        with tempfile.TemporaryDirectory() as scratch:
            for number, (verb, place, what) in enumerate(steps):
                path, local = f"{top}/{place}", Path(scratch, str(number))
                below = {name for name in model if name.startswith(f"{place}/")}
                if verb == "put_tree" and isinstance(what, dict):
                    storage.put_tree(path, write_tree(local, what), ("saved_model.pb",))
                    for name in below:
                        del model[name]
                    model |= {f"{place}/{name}": data for name, data in what.items()}
                elif verb == "put" and isinstance(what, tuple):
                    storage.put(f"{path}/{what[0]}", what[1])
                    model[f"{place}/{what[0]}"] = what[1]
                elif verb == "delete_tree":
                    storage.delete_tree(path)
                    for name in below:
                        del model[name]
                elif below:
                    storage.fetch_tree(path, local)
                    assert read_tree(local) == {name.removeprefix(f"{place}/"): model[name] for name in below}
                else:
                    with pytest.raises(FileNotFoundError):
                        storage.fetch_tree(path, local)
                assert storage.paths(top) == sorted(model)
                shutil.rmtree(local, ignore_errors=True)
            names = sorted(model)
            assert storage.read_all([f"{top}/{name}" for name in names]) == [model[name] for name in names]


def count_below(folder: str) -> int:
    """Return how many files and folders there are, some of which may vanish meanwhile."""
    return sum(1 + len(files) for _, _, files in os.walk(folder))


_WRITES_TREES = """
import sys
from pathlib import Path
from mlplatform.storage import open_storage

storage = open_storage(sys.argv[1])
while True:
    for source in sys.argv[2:]:
        storage.put_tree("m/t", Path(source))
"""


class TestFolder(StorageContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path / "store")

    def test_nothing_of_a_tree_is_seen_until_all_of_it_is_there(
        self, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, seen = shutil.copyfile, []

        def copyfile(source: Path, target: Path) -> object:
            seen.append(storage.paths(""))
            return real(source, target)

        monkeypatch.setattr(shutil, "copyfile", copyfile)
        storage.put_tree("m/1", write_tree(tmp_path / "source", {"a": b"1", "b": b"2"}))
        assert seen == [[], []]
        assert storage.paths("") == ["m/1/a", "m/1/b"]

    @pytest.mark.parametrize("clean", ["retry", "delete"])
    def test_what_a_killed_writer_left_aside_is_removed(
        self, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean: str
    ) -> None:
        source = write_tree(tmp_path / "source", {"a": b"1", "b": b"2"})
        with monkeypatch.context() as killed:  # as SIGKILL does: no cleaning up
            killed.setattr(shutil, "rmtree", lambda *_, **__: None)
            killed.setattr(shutil, "copyfile", failing_after(1, shutil.copyfile))
            with pytest.raises(Killed):
                storage.put_tree("m/1", source)
        aside = tmp_path / "store" / "m" / ".aside"
        assert len(list(aside.iterdir())) == 1
        assert storage.paths("") == []
        if clean == "retry":
            storage.put_tree("m/1", source)
        else:
            storage.delete_tree("m/1")
        assert list(aside.iterdir()) == []

    def test_a_writer_that_is_killed_leaves_one_whole_tree_or_none(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        trees = [{f"{n}/{name}": name.encode() * 3000 for n in range(40)} for name in "ab"]
        sources = [write_tree(tmp_path / str(number), tree) for number, tree in enumerate(trees)]
        for files in (0, 20, 60, 100, 140, 160):  # those of an old tree, a new one, and their folders
            writing = subprocess.Popen([sys.executable, "-c", _WRITES_TREES, storage.url, *map(str, sources)])
            while writing.poll() is None and count_below(storage.url) < files:
                pass
            writing.kill()
            assert writing.wait() == -signal.SIGKILL
            found = storage.paths("m/t")
            assert found in ([], *map(sorted, trees))
            assert len({storage.read(f"m/t/{name}") for name in found}) <= 1
        storage.delete_tree("m/t")
        assert storage.paths("") == []
        assert list((tmp_path / "store" / "m" / ".aside").iterdir()) == []

    def test_what_writers_of_earlier_releases_left_is_ignored(self, storage: Storage, tmp_path: Path) -> None:
        storage.put("d/a", b"1")
        for folder in ("aside", "d/aside"):
            file, tree = uuid.uuid4().hex, f"{'0' * 16}-{uuid.uuid4().hex}"
            write_tree(tmp_path / "store" / folder, {file: b"half", f"{tree}/b": b"half"})
        assert storage.paths("") == ["d/a"]
        assert storage.paths("d") == ["a"]

    def test_a_file_system_without_hard_links_is_refused(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def link(*_: object) -> None:
            raise OSError(errno.ENOTSUP, "Operation not supported")

        monkeypatch.setattr(os, "link", link)
        with pytest.raises(NoAtomicCreateError, match="no hard links"):
            storage.create("d/file", b"1")


class TestMemory(StorageContract):
    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid.uuid4().hex}"


class TestS3(StorageContract):
    @pytest.fixture
    def url(self, s3: str) -> str:
        return f"{s3}/{uuid.uuid4().hex}"


@pytest.fixture(params=["memory", "s3"])
def objects(request: pytest.FixtureRequest) -> str:
    """A root where nothing can be renamed."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}"


class TestObjectStorage:
    """What differs where nothing can be renamed, and what a server and a network can do."""

    def test_a_tree_that_is_written_in_part_lacks_the_file_that_readers_look_for(
        self, objects: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = open_storage(objects)
        old = {"variables/0": b"old", "variables/9": b"old", "saved_model.pb": b"old"}
        new = {"variables/0": b"new", "variables/1": b"new", "saved_model.pb": b"new"}
        storage.put_tree("m/1", write_tree(tmp_path / "old", old), ("saved_model.pb",))
        source = write_tree(tmp_path / "new", new)
        for written in range(len(new)):
            with monkeypatch.context() as killed:
                killed.setattr(storage._fs, "put_file", failing_after(written, storage._fs.put_file))
                with pytest.raises(Killed):
                    storage.put_tree("m/1", source, ("saved_model.pb",))
            assert "saved_model.pb" not in storage.paths("m/1")
        storage.put_tree("m/1", source, ("saved_model.pb",))
        assert storage.paths("m/1") == sorted(new)
        storage.delete_tree("m/1")
        assert storage.paths("") == []

    def test_a_listing_says_which_bytes_files_have(self, objects: str) -> None:
        storage = open_storage(objects)
        assert list(identities(objects)) == []
        for path in ("d/b", "d/a", "d2"):
            storage.put(path, b"1")
        first = dict(identities(f"{objects}/d"))
        assert list(first) == ["a", "b"]
        assert list(identities(f"{objects}/d/a")) == [("", first["a"])]
        assert dict(identities(objects)) == {"d/a": first["a"], "d/b": first["b"], "d2": ANY}
        storage.put("d/a", b"2")
        second = dict(identities(f"{objects}/d"))
        assert second["a"] != first["a"]
        assert second["b"] == first["b"]

    def test_names_that_others_wrote_cannot_lead_a_fetch_out_of_its_target(
        self, objects: str, tmp_path: Path
    ) -> None:
        storage = open_storage(objects)
        storage.put("t/a", b"1")
        storage._fs.pipe_file(f"{storage._fs._strip_protocol(objects)}/t/b/../../../evil", b"2")
        if not any(".." in path for path in storage.paths("t")):
            pytest.skip("this server keeps no such name")
        with pytest.raises(BadPathError, match=r"'\.\.'"):
            storage.fetch_tree("t", tmp_path / "x" / "y" / "t")
        assert list(tmp_path.iterdir()) == []

    def test_the_markers_that_consoles_make_for_folders_are_no_files(self, s3: str, tmp_path: Path) -> None:
        storage = open_storage(f"{s3}/{uuid.uuid4().hex}")
        storage.put("t/a", b"1")
        fs, place = fsspec.core.url_to_fs(storage.url)
        fs.call_s3("put_object", Bucket="bucket", Key=f"{place.removeprefix('bucket/')}/t/", Body=b"")
        fs.call_s3("put_object", Bucket="bucket", Key=f"{place.removeprefix('bucket/')}/t/d/", Body=b"")
        assert storage.paths("t") == ["a"]
        storage.fetch_tree("t", tmp_path / "t")
        assert read_tree(tmp_path / "t") == {"a": b"1"}

    @pytest.mark.parametrize(
        ("answers", "outcome"),
        [
            ([refused("ConditionalRequestConflict"), None], True),  # another request was under way: once more
            ([refused("ConditionalRequestConflict"), refused("PreconditionFailed")], False),
            ([FileExistsError("taken")], False),
            ([PermissionError("Access Denied (request 94125)")], StoreAccessError),
            ([refused("SlowDown")], StoreAccessError),
        ],
    )
    def test_only_a_taken_name_counts_as_somebody_else_having_been_first(
        self, s3: str, answers: list[Any], outcome: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = open_storage(f"{s3}/{uuid.uuid4().hex}")
        storage.put("probed", b"")
        coming = iter(answers)

        def pipe_file(*_: Any, **__: Any) -> None:
            if (answer := next(coming)) is not None:
                raise answer

        monkeypatch.setattr(storage._fs, "pipe_file", pipe_file)
        if isinstance(outcome, bool):
            assert storage.create("d/versions/v1.json", b"1") is outcome
        else:
            with pytest.raises(outcome, match="refused what was asked"):
                storage.create("d/versions/v1.json", b"1")

    def test_a_bucket_that_is_missing_is_one_clear_error(self, s3: str) -> None:
        with pytest.raises(StoreAccessError, match=r"s3://no-such-bucket/x.*the bucket .* does not exist"):
            open_storage("s3://no-such-bucket/x").put("a", b"1")

    def test_a_server_that_is_gone_is_one_clear_error(self, tmp_path: Path) -> None:
        script = (
            "from mlplatform.storage import open_storage\n"
            "from mlplatform.storage.errors import StoreAccessError\n"
            "try:\n    open_storage('s3://bucket/x').names('')\n"
            "except StoreAccessError as error:\n    print(error)\n"
        )
        gone = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1", "AWS_ACCESS_KEY_ID": "x"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **gone, "AWS_SECRET_ACCESS_KEY": "x"},
            capture_output=True,
            text=True,
        )
        assert "s3://bucket/x cannot be reached" in done.stdout, done.stderr[-2000:]
        assert "AWS_ENDPOINT_URL" in done.stdout


def test_one_setting_names_the_server_for_beam_too(s3: str) -> None:
    from apache_beam.io.aws.s3filesystem import S3FileSystem
    from apache_beam.options.pipeline_options import PipelineOptions

    beam = S3FileSystem(PipelineOptions([]))
    url = f"{s3}/{uuid.uuid4().hex}"
    open_storage(url).put("d/a b", b"1")
    with beam.open(f"{url}/d/a b") as file:
        assert file.read() == b"1"
    with beam.create(f"{url}/d/c") as file:
        file.write(b"2")
    assert open_storage(url).paths("d") == ["a b", "c"]


def test_a_backend_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(MissingExtraError, match=r"mlplatform\[azure\]"):
        open_storage("abfs://container/x")


def test_a_kind_of_url_that_nobody_knows_is_one_clear_error() -> None:
    with pytest.raises(StoreAccessError, match="s4://bucket/x cannot be reached"):
        open_storage("s4://bucket/x")


def test_a_backend_without_an_atomic_create_is_read_but_not_written(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "store", {"a": b"1"})
    storage = open_storage(f"local://{source}")
    assert (storage.read("a"), storage.paths("")) == (b"1", ["a"])
    writes: list[Callable[[], object]] = [
        lambda: storage.create("b", b"1"),
        lambda: storage.put("b", b"1"),
        lambda: storage.put_tree("b", source),
    ]
    for write in writes:
        with pytest.raises(NoAtomicCreateError, match="no create that refuses a taken name"):
            write()
    assert read_tree(source) == {"a": b"1"}


def test_a_server_that_overwrites_where_it_should_refuse_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = open_storage(f"memory://{uuid.uuid4().hex}")
    assert isinstance(storage, FsspecStorage)
    monkeypatch.setattr(storage, "_create", lambda path, data: True)
    with pytest.raises(NoAtomicCreateError, match="it overwrote"):
        storage.create("d/versions/v1.json", b"1")


def test_a_file_url_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}/store")
    assert (type(storage), storage.url) == (LocalStorage, str(tmp_path / "store"))
