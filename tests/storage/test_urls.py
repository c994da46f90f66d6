"""Local paths and URLs are told apart, taken apart and put together."""

from pathlib import Path

import pytest

from mlplatform.storage.errors import LostSlashError
from mlplatform.storage.urls import absolute, is_local, join, name, parent, scheme


@pytest.mark.parametrize(
    "url", ["s3://bucket", "gs://b/x", "memory://x", "simplecache::s3://b/x", "file:///x"]
)
def test_a_url_is_not_local(url: str) -> None:
    assert not is_local(url)
    assert scheme(url) == url.partition("://")[0]


@pytest.mark.parametrize("path", ["", ".", "x", "/x/y", "~/x", "s3:/x", "folder/s3://x", "C:x", "a:b"])
def test_a_path_is_local(path: str) -> None:
    assert is_local(path)
    assert scheme(path) == ""


@pytest.mark.parametrize(
    ("url", "above", "last"),
    [
        ("s3://bucket/a/b", "s3://bucket/a", "b"),
        ("s3://bucket/a/", "s3://bucket", "a"),
        ("s3://bucket", "s3://bucket", "bucket"),
        ("memory://x", "memory://x", "x"),
        ("/a/b", "/a", "b"),
        ("/a", "/", "a"),
        ("/", "/", ""),
        ("a/b", "a", "b"),
        ("a", ".", "a"),
    ],
)
def test_a_place_has_a_folder_and_a_name(url: str, above: str, last: str) -> None:
    assert (parent(url), name(url)) == (above, last)


@pytest.mark.parametrize(
    ("url", "names", "joined"),
    [
        ("s3://bucket", ("a", "b"), "s3://bucket/a/b"),
        ("s3://bucket/", ("a",), "s3://bucket/a"),
        ("memory://", ("a",), "memory://a"),
        ("/x/", ("a/b",), "/x/a/b"),
        ("/", ("a",), "/a"),
        ("x", (), "x"),
        ("", ("a",), "a"),
    ],
)
def test_names_are_put_below_a_place(url: str, names: tuple[str, ...], joined: str) -> None:
    assert join(url, *names) == joined


def test_a_url_that_was_taken_for_a_path_is_refused() -> None:
    with pytest.raises(LostSlashError, match=r"Give 's3://bucket/x' for the URL, or \./s3:/bucket/x for"):
        absolute(Path("s3://bucket/x"))
    assert absolute("./s3:/bucket").endswith("/s3:/bucket")


def test_a_place_is_made_one_that_stays_right_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute("x/") == absolute(Path("x")) == str(tmp_path / "x")
    assert absolute("~/x") == "/home/me/x"
    assert absolute("file:///x/y/") == "/x/y"
    assert absolute("s3://bucket/x//") == "s3://bucket/x"
    assert absolute("memory://") == "memory://"
