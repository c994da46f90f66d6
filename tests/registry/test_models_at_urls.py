"""Models pushed to URLs: the same commands, where nothing can be renamed and the ledger alone decides."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlplatform.home import RemotePathError
from mlplatform.registry import ModelStore
from mlplatform.registry.errors import (
    CorruptCopyError,
    ModelChangedError,
    ModelNotFoundError,
    ModelWithdrawnError,
    PushTookTooLongError,
)
from mlplatform.storage import FsspecStorage, open_storage

Model = Callable[[str], Path]


def serving(store: ModelStore) -> list[int]:
    return [version.version for version in store.versions("items") if not version.is_withdrawn]


class UrlContract:
    """What a store of models at a URL promises."""

    @pytest.fixture
    def store(self) -> ModelStore:
        raise NotImplementedError

    def test_the_whole_life_of_a_model(self, store: ModelStore, model: Model) -> None:
        assert store.names() == []
        with pytest.raises(ModelNotFoundError, match="none was pushed yet"):
            store.versions("items")
        first = store.push(
            model("a"), "items", run="r1", dataset="clothes@v3", metrics={"top_1": 0.5}, why="y"
        )
        assert not store.push(model("a"), "items").is_new
        assert first.version.url == f"{store.url}/items/1"
        found = ModelStore(store.url).version("items", "1")
        assert found == first.version
        assert found.push is not None
        assert (found.push.run, found.push.dataset, found.push.metrics) == (
            "r1",
            "clothes@v3",
            {"top_1": 0.5},
        )
        assert (found.integrity(), found.is_signed) == ("intact", False)
        with pytest.raises(RemotePathError, match="not a folder of this machine"):
            print(found.path)
        store.promote("items", "1")
        store.push(model("b"), "items")
        store.promote("items", "2")
        assert ModelStore(store.url).rollback("items", why="bad").version == 1
        assert (store.names(), serving(store), store.labels("items")) == (["items"], [1], {"stable": 1})
        with pytest.raises(ModelWithdrawnError, match="as version 2"):
            store.push(model("b"), "items")
        assert store.promote("items", "2").labels == ("stable",)
        assert store.push(model("c"), "items").version.version == 3
        store.withdraw("items", 3)
        assert store.push(model("d"), "items", servers=["h:1"]).version.version == 4
        assert store.awaits_servers("items", 4)
        store.take_back("items", 4)
        assert serving(store) == [1, 2]
        assert store.push(model("d"), "items").version.version == 5
        store.drop_old("items", 1)
        assert serving(ModelStore(store.url)) == [2, 5]
        kinds = [event["event"] for event in store.ledger("items") if event["event"] != "claim"]
        assert kinds == [
            *("push", "promote", "push", "promote", "rollback", "promote"),
            *("push", "rollback", "push", "rollback", "push", "remove"),
        ]

    def test_a_version_lies_there_whole_as_tensorflow_serving_reads_it(
        self, store: ModelStore, model: Model
    ) -> None:
        store.push(model("a"), "items")
        assert open_storage(store.url).paths("items") == [
            "1/push.json",
            "1/saved_model.pb",
            "1/variables/variables.index",
        ]

    @pytest.mark.parametrize("name", ["aside", "withdrawn", "live", "index"])
    def test_no_name_that_a_model_may_have_is_taken_by_the_store(
        self, store: ModelStore, model: Model, name: str
    ) -> None:
        store.push(model("a"), name)
        store.push(model("b"), name)
        store.rollback(name, why="bad")
        assert [version.integrity() for version in ModelStore(store.url).versions(name)] == ["intact"] * 2
        assert ModelStore(store.url).names() == [name]
        assert list(store.all_versions()) == [name]

    def test_pushes_at_once_all_land(self, store: ModelStore, model: Model) -> None:
        sources = [model(content) for content in "abcd"]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda source: ModelStore(store.url).push(source, "items"), sources))
        versions = store.versions("items")
        assert [version.version for version in versions] == [1, 2, 3, 4]
        assert len({version.push.digest for version in versions if version.push}) == 4
        assert {version.integrity() for version in versions} == {"intact"}


class TestMemory(UrlContract):
    @pytest.fixture
    def store(self) -> ModelStore:
        return ModelStore(f"memory://{uuid.uuid4().hex}/models")

    def test_a_push_that_is_killed_at_any_request_is_there_or_not(
        self, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The upload, and each event, fails from one request on; the next push is as if nothing had been."""
        seen, left = set(), 0
        while True:
            store = ModelStore(f"memory://{uuid.uuid4().hex}/models")
            store.push(model("a"), "items")
            with monkeypatch.context() as patched:
                remaining = [left]

                def step(real: Any, *arguments: Any, remaining: list[int] = remaining, **named: Any) -> Any:
                    remaining[0] -= 1
                    if remaining[0] < 0:
                        raise KeyboardInterrupt
                    return real(*arguments, **named)

                for name in ("create", "put", "put_tree", "fetch_tree"):
                    real = getattr(FsspecStorage, name)
                    patched.setattr(FsspecStorage, name, lambda *a, real=real, **n: step(real, *a, **n))
                try:
                    ModelStore(store.url).push(model("b"), "items")
                    is_done = True
                except KeyboardInterrupt:
                    is_done = False
            numbers = serving(ModelStore(store.url))
            assert numbers in ([1], [1, 2])
            assert {version.integrity() for version in store.versions("items")} == {"intact"}
            seen.add(len(numbers))
            assert ModelStore(store.url).push(model("b"), "items").is_new == (numbers == [1])
            if is_done:
                break
            left += 1
        assert seen == {1, 2}

    def test_what_killed_uploads_left_is_removed_after_a_day(
        self, store: ModelStore, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(FsspecStorage, "fetch_tree", killed)
            with pytest.raises(KeyboardInterrupt):
                store.push(model("a"), "items")
        storage = open_storage(store.url)
        assert store.push(model("b"), "items").version.version == 2
        assert {path[0] for path in storage.paths("items")} == {"1", "2"}
        monkeypatch.setattr("mlplatform.registry.version_files._STALE_S", -1)
        assert store.push(model("c"), "items").version.version == 3
        assert store.push(model("d"), "items").version.version == 4
        assert {path[0] for path in storage.paths("items")} == {"2", "3", "4"}
        assert serving(store) == [2, 3, 4]

    def test_an_upload_that_was_cleared_away_meanwhile_is_not_pushed(
        self, store: ModelStore, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, other = FsspecStorage.fetch_tree, ModelStore(store.url)

        def slow(self: FsspecStorage, path: str, target: Path) -> None:
            real(self, path, target)
            monkeypatch.setattr(FsspecStorage, "fetch_tree", real)
            monkeypatch.setattr("mlplatform.registry.version_files._STALE_S", -1)
            other.push(model("b"), "items")

        monkeypatch.setattr(FsspecStorage, "fetch_tree", slow)
        with pytest.raises(PushTookTooLongError, match="Push the model again"):
            store.push(model("a"), "items")
        assert serving(store) == [2]

    def test_an_upload_that_arrives_damaged_is_not_pushed(
        self, store: ModelStore, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = FsspecStorage.put_tree

        def damaged(self: FsspecStorage, path: str, source: Path, last: Any = ()) -> None:
            real(self, path, source, last)
            self.put(f"{path}/saved_model.pb", b"other")

        monkeypatch.setattr(FsspecStorage, "put_tree", damaged)
        with pytest.raises(CorruptCopyError, match="Nothing was pushed"):
            store.push(model("a"), "items")
        assert store.ledger("items")[-1]["event"] == "claim"
        assert ModelStore(store.url).versions("items") == []

    def test_a_changed_version_is_seen_and_not_promoted(self, store: ModelStore, model: Model) -> None:
        for content in "abc":
            store.push(model(content), "items")
        open_storage(store.url).put("items/2/saved_model.pb", b"other")
        assert [version.integrity() for version in store.versions("items")] == ["intact", "changed", "intact"]
        for command in (lambda: store.promote("items", "2"), lambda: store.rollback("items")):
            with pytest.raises(ModelChangedError, match="items/2 is not what was pushed"):
                command()
        open_storage(store.url).delete_tree("items/2")
        with pytest.raises(ModelChangedError, match="its files are missing"):
            store.promote("items", "2")
        assert store.rollback("items", "1").version == 1

    def test_what_lies_there_without_an_event_is_not_a_version(self, store: ModelStore, model: Model) -> None:
        store.push(model("a"), "items")
        open_storage(store.url).put("items/7/saved_model.pb", b"x")
        open_storage(store.url).put("other/1/saved_model.pb", b"x")
        assert (store.names(), serving(store)) == (["items"], [1])

    def test_all_models_are_read_with_few_requests(
        self, store: ModelStore, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a", "b", "c", "d"):
            store.push(model(name), name)
        requests: list[str] = []
        for name in ("names", "paths", "read", "read_all"):
            real = getattr(FsspecStorage, name)

            def counting(*arguments: Any, real: Any = real, name: str = name) -> Any:
                requests.extend([name] * (len(arguments[1]) if name == "read_all" else 1))
                return real(*arguments)

            monkeypatch.setattr(FsspecStorage, name, counting)
        reading = ModelStore(store.url)
        assert {name: len(found) for name, found in reading.all_versions().items()} == dict.fromkeys(
            ("a", "b", "c", "d"), 1
        )
        requests.clear()
        reading.all_versions()
        assert len(requests) <= 2  # and so it is at each look of a server

    def test_roll_backs_at_once_withdraw_each_version_once(self, store: ModelStore, model: Model) -> None:
        for content in "abc":
            store.push(model(content), "items")
        barrier = threading.Barrier(3)

        def rollback(_: int) -> None:
            other = ModelStore(store.url)
            other.versions("items")
            barrier.wait(20)
            other.rollback("items", "2")

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(rollback, range(3)))
        assert serving(ModelStore(store.url)) == [1, 2]
        assert [event["event"] for event in store.ledger("items")].count("rollback") == 1


class TestS3(UrlContract):
    @pytest.fixture
    def store(self, s3: str) -> ModelStore:
        return ModelStore(f"{s3}/{uuid.uuid4().hex}/models")
