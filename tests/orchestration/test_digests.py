"""Content decides, however the file system tries to hide a change."""

import os
import time
from pathlib import Path

import pytest

from mlplatform.fingerprints.digests import (
    UNUSED_DAYS,
    Digests,
    file_facts,
    is_same_file,
    prune,
)


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
