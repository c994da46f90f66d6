"""A root with a history: two dataset versions with photos, runs that did well and one that failed, pushes."""

import asyncio
import io
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.format.tfrecord import frame
from mlplatform.home import Home
from mlplatform.orchestration.local.records import (
    ArtifactRecord,
    NodeDetails,
    NodeRecord,
    RunFolder,
    RunRecord,
)
from mlplatform.orchestration.local.run_events import RunEvents
from mlplatform.registry import ModelStore, events, tree_digest
from mlplatform.registry.approvals import Approvals
from mlplatform.registry.ledger import Ledger
from mlplatform.reports.kept import keep_report
from mlplatform.ui.access import access_for
from mlplatform.ui.server import Pages, UiServer, listen
from mlplatform.ui.site import Site

CLASSES = ("hats", "shirts", "shoes")
FIRST, FAILED, SECOND = (f"2026010{day}T010203.000-aaa{day}" for day in (1, 2, 3))


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    size, length = len(data), b""
    while size >= 0x80:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def example(**features: bytes) -> bytes:
    """A serialized tf.Example with one byte string per feature, written without TensorFlow."""
    entries = b"".join(
        field(1, field(1, name.replace("__", "/").encode()) + field(2, field(1, field(1, value))))
        for name, value in features.items()
    )
    return field(1, entries)


def photo(seed: int, size: int = 48) -> bytes:
    """A small JPEG."""
    out, shades = io.BytesIO(), random.Random(seed)
    Image.new("RGB", (size, size), tuple(shades.randrange(256) for _ in range(3))).save(out, "JPEG")
    return out.getvalue()


def write_examples(folder: Path, splits: dict[str, list[bytes]]) -> Path:
    """Write Examples as TFX does."""
    for split, records in splits.items():
        shard = folder / f"Split-{split}" / "data_tfrecord-00000-of-00001"
        shard.parent.mkdir(parents=True)
        shard.write_bytes(b"".join(map(frame, records)))
    return folder


def item(number: int, label: str = "") -> bytes:
    """A record of an item with a photo."""
    label = label or CLASSES[number % len(CLASSES)]
    return example(item_id=f"item-{number}".encode(), label=label.encode(), image__encoded=photo(number))


def write_run(
    home: Home,
    run: str,
    *,
    state: str = "done",
    dataset: str = "",
    pipeline: str = "item_category",
    error: str = "",
    reused: str = "",
    arguments: dict | None = None,
) -> RunFolder:
    """Write a run as the local runner does: one node that trains, and one before it."""
    folder = RunFolder(home.runs / run)
    folder.create()
    made = ArtifactRecord(7, "Examples", f"/artifacts/{run}/examples", "d1")
    at = f"{run[:4]}-{run[4:6]}-{run[6:8]}T01:02:0"
    why = error or "input examples has other content"
    given, cost = {"examples": [made]}, {"peak_memory_mb": 900.0, "cpu_s": 20.0}
    first = NodeRecord("ExampleGen", "FileBasedExampleGen", "cached" if reused else "done", "first run")
    first.started_at, first.seconds, first.outputs, first.made_in = f"{at}3+00:00", 1.5, given, reused
    second = NodeRecord("Trainer", "ModelTrainer", "failed" if error else "done", why, ["ExampleGen"], **cost)
    second.started_at, second.seconds, second.inputs, second.error = f"{at}5+00:00", 12.5, given, error
    nodes = [first, second]
    record = RunRecord(
        run,
        pipeline,
        started_at=f"{at}0+00:00",
        wall_s=15.0,
        reference=str(home.machine / "pipeline.py"),
        arguments=arguments or {"data": "photos"},
        versions={"python": "3.10.1", "tfx": "1.16.0"},
        nodes=nodes,
    )
    for node in nodes:
        folder.log(node.id).write_text(f"{node.id} begins\nstep 1 of 2\nstep 2 of 2\n{error}\n")
        changes = [{"part": "input examples", "before": "d0", "now": "d1"}]
        folder.write_details(
            NodeDetails(
                node.id,
                "changed",
                node.why,
                "key",
                FIRST,
                changes,
                {"code train.py": "c1", "library numpy": "2"},
            )
        )
    written = RunEvents(home, folder)
    written.run_started(record)
    for node in nodes:
        written.node_finished(node)
    if dataset:
        digest = DatasetStore(home.datasets).show(*dataset.split("@")).digest
        events.dataset_used(
            Ledger(home.ledger),
            run,
            dataset,
            digest=digest,
            node="ExampleGen",
            splits={"train": 24, "eval": 6},
        )
    record.state = state
    folder.write(record)
    written.run_finished(record)
    assert written.close() == ""
    folder.release()
    return folder


