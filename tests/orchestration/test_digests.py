"""Content decides, however the file system tries to hide a change."""

import os
import time
import uuid
from pathlib import Path

import pytest

from mlplatform.fingerprints.digests import (
    UNSEEN,
    UNUSED_DAYS,
    Digests,
    file_facts,
    is_same_file,
    prune,
)
from mlplatform.orchestration.local.cache.pushed import versions_digest
from mlplatform.registry import ModelStore
from mlplatform.storage import open_storage


@pytest.fixture
def bucket():
    return f"memory://{uuid.uuid4().hex}"


def test_in_object_storage_the_listing_decides(digests, bucket):
    place, storage = f"{bucket}/data", open_storage(bucket)
    assert digests.of(place) == ""
    storage.put("data/a", b"one")
    storage.put("other", b"one")
    first = digests.of(place)
    assert digests.of(place) == first != digests.of(f"{place}/a") != ""
    storage.put("data/inner/b", b"two")
    second = digests.of(place)
    storage.put("data/a", b"six")
    third = digests.of(place)
    storage.delete("data/inner/b")
    assert len({first, second, third, digests.of(place)}) == 4


def test_what_cannot_be_listed_is_unseen(digests, bucket, monkeypatch):
    assert digests.of("hdfs://host/data") == UNSEEN
    open_storage(bucket).put("a", b"one")
    monkeypatch.setattr("mlplatform.storage.file_systems._IDENTITIES", ())
    assert digests.of(bucket) == UNSEEN


@pytest.fixture
def pushed(tmp_path, bucket):
    """A store of models at a URL, and a function that pushes a model to it."""
    store = ModelStore(f"{bucket}/models")

    def push(content):
        model = tmp_path / content
        model.mkdir()
        (model / "saved_model.pb").write_text(content)
        return store.push(model, "m").version.version

    return store, push


def test_of_pushed_models_at_a_url_the_ledger_decides(pushed):
    store, push = pushed
    folder = store.base_path("m")
    assert versions_digest(folder) == ""
    push("a")
    one = versions_digest(folder)
    store.promote("m", "1")
    assert versions_digest(folder) == one != ""
    push("b")
    two = versions_digest(folder)
    store.rollback("m", why="bad")
    assert versions_digest(folder) == one != two
    store.promote("m", "2")
    assert versions_digest(folder) == two


def test_of_what_another_pushed_to_a_url_the_names_decide(bucket):
    open_storage(bucket).put("served/1/saved_model.pb", b"one")
    one = versions_digest(f"{bucket}/served")
    open_storage(bucket).put("served/2/saved_model.pb", b"two")
    assert "" != versions_digest(f"{bucket}/served") != one != ""


@pytest.fixture
def digests(tmp_path):
    return Digests(tmp_path / "memory")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_text("one")
    (folder / "inner/b").write_text("two")
    return folder


def settle():
    """Let the clock of the file system move on, so that digests may be remembered."""
    time.sleep(0.05)


def test_content_and_names_count_and_nothing_else(digests, folder, tmp_path):
    first = digests.of(str(folder))
    settle()
    assert digests.of(str(folder)) == first
    os.utime(folder / "a")
    assert digests.of(str(folder)) == first
    (folder / "inner/b").rename(folder / "inner/c")
    assert digests.of(str(folder)) != first
    assert digests.of(str(tmp_path / "nowhere")) == ""


def test_a_time_that_is_put_back_does_not_deceive(digests, folder):
    settle()
    first, facts = digests.of(str(folder)), file_facts(str(folder / "a"))
    before = (folder / "a").stat()
    (folder / "a").write_text("eno")
    os.utime(folder / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digests.of(str(folder)) != first
    assert not is_same_file(str(folder / "a"), facts)


def test_an_empty_folder_counts(digests, folder):
    first = digests.of(str(folder))
    (folder / "inner/empty").mkdir()
    second = digests.of(str(folder))
    assert second != first
    (folder / "inner/empty").rename(folder / "inner/other")
    assert digests.of(str(folder)) not in (first, second)
    (folder / "inner/other").rmdir()
    assert digests.of(str(folder)) == first


def test_names_that_are_no_text(digests, folder):
    name = os.fsencode(folder) + b"/photo-\xff.png"
    Path(os.fsdecode(name)).write_text("photo")
    settle()
    first = digests.of(str(folder))
    assert digests.of(str(folder)) == first
    Path(os.fsdecode(name)).unlink()
    assert digests.of(str(folder)) != first


def test_links_to_folders_are_followed_once(digests, folder):
    (folder / "inner/up").symlink_to(folder)
    (folder / "link").symlink_to(folder / "inner")
    (folder / "nowhere").symlink_to(folder / "nowhere")
    first = digests.of(str(folder))
    assert first
    (folder / "inner/b").write_text("changed")
    assert digests.of(str(folder)) != first


def test_where_a_second_link_leads_counts(digests, folder):
    (folder / "other").mkdir()
    (folder / "z").symlink_to(folder / "inner")
    first = digests.of(str(folder))
    (folder / "z").unlink()
    (folder / "z").symlink_to(folder / "other")
    assert digests.of(str(folder)) != first


def test_a_file_that_is_not_there_is_the_same_until_it_is(tmp_path):
    facts = file_facts(str(tmp_path / "file"))
    assert is_same_file(str(tmp_path / "file"), facts)
    (tmp_path / "file").write_text("here")
    assert not is_same_file(str(tmp_path / "file"), facts)
    facts = file_facts(str(tmp_path / "file"))
    (tmp_path / "file").unlink()
    assert not is_same_file(str(tmp_path / "file"), facts)


def test_old_notes_are_removed(tmp_path):
    for name, days in (("old", UNUSED_DAYS + 1), ("new", UNUSED_DAYS - 1)):
        (tmp_path / f"{name}.json").write_text("{}")
        os.utime(tmp_path / f"{name}.json", (0, time.time() - days * 86_400))
    prune(tmp_path)
    assert [note.name for note in tmp_path.iterdir()] == ["new.json"]
