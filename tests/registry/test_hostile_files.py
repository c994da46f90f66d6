"""Ledgers, push records and model folders that others wrote, by accident or on purpose."""

import json
import logging
import os
import random
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mlplatform.errors import MlplatformError
from mlplatform.registry import ModelStore
from mlplatform.registry.errors import LedgerAccessError, UnpushableFileError
from mlplatform.registry.model_events import KINDS as KIND_OF
from mlplatform.registry.model_ledger import ledger_of

Push = Callable[..., int]
Model = Callable[[str], Path]

HOSTILE_VALUES = (
    *(
        None,
        True,
        False,
        0,
        1,
        2,
        -1,
        1.5,
        1e400,
        float("nan"),
        10**30,
        1 << 63,
        "",
        "2",
        "²",
        "\x00",
        "a" * 5000,
    ),
    *([], [1], [None], [[2]], {}, {"stable": 2}, {"stable": "2"}, {"": 1}, ["x"] * 100),
)
KINDS: tuple[Any, ...] = ("push", "confirm", "promote", "rollback", "remove", "unknown", "", None, 7)
FACTS = (
    "event",
    "version",
    "versions",
    "label",
    "labels",
    "digest",
    "at",
    "by",
    "why",
    "servers",
    "unconfirmed",
)


def hostile_line(chance: random.Random) -> bytes:
    """One line: a damaged event, an event of wrong types, or no event at all."""
    kind = chance.randrange(6)
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 200)).replace(b"\n", b" ")
    if kind == 1:
        return b"[" * chance.choice((5, 20_000)) + b"]" * 5
    if kind == 2:
        return (
            b'{"event": "promote", "version": ' + b"9" * chance.choice((20, 6000)) + b', "label": "stable"}'
        )
    event = {name: chance.choice(HOSTILE_VALUES) for name in FACTS if chance.random() < 0.5}
    event["event"] = chance.choice(KINDS)
    if kind == 3:
        event |= {"version": chance.choice((1, 2, 3, 99)), "label": chance.choice(("stable", "x", 3, None))}
    line = json.dumps(event).encode()
    return line[: chance.randrange(1, len(line))] if kind == 4 else line


def everything(store: ModelStore, model: Model) -> None:
    """Use every command on a model; each may refuse, none may crash, and what it says must hold."""

    def check() -> None:
        serving = {v.version for v in store.versions("items") if not v.is_withdrawn}
        assert set(store.labels("items").values()) <= serving

    check()
    for command in (
        lambda: store.promote("items", "1", "canary"),
        lambda: store.rollback("items", why="x"),
        lambda: store.promote("items", "2"),
        lambda: store.withdraw("items", 1),
        lambda: store.drop_old("items", 2),
        lambda: store.take_back("items", 2),
        lambda: store.push(model("new"), "items", allows_withdrawn=True),
    ):
        with suppress(MlplatformError):
            command()
        check()
    assert store.version("items", "latest").push is not None
    assert store.promote("items", "latest", "checked").labels


def as_release_0_1_left_it(store: ModelStore) -> Path:
    file = store.models_dir / "items" / "ledger.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in store.ledger("items")))
    shutil.rmtree(ledger_of(store.url))
    return file


def check_ledger(store: ModelStore, model: Model, seed: int) -> None:
    """Lines among those of a ledger of release 0.1."""
    chance = random.Random(seed)
    for content in "ab":
        store.push(model(content), "items")
    store.promote("items", "2")
    ledger = as_release_0_1_left_it(store)
    lines = ledger.read_bytes().splitlines()
    for _ in range(chance.randrange(1, 8)):
        lines.insert(chance.randrange(len(lines) + 1), hostile_line(chance))
    if chance.random() < 0.3:
        del lines[chance.randrange(len(lines))]
    ledger.write_bytes(b"\n".join(lines) + (b"\n" if chance.random() < 0.7 else b""))
    everything(store, model)