def verdict(home: Home, run: str, node: str, *reasons: str) -> str:
    """Let a gate decide in a run, and keep its page."""

    def write(folder: Path) -> None:
        (folder / "verdict.json").write_text(json.dumps({"accepted": not reasons}))
        (folder / "report.html").write_text(f"<!doctype html><title>r</title><h1>Report of {node}</h1>")

    place = keep_report(home.reports, node, write, run=run)
    Ledger(home.ledger).append(
        events.run_stream(run),
        events.VERDICT,
        node=node,
        gate=node,
        is_accepted=not reasons,
        reasons=list(reasons),
        path=f"{place}/report.html",
    )
    return place


def write_history(root: Path) -> Home:
    """Make a root in which something happened."""
    home = Home.at(root)
    store = DatasetStore(home.datasets)
    key = {"key": ["item_id"], "label": "label"}
    first = {"train": [item(n) for n in range(24)], "eval": [item(n) for n in range(24, 30)]}
    store.commit("items", write_examples(root.parent / "one", first), message="the first photos", **key)
    second = {
        "train": [item(n, "shoes" if n == 3 else "") for n in range(2, 40) if not 24 <= n < 30],
        "eval": first["eval"],
    }
    store.commit("items", write_examples(root.parent / "two", second), message="ten more", **key)
    models = ModelStore(home.models)
    write_run(home, FIRST, dataset="items@v1")
    verdict(home, FIRST, "ModelValidator")
    push(models, root.parent / "m1", run=FIRST, dataset="items@v1", metrics={"top_1": 0.81, "top_5": 0.97})
    models.promote("item_category", "1", why="the first one")
    write_run(
        home,
        FAILED,
        state="failed",
        dataset="items@v2",
        error="ValueError: no photo could be read\n  at train.py:12 load",
    )
    verdict(home, FAILED, "DataValidator", "3 records of train have no label")
    write_run(home, SECOND, dataset="items@v2", reused=FIRST, arguments={"data": "photos", "epochs": 3})
    verdict(home, SECOND, "ModelValidator")
    push(models, root.parent / "m2", run=SECOND, dataset="items@v2", metrics={"top_1": 0.84, "top_5": 0.98})
    approvals, now = Approvals(Ledger(home.ledger)), datetime.now(timezone.utc)
    asked, _ = approvals.ask(
        "item_category", tree_digest(root.parent / "m2"), run=SECOND, now=now, time_limit_s=60.0
    )
    approvals.answer(asked, approver="ann", why="fewer wrong shoes", is_given=True)
    approvals.ask(
        "item_category",
        "f" * 64,
        run=FAILED,
        dataset="items@v2",
        approvers=["bob"],
        now=now,
        time_limit_s=864000.0,
    )
    return home


def push(models: ModelStore, folder: Path, **facts: object) -> int:
    """Push a folder that looks like a SavedModel; the store never reads inside."""
    folder.mkdir()
    (folder / "saved_model.pb").write_text(folder.name)
    return models.push(folder, "item_category", why="better", **facts).version.version  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A root with a history; not to be written to."""
    return write_history(tmp_path_factory.mktemp("ui") / "root")


@pytest.fixture(scope="session")
def pages(home: Home) -> Iterator[Pages]:
    site = Site(home)
    yield Pages(site)
    site.index.close()


@pytest.fixture(scope="session")
def get(pages: Pages) -> Callable[[str], SimpleNamespace]:
    """Ask for a page: its status, its text, and its JSON twin."""

    def get(target: str) -> SimpleNamespace:
        answer = pages.answer(target)
        twin = pages.answer(target + ("&" if "?" in target else "?") + "format=json")
        data = json.loads(twin.body) if twin.type == "application/json" else None
        return SimpleNamespace(status=answer.status, text=answer.body.decode(), type=answer.type, data=data)

    return get


@pytest.fixture(scope="session")
def address(pages: Pages) -> Iterator[str]:
    """A dashboard at a port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server, loop = UiServer(pages, access_for("127.0.0.1", port)), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(listen(server, listener), loop).result(30)
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()
    server.close()


@pytest.fixture
def make_example() -> Callable[..., bytes]:
    """Make a serialized tf.Example with one byte string per feature."""
    return example


@pytest.fixture
def own_home(tmp_path: Path) -> Home:
    """A root with a history, to be written to."""
    return write_history(tmp_path / "root")
