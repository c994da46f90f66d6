"""The index of a ledger and the questions it answers: few requests, nothing missed, whoever is killed."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.registry import ModelStore, events, index
from mlplatform.registry.errors import ModelVersionNotFoundError
from mlplatform.registry.event import Event
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.lineage import PushedModel, UsedDataset, made_from, origin
from mlplatform.registry.model_ledger import ModelLedger, ledger_of
from mlplatform.storage import FsspecStorage

QUICK = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
RUNS = ("runs/a", "runs/b", "runs/2026-01-01T00:00:00", "models/m")


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "ledger") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


def overview(ledger: Ledger, kind: str = "runs") -> dict[str, list[int]]:
    return {stream: [event.number for event in found] for stream, found in ledger.overview(kind).items()}


class TestIndex:
    @QUICK
    @given(
        steps=st.lists(
            st.tuples(st.integers(0, 2), st.sampled_from([*RUNS, "compact", "hour later"])), max_size=25
        )
    )
    def test_any_sequence_of_writers_and_compactions(self, url: str, steps: list[tuple[int, str]]) -> None:
        place = f"{url}/{uuid.uuid4().hex}"
        ledgers = [Ledger(place) for _ in range(3)]
        expected: dict[str, list[int]] = {}
        for writer, step in steps:
            if step == "compact":
                ledgers[writer].compact()
            elif step == "hour later":  # all marks, and what writers know of them, are old
                storage = ledgers[0].storage
                for mark in index.read_marks(storage):
                    storage.put(f"index/open/{mark.name.replace(f'~{int(mark.since)}~', '~7~')}", b"")
                    storage.delete(f"index/open/{mark.name}")
                for ledger in ledgers:
                    ledger._marked.clear()
            else:
                number = ledgers[writer].append(step, "happened", text=step).number
                expected.setdefault(step, []).append(number)
            for kind in ("runs", "models"):
                assert overview(Ledger(place), kind) == {
                    stream: numbers for stream, numbers in expected.items() if stream.startswith(kind)
                }

    def test_events_of_nodes_and_reports_are_left_out_and_others_come_as_they_are(self, url: str) -> None:
        ledger = Ledger(url)
        started = ledger.append("runs/a", events.RUN_STARTED, pipeline="p", text='é "quoted", "events": [\n')
        for kind in (events.NODE_STARTED, events.NODE_FINISHED, events.REPORT):
            ledger.append("runs/a", kind)
        ended = ledger.append("runs/a", events.RUN_FINISHED)
        for _ in range(2):
            assert Ledger(url).overview("runs") == {"runs/a": [started, ended]}
            ledger.compact()
        assert index.read_marks(ledger.storage) == []

    def test_only_streams_that_contain_a_text(self, url: str) -> None:
        ledger = Ledger(url)
        for run, dataset in (("a", "items@v1"), ("b", "ïtems@v2"), ("c", "items@v10")):
            events.dataset_used(ledger, run, dataset, digest="d")
        for _ in range(2):
            assert list(Ledger(url).overview("runs", "ïtems@v2")) == ["runs/b"]
            ledger.compact()

    def test_few_files_are_left_of_many_compactions(self, url: str) -> None:
        ledger = Ledger(url)
        for number in range(120):
            ledger.append(f"runs/{number}", "happened")
            ledger.compact()
        files = [name for name in ledger.storage.names("index") if name != "open"]
        assert len(files) <= 12  # those that were merged away last are there still
        assert len(overview(Ledger(url))) == 120

    def test_of_two_compactions_at_once_one_writes_and_nothing_is_missed(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = Ledger(url), Ledger(url)
        first.append("runs/a", "happened")
        second.append("runs/b", "happened")
        real = first.storage.create

        def create(path: str, data: bytes) -> bool:
            if path.startswith("index"):
                monkeypatch.setattr(first.storage, "create", real)
                second.append("runs/c", "happened")
                second.compact()
            return real(path, data)

        monkeypatch.setattr(first.storage, "create", create)
        first.compact()
        assert overview(Ledger(url)) == {"runs/a": [1], "runs/b": [1], "runs/c": [1]}

    def test_a_file_that_is_merged_away_while_it_is_read_is_no_error(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer, reader = Ledger(url), Ledger(url)
        for number in range(3):
            writer.append(f"runs/{number}", "happened")
            writer.compact()
        real = reader.storage.read_all

        def read_all(paths: Any) -> list[bytes]:
            monkeypatch.setattr(reader.storage, "read_all", real)
            for number in range(3, 9):
                writer.append(f"runs/{number}", "happened")
                writer.compact()
            return real(paths)

        monkeypatch.setattr(reader.storage, "read_all", read_all)
        assert len(overview(reader)) == 9

    def test_killed_compactions_lose_nothing(
        self, tmp_path: Path, killed_at: Callable[[int, Callable[[], object]], bool]
    ) -> None:
        step, was_killed = 0, True
        while was_killed:
            ledger = Ledger(tmp_path / str(step))
            for run in "ab":
                ledger.append(f"runs/{run}", "happened")
                ledger.compact()
                ledger.append(f"runs/{run}", "happened")
            was_killed = killed_at(step, ledger.compact)
            assert overview(Ledger(ledger.url)) == {"runs/a": [1, 2], "runs/b": [1, 2]}
            Ledger(ledger.url).compact()
            assert overview(Ledger(ledger.url)) == {"runs/a": [1, 2], "runs/b": [1, 2]}
            step += 1

    @pytest.mark.parametrize("content", [b"", b"x", b'{"stream": "runs/z", "events": [[}\n', b"\xff\n\n"])
    def test_files_that_are_not_ours_are_skipped(self, url: str, content: bytes) -> None:
        ledger = Ledger(url)
        ledger.append("runs/a", "happened")
        ledger.compact()
        ledger.storage.put("index/00000002-00000002.jsonl", content)
        for name in ("notes", "1-1.jsonl", "open/x", "open/runs%2Fb~x~y", "open/a~1~b"):
            ledger.storage.put(f"index/{name}", b"{}")
        assert overview(Ledger(url)) == {"runs/a": [1]}
        ledger.append("runs/a", "happened")
        ledger.compact()
        assert overview(Ledger(url)) == {"runs/a": [1, 2]}

    @pytest.mark.parametrize("name", [".aside", "aside"])  # the second one is of earlier releases
    def test_what_killed_writers_left_aside_is_removed_after_a_day(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        ledger = Ledger(tmp_path)
        ledger.append("runs/a", "happened")
        left = tmp_path / "runs" / name / "x"
        left.parent.mkdir(exist_ok=True)
        left.write_text("half")
        ledger.compact()
        assert left.exists()
        monkeypatch.setattr("mlplatform.registry.ledger._STALE_S", -1)
        ledger.compact()
        assert not left.exists()

    def test_a_stream_that_cannot_be_read_keeps_no_other_from_the_index(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path)
        for run in "ab":
            ledger.append(f"runs/{run}", "happened")
        (tmp_path / "runs" / "b").rename(tmp_path / "moved")
        (tmp_path / "runs" / "b").touch()
        ledger.compact()
        assert [mark.stream for mark in index.read_marks(ledger.storage)] == ["runs/b"]
        (tmp_path / "runs" / "b").unlink()
        (tmp_path / "moved").rename(tmp_path / "runs" / "b")
        assert overview(Ledger(tmp_path)) == {"runs/a": [1], "runs/b": [1]}

    def test_reading_again_and_again_writes_once(self, url: str) -> None:
        for number in range(6):
            Ledger(url).append(f"runs/{number}", "happened")
        for _ in range(3):
            assert len(overview(Ledger(url))) == 6
        assert [name for name in Ledger(url).storage.names("index") if name.endswith(".jsonl")] == [
            "00000001-00000001.jsonl"
        ]

    def test_a_ledger_that_may_only_be_read_is_read(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(6):
            Ledger(url).append(f"runs/{number}", "happened")
        reader = Ledger(url)

        def refuse(*_: Any) -> Any:
            raise PermissionError("read-only")

        for name in ("create", "put", "delete"):
            monkeypatch.setattr(reader.storage, name, refuse)
        assert len(overview(reader)) == 6


def one_run(run: str, dataset: str) -> list[Event]:
    """What a run of a pipeline leaves in its stream, as far as the index holds it."""
    stream = events.run_stream(run)
    libraries = {"tensorflow": "2.16.2", "tfx": "1.16.0", "apache-beam": "2.70.0"}
    facts: tuple[dict[str, object], ...] = (
        {"pipeline": "item_category", "code": {"commit": "c" * 40, "libraries": libraries}},
        {"dataset": dataset, "digest": "d" * 64},
        {"state": "done"},
    )
    kinds = (events.RUN_STARTED, events.DATASET_USED, events.RUN_FINISHED)
    return [
        Event(stream, n, kind, "2026-01-01T00:00:00+00:00", "me", run, fact, f"{run}-{n}")
        for n, (kind, fact) in enumerate(zip(kinds, facts, strict=True), start=1)
    ]


def ten_thousand_runs(ledger: Ledger) -> None:
    """An index of 10,000 runs, in files as compactions leave them, and some runs since."""
    runs = [f"2026{number:08}" for number in range(10_000)]
    start = 0
    for part in (8000, 1600, 320, 64, 15, 1):
        some = enumerate(runs[start : start + part])
        held = {f"runs/{run}": one_run(run, f"items@v{number % 500}") for number, run in some}
        path = f"index/{start + 1:08}-{start + part:08}.jsonl"
        lines = [
            json.dumps({"stream": stream, "events": [[event.number, event.as_json()] for event in found]})
            for stream, found in held.items()
        ]
        ledger.storage.put(path, "\n".join(lines).encode() + b"\n")
        start += part
    for number in range(3):
        events.dataset_used(ledger, f"new-{number}", "items@v7", digest="d" * 64)


class TestRequests:
    def test_reading_10_000_runs_takes_at_most_20(self, monkeypatch: pytest.MonkeyPatch) -> None:
        url = f"memory://{uuid.uuid4().hex}"
        ten_thousand_runs(Ledger(f"{url}/ledger"))
        requests = count_requests(monkeypatch)
        found = Ledger(f"{url}/ledger").overview("runs")
        assert len(found) == 10_003
        assert len(requests) <= 20
        requests.clear()
        made = made_from(ModelLedger(f"{url}/models"), "items@v7")
        assert len(made.runs) == 16 + 4 + 1 + 1 + 1 + 3
        assert len(requests) <= 20

    def test_listing_many_models_takes_at_most_20(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        store = ModelStore(f"memory://{uuid.uuid4().hex}/models")
        ledger = Ledger(ledger_of(store.url))
        for number in range(40):
            facts = {"version": 1, "digest": "d", "at": "2026", "by": "me"}
            ledger.append(f"models/m{number}", events.MODEL_PUSHED, **facts)
        ledger.compact()
        for label in ("stable", "canary"):
            ledger.append("models/m7", events.MODEL_PROMOTED, version=1, label=label)
        requests = count_requests(monkeypatch)
        found = ModelStore(store.url).all_versions()
        assert (len(found), found["m7"][0].labels) == (40, ("canary", "stable"))
        assert len(requests) <= 20

    def test_a_long_run_and_a_model_take_few(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        root = f"memory://{uuid.uuid4().hex}"
        store = pushed_by_a_run(root, tmp_path, nodes=40)
        requests = count_requests(monkeypatch)
        assert len(origin(ModelLedger(store.url), "items", 1).nodes) == 40
        assert len(requests) <= 20


def count_requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    requests: list[str] = []
    for name in ("names", "paths", "read", "read_all", "size", "put", "create", "delete"):
        real = getattr(FsspecStorage, name)

        def counting(*arguments: Any, real: Any = real, name: str = name, **named: Any) -> Any:
            requests.extend([name] * (len(arguments[1]) if name == "read_all" else 1))
            return real(*arguments, **named)

        monkeypatch.setattr(FsspecStorage, name, counting)
    return requests


def pushed_by_a_run(root: str, tmp_path: Path, nodes: int = 2) -> ModelStore:
    """Version 1 of `items`, pushed by run `r1`, which used clothes@v3."""
    store = ModelStore(f"{root}/models")
    ledger = Ledger(ledger_of(store.url))
    ledger.append("runs/r1", events.RUN_STARTED, pipeline="item_category", code={"commit": "abc"})
    for number in range(nodes):
        events.node_finished(ledger, "r1", f"node{number}", state="done", seconds=1.5)
    events.dataset_used(ledger, "r1", "clothes@v3", digest="d3", node="node0")
    (tmp_path / "m").mkdir(exist_ok=True)
    (tmp_path / "m" / "saved_model.pb").write_text("a")
    store.push(tmp_path / "m", "items", run="r1", dataset="clothes@v3")
    return store


class TestLineage:
    @pytest.fixture(params=["folder", "memory"])
    def root(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return str(tmp_path / "root") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"

    def test_which_records_code_and_run_made_a_model(self, root: str, tmp_path: Path) -> None:
        store = pushed_by_a_run(root, tmp_path)
        made = origin(ModelLedger(store.url), "items", 1)
        push = store.version("items", "1").push
        assert push is not None
        assert (made.run, made.pipeline, made.code) == ("r1", "item_category", {"commit": "abc"})
        assert (made.digest, made.pushed_by) == (push.digest, push.pushed_by)
        assert made.datasets == (UsedDataset(dataset="clothes@v3", digest="d3"),)
        assert [event.get("node") for event in made.nodes] == ["node0", "node1"]
        with pytest.raises(ModelVersionNotFoundError, match="it has: 1"):
            origin(ModelLedger(store.url), "items", 2)

    def test_what_was_made_from_a_version_of_a_dataset(self, root: str, tmp_path: Path) -> None:
        store = pushed_by_a_run(root, tmp_path)
        for content, dataset in (("b", "clothes@v3"), ("c", "clothes@v30")):
            (tmp_path / "m" / "saved_model.pb").write_text(content)
            store.push(tmp_path / "m", "other", dataset=dataset)
        store.rollback("other")
        store.promote("other", "2")
        store.withdraw("other", 1)
        for _ in range(2):
            made = made_from(ModelLedger(store.url), "clothes@v3")
            assert made.runs == ("r1",)
            assert [(m.model, m.version, m.run, m.is_withdrawn) for m in made.models] == [
                ("items", 1, "r1", False),
                ("other", 1, "", True),
            ]
            Ledger(ledger_of(store.url)).compact()
        assert made_from(ModelLedger(store.url), "clothes@v4").models == ()

    def test_of_a_root_of_release_0_1(self, tmp_path: Path) -> None:
        folder = tmp_path / "models" / "items"
        folder.mkdir(parents=True)
        push = {"event": "push", "version": 1, "digest": "d", "run": "r", "dataset": "c@v1", "at": "2025"}
        (folder / "ledger.jsonl").write_text(json.dumps(push) + "\n")
        ledger = ModelLedger(str(tmp_path / "models"))
        made = origin(ledger, "items", 1)
        assert (made.run, made.datasets) == ("r", (UsedDataset(dataset="c@v1"),))
        assert made_from(ledger, "c@v1").models == (
            PushedModel(model="items", version=1, run="r", pushed_at="2025"),
        )
