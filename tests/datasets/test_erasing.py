"""An item that was erased stays away: whatever brings it back is refused, and says where it still is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlplatform.cli.datasets import datasets
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import ForgottenRecordError

Write = Callable[..., Path]
Make = Callable[..., bytes]


def item(make: Make, number: int, text: str = "") -> bytes:
    return make({"item_id": f"i{number}", "file": f"photos/hats/{number}.jpg", "text": text or f"t{number}"})


@pytest.fixture
def erased(tmp_path: Path, write_examples: Write, make_example: Make, store: DatasetStore) -> DatasetStore:
    """A dataset of which item i3 was erased."""
    rows = [item(make_example, number) for number in range(20)]
    store.commit("d", write_examples(tmp_path / "a", {"train": [rows]}), key=["item_id"])
    store.forget("d", "i3", is_erasing=True, why="asked to")
    return store


@pytest.mark.parametrize("beam_options", [None, ()])
def test_the_same_item_with_other_content_does_not_come_back(
    beam_options: tuple[str, ...] | None,
    tmp_path: Path,
    write_examples: Write,
    make_example: Make,
    erased: DatasetStore,
) -> None:
    rows = [item(make_example, number) for number in range(30) if number != 3]
    again = write_examples(tmp_path / "b", {"train": [[*rows, item(make_example, 3, "photographed anew")]]})
    with pytest.raises(ForgottenRecordError, match=r"source still has them: item_id=i3 \(in .*/b\)"):
        erased.commit("d", again, beam_options=beam_options)
    assert [one.version for one in erased.log("d")] == ["v1"]
    held = [path for path in Path(erased.url).rglob("*") if path.is_file()]
    assert not [path for path in held if b"photographed anew" in path.read_bytes()]
    clean = write_examples(tmp_path / "c", {"train": [rows]})
    assert erased.commit("d", clean, beam_options=beam_options).is_new
    assert erased.verify("d").is_whole


def test_an_untouched_source_is_named_with_its_file(tmp_path: Path, erased: DatasetStore) -> None:
    with pytest.raises(ForgottenRecordError, match=r"item_id=i3, record \w{32} \(in .*/a/Split-train/data"):
        erased.commit("d", tmp_path / "a")


def test_what_was_erased_is_known_again(erased: DatasetStore) -> None:
    found = erased.blame("d", "i3")
    assert found.records == []
    ((when, why, versions),) = [(one.at, one.why, one.versions) for one in found.erased]
    assert (when[:2], why, versions) == ("20", "asked to", ["v1"])
    assert erased.blame("d", "i4").erased == []
    shown = CliRunner().invoke(datasets, ["forget", "d", "i3", "--erase", "--store", erased.url])
    assert (shown.exit_code, "i3 was erased on" in shown.output) == (0, True), shown.output


def test_copies_that_still_hold_it_are_listed(
    tmp_path: Path, write_examples: Write, make_example: Make, store: DatasetStore
) -> None:
    rows = [item(make_example, number) for number in range(20)]
    source = write_examples(tmp_path / "a", {"train": [rows]})
    store.commit("d", source, key=["item_id"])
    again = write_examples(tmp_path / "again", {"train": [rows[:10], rows[10:]]})
    assert not store.commit("d", again).is_new
    store.commit("d", write_examples(tmp_path / "b", {"train": [rows[5:]]}))
    store.checkout("d", "v1", tmp_path / "out")
    store.checkout("d", "v2", tmp_path / "without")
    store.export("d", "v1", tmp_path / "table")
    done = store.forget("d", "i3", is_erasing=True)
    assert {(copy.kind, copy.place, copy.is_there) for copy in done.blame.copies} == {
        ("source", str(source), True),
        ("source", str(again), True),
        ("checkout", str(tmp_path / "out"), True),
        ("export", str(tmp_path / "table"), True),
    }
    assert store.verify("d").is_whole
    assert store.gc("d", grace_s=0) == []
    (tmp_path / "out").rename(tmp_path / "moved")
    (moved,) = (copy for copy in store.copies("d") if copy.place == str(tmp_path / "out"))
    assert moved.is_there is False


def test_a_file_name_or_any_text_finds_the_record(erased: DatasetStore) -> None:
    run = CliRunner().invoke
    for asked, feature in (("7.jpg", "file"), ("photos/hats/7.jpg", "file"), ("t7", "text")):
        found = erased.blame("d", asked)
        assert (len(found.records), found.found_in) == (1, (feature,))
    shown = run(datasets, ["blame", "d", "7.jpg", "--store", erased.url])
    assert (shown.exit_code, "records hold it in file" in shown.output) == (0, True)
    assert erased.blame("d", "hats/7.jpg").records == []  # neither the value nor the file's name
    nothing = run(datasets, ["blame", "d", "nobody", "--store", erased.url])
    assert (nothing.exit_code, "Ask by another feature with --key FEATURE" in nothing.output) == (1, True)


def test_forgetting_goes_by_the_key_alone(erased: DatasetStore) -> None:
    run = CliRunner().invoke
    shown = run(datasets, ["forget", "d", "7.jpg", "--erase", "--store", erased.url])
    assert shown.exit_code == 1
    assert "Records hold it in file: forget those with --key file." in shown.output
    assert len(erased.blame("d", "i7").records) == 1
    done = run(
        datasets, ["forget", "d", "photos/hats/7.jpg", "--key", "file", "--erase", "--store", erased.url]
    )
    assert done.exit_code == 0, done.output
    assert erased.blame("d", "i7").records == []