def check_stream(store: ModelStore, model: Model, seed: int) -> None:
    """Files among those of a stream."""
    chance = random.Random(seed)
    for content in "ab":
        store.push(model(content), "items")
    store.promote("items", "2")
    stream = Path(ledger_of(store.url)) / "models" / "items"
    for number in range(4, 4 + chance.randrange(1, 8)):
        content = hostile_line(chance)
        for name, kind in KIND_OF.items():
            content = content.replace(f'"event": "{name}"'.encode(), f'"kind": "{kind}"'.encode())
        (stream / f"{number:08}.json").write_bytes(content)
    if chance.random() < 0.3:
        (stream / f"{chance.randrange(1, 4):08}.json").unlink()
    everything(ModelStore(store.url), model)


@pytest.mark.parametrize("block", range(2))
def test_any_ledger(tmp_path: Path, model: Model, block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):  # 40 ledgers, some 180 hostile lines
        check_ledger(ModelStore(tmp_path / str(seed)), model, seed)


@pytest.mark.parametrize("block", range(2))
def test_any_stream(tmp_path: Path, model: Model, block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        check_stream(ModelStore(tmp_path / str(seed)), model, seed)


@pytest.mark.soak
def test_many_ledgers(tmp_path: Path, model: Model) -> None:
    for seed in range(1000, 3000):
        check_ledger(ModelStore(tmp_path / str(seed)), model, seed)


def test_any_record_of_a_push(store: ModelStore, model: Model) -> None:
    for content in "ab":
        store.push(model(content), "items")
    file = store.models_dir / "items" / "2" / "push.json"
    whole = json.loads(file.read_text())
    for name in whole:
        for value in HOSTILE_VALUES:
            file.write_text(json.dumps({**whole, name: value}))
            for version in store.versions("items"):
                assert version.integrity() in ("intact", "changed", "unrecorded")
    for content in (b"", b"\xff", b"[" * 50_000, b"null", b"9" * 6000, b'{"digest": 1}'):
        file.write_bytes(content)
        assert store.version("items", "2").push is None


def test_a_damaged_event_is_reported_once_and_all_else_works(
    store: ModelStore, push: Push, stream: Path, caplog: pytest.LogCaptureFixture
) -> None:
    push("a", "b")
    store.promote("items", "1")
    (stream / "00000004.json").write_bytes(b'{"kind": "model.promoted", "version"')
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert store.labels("items") == {"stable": 1}
        assert store.promote("items", "2").labels == ("stable",)
        assert store.rollback("items").labels == ("stable",)
        assert push("c") == 3
    assert caplog.text.count("00000004.json is damaged and skipped") == 1


@pytest.mark.parametrize(
    ("release", "kind"),
    [
        ("0.1", "folder"),
        ("0.1", "fifo"),
        ("0.1", "link to itself"),
        ("now", "fifo"),
        ("now", "link to itself"),
    ],
)
def test_a_ledger_that_is_not_one_is_one_clear_error(
    store: ModelStore, push: Push, stream: Path, old_ledger: Callable[[], Path], release: str, kind: str
) -> None:
    push("a", "b")
    if release == "0.1":
        (ledger := old_ledger()).unlink()
    else:
        shutil.rmtree(stream)
        ledger = stream
    {
        "folder": ledger.mkdir,
        "fifo": lambda: os.mkfifo(ledger),
        "link to itself": lambda: ledger.symlink_to(ledger),
    }[kind]()
    for command in (
        lambda: store.versions("items"),
        lambda: store.rollback("items"),
        lambda: store.promote("items", "1"),
        lambda: push("c"),
    ):
        with pytest.raises(LedgerAccessError, match=rf"{ledger.name} cannot be opened"):
            command()


class TestFoldersToPush:
    def refused(self, store: ModelStore, folder: Path, problem: str) -> None:
        with pytest.raises(UnpushableFileError, match=problem):
            store.push(folder, "items")
        assert store.versions("items") == []

    def test_a_fifo(self, store: ModelStore, model: Model) -> None:
        os.mkfifo(model("a") / "variables" / "pipe")
        self.refused(store, model("a"), r"variables/pipe in the model's folder .* is a FIFO")

    def test_a_socket(self, store: ModelStore, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(model("a"))  # names of sockets are short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("s")
            self.refused(store, model("a"), "is a socket")

    def test_a_device(self, store: ModelStore, model: Model) -> None:
        (model("a") / "zeros").symlink_to("/dev/zero")
        self.refused(store, model("a"), "zeros in the model's folder .* is a link to /dev/zero, outside")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
    def test_a_device_of_its_own(self, store: ModelStore, model: Model) -> None:
        try:
            os.mknod(model("a") / "zeros", 0o20600, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("this container makes no devices")
        self.refused(store, model("a"), "zeros in the model's folder .* is a device")

    @pytest.mark.parametrize("target", ["..", "../..", "/etc/passwd", "variables/../../b/saved_model.pb"])
    def test_a_link_out_of_it(self, store: ModelStore, model: Model, target: str) -> None:
        model("b")
        (model("a") / "variables" / "way out").symlink_to(
            target if not target.startswith("variables") else model("a") / target
        )
        if target == "..":
            self.refused(store, model("a"), "is a link to a folder that holds it")
        else:
            self.refused(store, model("a"), "variables/way out in .* outside of the folder")

    def test_a_link_to_itself(self, store: ModelStore, model: Model) -> None:
        (model("a") / "round").symlink_to("round")
        self.refused(store, model("a"), "round in .* is a link that leads back to itself")

    def test_a_link_to_nothing(self, store: ModelStore, model: Model) -> None:
        (model("a") / "gone").symlink_to("nowhere")
        self.refused(store, model("a"), "gone in .* is a link to nowhere, which does not exist")

    def test_links_within_it_are_copied_as_what_they_name(self, store: ModelStore, model: Model) -> None:
        folder = model("a")
        (folder / "again").symlink_to("variables")
        (folder / "graph").symlink_to("saved_model.pb")
        (folder / "assets").mkdir()
        version = store.push(folder, "items").version
        assert version.integrity() == "intact"
        assert (version.path / "again" / "variables.index").read_text() == "a"
        assert not any(path.is_symlink() for path in version.path.rglob("*"))
        assert (version.path / "assets").is_dir()
        assert not store.push(folder, "items").is_new


class TestChangedVersions:
    @pytest.mark.parametrize(
        "change",
        [
            lambda folder: (folder / "saved_model.pb").write_text("other"),
            lambda folder: (folder / "variables" / "variables.index").unlink(),
            lambda folder: (folder / "extra").write_text("x"),
            lambda folder: (folder / "link").symlink_to("/etc/passwd"),
            lambda folder: (folder / "push.json").write_text(
                (folder / "push.json").read_text().replace('"digest": "', '"digest": "0')
            ),
        ],
    )
    def test_one_is_seen_and_not_promoted(
        self, store: ModelStore, push: Push, change: Callable[[Path], object]
    ) -> None:
        push("a", "b", "c")
        assert [v.integrity() for v in store.versions("items")] == ["intact"] * 3
        change(store.models_dir / "items" / "2")
        assert [v.integrity() for v in store.versions("items")] == ["intact", "changed", "intact"]
        for command in (lambda: store.promote("items", "2"), lambda: store.rollback("items")):
            with pytest.raises(MlplatformError, match="is not what was pushed"):
                command()
        assert store.rollback("items", "1").version == 1

    def test_its_model_can_be_pushed_again(self, store: ModelStore, push: Push) -> None:
        push("a", "b")
        (store.models_dir / "items" / "2" / "saved_model.pb").write_text("other")
        assert push("b") == 3

    def test_without_its_push_record_the_ledger_decides(self, store: ModelStore, push: Push) -> None:
        push("a")
        folder = store.models_dir / "items" / "1"
        (folder / "push.json").unlink()
        assert store.version("items", "1").integrity() == "intact"
        (folder / "saved_model.pb").write_text("other")
        assert store.version("items", "1").integrity() == "changed"

    def test_one_that_something_else_put_there_is_not_checked(self, store: ModelStore, push: Push) -> None:
        push("a")
        (store.models_dir / "items" / "2").mkdir()
        assert store.version("items", "2").integrity() == "unrecorded"
