"""The store of pushed models: atomic pushes, labels, rollback and its undo, the ledger."""

import getpass
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from mlplatform.registry import ModelStore, tree_digest
from mlplatform.registry.errors import (
    InvalidLabelError,
    InvalidModelNameError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    NotASavedModelError,
    NothingToRollBackToError,
)
from mlplatform.registry.model_ledger import ledger_of


def saved_model(folder: Path, content: str) -> Path:
    """A folder that looks like a SavedModel; the store never reads inside."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text(content)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_pushes_are_numbered_from_one_and_carry_where_they_came_from(
    store: ModelStore, tmp_path: Path
) -> None:
    store.push(saved_model(tmp_path / "a", "a"), "items", run="run-1", dataset="items@v1", why="first")
    second = store.push(saved_model(tmp_path / "b", "b"), "items")
    assert [v.version for v in store.versions("items")] == [1, 2]
    assert second.is_new
    first = store.version("items", "1")
    assert first.push is not None
    assert (first.push.run, first.push.dataset, first.push.why) == ("run-1", "items@v1", "first")
    assert (first.path / "variables" / "variables.index").read_text() == "a"


def test_the_same_model_again_makes_no_version(store: ModelStore, tmp_path: Path) -> None:
    model = saved_model(tmp_path / "a", "a")
    store.push(model, "items")
    again = store.push(model, "items")
    assert not again.is_new
    assert [v.version for v in store.versions("items")] == [1]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"digest": "a"}', None])
def test_a_version_whose_push_cannot_be_read_is_one_that_something_else_put_there(
    store: ModelStore, tmp_path: Path, content: bytes | None
) -> None:
    model = saved_model(tmp_path / "a", "a")
    file = store.push(model, "items").version.path / "push.json"
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    assert [(v.version, v.push) for v in store.versions("items")] == [(1, None)]
    assert store.push(model, "items").version.version == 2


def test_what_a_later_release_says_of_a_push_is_passed_over(store: ModelStore, tmp_path: Path) -> None:
    pushed = store.push(saved_model(tmp_path / "a", "a"), "items", why="first").version
    file = pushed.path / "push.json"
    file.write_text(file.read_text().replace("{", '{"ticket": 7,', 1))
    assert store.versions("items") == [pushed]


@pytest.mark.parametrize("name", ["²", "٣"])
def test_a_folder_named_by_digits_that_no_server_reads_is_no_version(
    store: ModelStore, tmp_path: Path, name: str
) -> None:
    store.push(saved_model(tmp_path / "a", "a"), "items")
    (store.models_dir / "items" / name).mkdir()
    assert [v.version for v in store.versions("items")] == [1]


def test_a_copy_equals_its_source_and_push_json_is_no_part_of_the_digest(
    store: ModelStore, tmp_path: Path
) -> None:
    model = saved_model(tmp_path / "a", "a")
    assert tree_digest(store.push(model, "items").version.path) == tree_digest(model)


def test_a_failed_copy_leaves_nothing(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved_model(tmp_path / "a", "a")
    (model / "unreadable").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Exception, match=r"nowhere|unreadable"):
        store.push(model, "items")
    assert store.versions("items") == []
    assert [p.name for p in (store.models_dir / "items").iterdir()] == []


def test_rollback_hides_the_newest_and_promote_undoes_it(store: ModelStore, tmp_path: Path) -> None:
    for name in "abc":
        store.push(saved_model(tmp_path / name, name), "items")
    assert store.rollback("items", why="bad on shoes").version == 2
    assert [v.version for v in store.versions("items") if not v.is_withdrawn] == [1, 2]
    assert store.rollback("items", "1").version == 1
    restored = store.promote("items", "3")
    assert (restored.is_withdrawn, restored.labels) == (False, ("stable",))
    assert store.version("items", "latest").version == 3
    events = [(e["event"], e["version"]) for e in store.ledger("items")]
    assert events == [("push", 1), ("push", 2), ("push", 3), ("rollback", 3), ("rollback", 2), ("promote", 3)]


def test_a_number_is_never_used_twice(store: ModelStore, tmp_path: Path) -> None:
    for name in "ab":
        store.push(saved_model(tmp_path / name, name), "items")
    store.rollback("items")
    assert store.push(saved_model(tmp_path / "c", "c"), "items").version.version == 3


def test_labels_move_and_are_found_by_name(store: ModelStore, tmp_path: Path) -> None:
    for name in "ab":
        store.push(saved_model(tmp_path / name, name), "items")
    store.promote("items", "1", "canary")
    store.promote("items", "2", "canary")
    assert store.version("items", "canary").version == 2
    assert store.version("items", "1").labels == ()


def test_only_the_newest_stay_when_asked_and_labelled_ones_always(store: ModelStore, tmp_path: Path) -> None:
    store.push(saved_model(tmp_path / "a", "a"), "items")
    store.promote("items", "1")
    for name in "bcd":
        store.push(saved_model(tmp_path / name, name), "items")
    store.drop_old("items", 2)
    assert [v.version for v in store.versions("items")] == [1, 3, 4]
    for keep in (0, -1):
        store.drop_old("items", keep)
    assert [v.version for v in store.versions("items")] == [1, 3, 4]
    assert store.ledger("items")[-1]["event"] == "remove"
    assert not list((store.models_dir / "items").glob(".*"))


def test_a_push_killed_before_its_event_is_recorded_by_the_next(store: ModelStore, tmp_path: Path) -> None:
    first = saved_model(tmp_path / "a", "a")
    store.push(first, "items", run="run-1")
    (event,) = (Path(ledger_of(store.url)) / "models" / "items").iterdir()
    event.unlink()  # killed before it was written
    assert ModelStore(store.url).ledger("items") == []
    assert not ModelStore(store.url).push(first, "items").is_new
    event.write_text('{"kind": "model.pushed", "version"')  # as a damaged disk leaves it
    store = ModelStore(store.url)
    assert store.ledger("items") == []
    store.push(first, "items")
    assert [(e["event"], e["version"], e["run"]) for e in store.ledger("items")] == [("push", 1, "run-1")]
    shutil.rmtree(event.parent)
    store = ModelStore(store.url)
    store.push(saved_model(tmp_path / "b", "b"), "items")
    assert [(e["event"], e["version"]) for e in store.ledger("items")] == [("push", 1), ("push", 2)]


def test_what_killed_pushes_left_is_removed_after_a_day(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.push(saved_model(tmp_path / "a", "a"), "items")
    left = [saved_model(store.models_dir / "items" / name, "x") for name in (".incoming-1", ".removed-2")]
    store.push(saved_model(tmp_path / "b", "b"), "items")
    assert all(folder.exists() for folder in left)  # another process may be at it
    monkeypatch.setattr("mlplatform.registry.version_files._STALE_S", -1)
    store.push(saved_model(tmp_path / "c", "c"), "items")
    assert not any(folder.exists() for folder in left)


def test_a_copy_that_is_gone_before_it_is_looked_at_stops_no_push(store: ModelStore, tmp_path: Path) -> None:
    store.push(saved_model(tmp_path / "a", "a"), "items")
    (store.models_dir / "items" / ".incoming-3").symlink_to("gone")
    assert store.push(saved_model(tmp_path / "b", "b"), "items").version.version == 2


def test_a_push_awaits_its_servers_until_it_is_confirmed(store: ModelStore, tmp_path: Path) -> None:
    store.push(saved_model(tmp_path / "a", "a"), "items", servers=["host:8500"])
    assert store.awaits_servers("items", 1)
    store.confirm("items", 1, ["host:8500"])
    assert not store.awaits_servers("items", 1)
    assert store.ledger("items")[-1]["servers"] == ["host:8500"]


@pytest.mark.parametrize("label", ["latest", "3", "3rd", "", "a b", "a/b"])
def test_a_label_that_means_something_else_is_refused(store: ModelStore, tmp_path: Path, label: str) -> None:
    store.push(saved_model(tmp_path / "a", "a"), "items")
    with pytest.raises(InvalidLabelError, match="cannot be a label"):
        store.promote("items", "1", label)
    assert store.version("items", "1").labels == ()


def test_an_account_without_a_name_can_push(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs under a number of its own."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_123_456)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    store.push(saved_model(tmp_path / "a", "a"), "items")
    push = store.version("items", "1").push
    assert push is not None
    assert push.pushed_by == "4000123456"


def _push(models_dir: Path, source: Path) -> int:
    return ModelStore(models_dir).push(source, "items").version.version


def test_pushers_at_the_same_time_all_land(store: ModelStore, tmp_path: Path) -> None:
    sources = [saved_model(tmp_path / str(i), str(i)) for i in range(8)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        numbers = pool.starmap(_push, [(store.models_dir, source) for source in sources])
    assert sorted(numbers) == list(range(1, 9))
    found = {(v.path / "saved_model.pb").read_text() for v in store.versions("items")}
    assert found == {str(i) for i in range(8)}
    assert len(store.ledger("items")) == 8


def test_errors_say_what_was_found(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotASavedModelError, match=r"holds notes.txt, and no saved_model.pb"):
        store.push(tmp_path, "items")
    with pytest.raises(NotASavedModelError, match="does not exist"):
        store.push(tmp_path / "missing", "items")
    with pytest.raises(ModelNotFoundError, match="none was pushed yet"):
        store.versions("items")
    store.push(saved_model(tmp_path / "a", "a"), "items")
    with pytest.raises(ModelNotFoundError, match="there are items"):
        store.versions("itms")
    with pytest.raises(ModelVersionNotFoundError, match="it has: 1"):
        store.version("items", "7")
    with pytest.raises(NothingToRollBackToError):
        store.rollback("items")
    with pytest.raises(InvalidModelNameError):
        store.push(tmp_path / "a", "../items")
