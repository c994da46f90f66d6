"""A page appears in one step, and where it cannot be written nothing of it stays."""

from pathlib import Path

import pytest

from mlplatform.reports.page import write_page


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> str:
    import jinja2

    from mlplatform.reports import page

    templates = jinja2.Environment(loader=jinja2.DictLoader({"a.html": "<p>{{ text }}</p>"}))
    monkeypatch.setattr(page, "_TEMPLATES", templates)
    return "a.html"


def test_a_page_takes_the_place_of_the_old_one(tmp_path: Path, template: str) -> None:
    path = tmp_path / "new" / "page.html"
    for text in ("old", "new"):
        assert write_page(path, template, text=text) == path
    assert path.read_text() == "<p>new</p>"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["adir", "."])
def test_a_folder_is_no_place_for_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adir").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_page(Path(name), template, text="")
    assert (caught.value.filename, caught.value.filename2) == (name, None)
    assert [path.name for path in tmp_path.iterdir()] == ["adir"]


def test_a_page_that_cannot_be_written_leaves_nothing_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    def fill_the_disk(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text.encode(encoding)[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill_the_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        write_page(tmp_path / "page.html", template, text="")
    assert caught.value.filename == str(tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
