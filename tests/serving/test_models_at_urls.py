"""Models that were pushed to a URL: fetched aside, compared with their push, served while it is away."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.registry import ModelStore
from mlplatform.serving.version_source import ModelCache
from mlplatform.storage import FsspecStorage, open_storage
from mlplatform.storage.errors import StoreAccessError

TWO, THREE = "half_plus_two/00000123", "half_plus_three/1"  # half of 2, plus two or three: 3 or 4
X = np.array([[2.0]], np.float32)


def half(client: Any, **spec: Any) -> float:
    return float(client.predict("half", {"x": X}, **spec)["y"][0, 0])


def states(client: Any) -> dict[int, str]:
    return {s.version: s.state for s in client.status("half")}


@pytest.fixture
def root() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def store(root: str, models: Path) -> ModelStore:
    """Version 1 of `half`, half plus two, is `stable`."""
    store = ModelStore(f"{root}/models")
    store.push(models / TWO, "half")
    store.promote("half", "1")
    return store


@pytest.fixture
def quiet(serve: Any, tmp_path: Path) -> Callable[..., Any]:
    """Start servers that look only when they are asked to, with a cache of their own."""

    def quiet(**settings: Any) -> Any:
        cache = {"model_cache_dir": str(tmp_path / "cache"), "file_system_poll_wait_seconds": -1}
        return serve(**{**cache, **settings})

    return quiet


@pytest.mark.e2e
def test_a_root_on_an_s3_server(quiet: Any, client: Any, s3: str, models: Path) -> None:
    root = f"{s3}/{uuid.uuid4().hex}"
    store = ModelStore(f"{root}/models")
    store.push(models / TWO, "half")
    server = quiet(root=root)
    assert half(client(server)) == 3.0
    store.push(models / THREE, "half")
    store.promote("half", "1")
    server.manager.look_now()
    assert (half(client(server)), half(client(server), label="stable")) == (4.0, 3.0)


@pytest.mark.e2e
class TestServer:
    def test_pushes_promotions_and_roll_backs_are_followed(
        self, quiet: Any, client: Any, root: str, store: ModelStore, models: Path
    ) -> None:
        server = quiet(root=root)
        asking = client(server)
        assert (half(asking), half(asking, label="stable")) == (3.0, 3.0)
        store.push(models / THREE, "half")
        server.manager.look_now()
        assert (half(asking), half(asking, label="stable")) == (4.0, 3.0)
        store.promote("half", "2")
        server.manager.look_now()
        assert half(asking, label="stable") == 4.0
        store.rollback("half")
        server.manager.look_now()
        assert (half(asking), half(asking, label="stable")) == (3.0, 3.0)
        store.push(models / THREE, "other")
        server.manager.look_now()
        assert asking.predict("other", {"x": X})["y"][0, 0] == 4.0

    def test_one_model_by_the_url_of_its_folder(
        self, quiet: Any, client: Any, store: ModelStore, models: Path
    ) -> None:
        server = quiet(model_name="half", model_base_path=store.base_path("half"))
        store.push(models / THREE, "half")
        server.manager.look_now()
        assert half(client(server)) == 4.0

    def test_it_serves_on_while_the_url_is_away_and_reports_that_once(
        self,
        quiet: Any,
        client: Any,
        root: str,
        store: ModelStore,
        models: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: Any,
    ) -> None:
        server = quiet(root=root)
        asking = client(server)

        def away(self: FsspecStorage, *_: Any) -> Any:
            raise StoreAccessError(self.url, f"no route to host (try {uuid.uuid4()})")

        with monkeypatch.context() as patched:
            for name in ("names", "paths", "read", "read_all", "fetch_tree"):
                patched.setattr(FsspecStorage, name, away)
            for _ in range(3):
                server.manager.look_now()
            assert (half(asking), half(asking, label="stable")) == (3.0, 3.0)
        assert caplog.text.count("those that are served stay") == 1
        store.push(models / THREE, "half")
        with monkeypatch.context() as patched:
            patched.setattr(FsspecStorage, "fetch_tree", away)
            server.manager.look_now()
            assert states(asking) == {1: "AVAILABLE", 2: "END"}
            (status,) = asking.status("half", 2)
            assert "no route to host" in status.error
        server.manager._load_retry_interval_s = 0
        for failure in server.manager._models["half"].failed.values():
            object.__setattr__(failure, "next_try", 0.0)  # a retry is due
        server.manager.look_now()
        assert half(asking) == 4.0

    def test_what_was_changed_since_its_push_is_not_loaded(
        self, quiet: Any, client: Any, root: str, store: ModelStore, models: Path, tmp_path: Path
    ) -> None:
        server = quiet(root=root)
        store.push(models / THREE, "half")
        storage = open_storage(store.url)
        (data,) = (path for path in storage.paths("half/2") if "variables.data" in path)
        content = bytearray(storage.read(f"half/2/{data}"))
        content[-1] ^= 1
        storage.put(f"half/2/{data}", bytes(content))
        server.manager.look_now()
        (status,) = client(server).status("half", 2)
        assert (status.state, "half/2 is not what was pushed" in status.error) == ("END", True)
        assert half(client(server)) == 3.0
        assert not (tmp_path / "cache" / "half" / "2").exists()

    def test_a_copy_that_was_damaged_here_is_fetched_again(
        self, quiet: Any, client: Any, root: str, store: ModelStore, tmp_path: Path
    ) -> None:
        assert half(client(quiet(root=root))) == 3.0
        (copy := tmp_path / "cache" / "half" / "1" / "saved_model.pb").write_bytes(b"x")
        assert half(client(quiet(root=root))) == 3.0
        assert len(copy.read_bytes()) > 1

    def test_a_second_server_fetches_nothing(
        self, quiet: Any, client: Any, root: str, store: ModelStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quiet(root=root)

        def fetch(*_: Any) -> None:
            raise AssertionError

        monkeypatch.setattr(FsspecStorage, "fetch_tree", fetch)
        assert half(client(quiet(root=root))) == 3.0


class TestCache:
    @pytest.fixture
    def pushed(self, tmp_path: Path, root: str) -> Any:
        """Versions of one model, each of some 1,000 bytes."""
        store = ModelStore(f"{root}/models")
        folder = tmp_path / "exported"
        folder.mkdir()
        for number in range(4):
            (folder / "saved_model.pb").write_bytes(bytes([number]) * 700)
            store.push(folder, "m")
        return store.versions("m")

    def places(self, folder: Path) -> list[str]:
        return sorted(path.name for path in (folder / "m").iterdir())

    def test_those_used_last_stay(self, tmp_path: Path, pushed: Any) -> None:
        cache = ModelCache(tmp_path / "cache", 3000)
        for version in (*pushed[:2], pushed[0], pushed[2]):
            cache.fetch("m", version)
        assert self.places(tmp_path / "cache") == ["1", "3"] or self.places(tmp_path / "cache") == [
            "1",
            "2",
            "3",
        ]
        cache.fetch("m", pushed[3])
        assert "4" in self.places(tmp_path / "cache")
        assert sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*") if f.is_file()) <= 3000

    def test_one_larger_than_all_stays_until_the_next(self, tmp_path: Path, pushed: Any) -> None:
        cache = ModelCache(tmp_path / "cache", 10)
        for version in pushed:
            cache.fetch("m", version)
            assert self.places(tmp_path / "cache") == [str(version.version)]
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["m"]
        shutil.rmtree(tmp_path / "cache")
        cache.fetch("m", pushed[0])
        assert (cache.place("m", 1) / "saved_model.pb").read_bytes() == b"\0" * 700
