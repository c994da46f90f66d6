"""Corrections of labels: a delta of the newest version."""

from pathlib import Path
from typing import Any

import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import CorrectionsError, NoKeyError
from mlplatform.datasets.format.features import record_features, show, with_text


@pytest.fixture
def items(store: DatasetStore, make_example: Any, write_examples: Any, tmp_path: Path) -> DatasetStore:
    """A store with `items@v1`: ten records to train on, one of them twice, and four held out."""
    train = [
        make_example({"item_id": f"t{n}", "label": "hat" if n % 2 else "cup", "photo": "x" * 500})
        for n in range(10)
    ]
    held_out = [make_example({"item_id": f"e{n}", "label": "hat"}) for n in range(4)]
    folder = write_examples(tmp_path / "examples", {"train": [[*train, train[3]]], "eval": [held_out]})
    store.commit("items", folder, key=["item_id"], label="label", taxonomy="renames: {cap: hat}")
    return store


def corrections(folder: Path, text: str) -> Path:
    file = folder / "corrections.csv"
    file.write_text(text)
    return file


def labels(store: DatasetStore, version: str, folder: Path) -> dict[str, list[str]]:
    """The labels of a version's records, by item."""
    import pyarrow.parquet as pq

    found: dict[str, list[str]] = {}
    store.export("items", version, folder)
    for file in sorted(folder.glob("*.parquet")):
        table = pq.read_table(file).to_pydict()
        for item, label in zip(table["item_id"], table["label"], strict=True):
            found.setdefault(_text(item), []).append(_text(label))
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_only_what_changes_is_written(items: DatasetStore, tmp_path: Path) -> None:
    file = corrections(tmp_path, "item_id,label,why\nt3,cup,seen\ne1,cup,seen\nt0,cup,as it was\n")
    committed = items.relabel("items", file)

    assert (committed.is_new, committed.added, committed.removed) == (True, 3, 3)  # t3 is there twice
    assert committed.manifest.version == "v2"
    assert committed.stored_bytes < items.show("items", "v1").stored_bytes
    before, after = labels(items, "v1", tmp_path / "v1"), labels(items, "v2", tmp_path / "v2")
    assert {item for item in before if before[item] != after[item]} == {"t3", "e1"}
    assert (after["t3"], after["e1"]) == (["cup", "cup"], ["cup"])
    difference = items.diff("items", "v1", "v2")
    assert {kind: difference.count(kind) for kind in ("added", "removed", "changed")} == {
        "added": 0, "removed": 0, "changed": 3
    }  # fmt: skip
    assert items.verify("items").is_whole
    assert items.show("items").taxonomy == "renames: {cap: hat}"


def test_a_commit_of_the_same_records_makes_the_same_version(items: DatasetStore, tmp_path: Path) -> None:
    committed = items.relabel("items", corrections(tmp_path, "item_id,label\nt3,cup\n"))
    checkout = items.checkout("items", "v2", tmp_path / "v2")
    other = DatasetStore(tmp_path / "other").commit("items", checkout, key=["item_id"])
    assert other.manifest.digest == committed.manifest.digest


def test_labels_that_are_there_make_no_version(items: DatasetStore, tmp_path: Path) -> None:
    assert not items.relabel("items", corrections(tmp_path, "item_id,label\nt3,hat\n")).is_new
    items.relabel("items", corrections(tmp_path, "item_id,label\nt3,cup\n"))
    back = items.relabel("items", corrections(tmp_path, "item_id,label\nt3,hat\n"))
    assert (back.manifest.version, back.is_new) == ("v1", False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("item_id,label\nt3,cup\nnone,cup\n", "row 3: items@v1 has no record with item_id 'none'"),
        ("item_id,label\nt3,cup\nt3,hat\n", "row 3 calls 't3' 'hat', row 2 'cup'"),
        ("item_id,label\nt3,\n", "row 2 has no label"),
        ("id,label\nt3,cup\n", "it has no column 'item_id'; it has id, label"),
        ("", "it has no column 'item_id'; it has no header"),
        ("item_id,label\n", "it has no rows"),
    ],
)
def test_what_does_not_fit_changes_nothing(items: DatasetStore, tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(CorrectionsError) as raised:
        items.relabel("items", corrections(tmp_path, text))
    assert says in str(raised.value)
    assert len(items.log("items")) == 1


def test_without_a_key_no_item_is_known(items: DatasetStore, tmp_path: Path) -> None:
    with pytest.raises(NoKeyError):
        items.relabel("items", corrections(tmp_path, "label\ncup\n"), key=[])


def test_a_number_stays_a_number(make_example: Any) -> None:
    record = make_example({"grade": 3, "item_id": "t1"})
    changed = record_features(with_text(record, "grade", "5"))
    assert show(changed["grade"]) == "5"
    assert changed["grade"][:1] == b"\x1a"
    assert with_text(record, "grade", "3") == record


def test_a_taxonomy_is_a_part_of_the_version(items: DatasetStore, tmp_path: Path) -> None:
    """Declared anew for what is there, kept by later versions, and not half read."""
    from mlplatform.taxonomy import TaxonomyError

    again = items.commit("items", tmp_path / "examples", taxonomy="renames: {cap: hat, mug: cup}")
    assert not again.is_new
    assert items.show("items", "v1").taxonomy == "renames: {cap: hat, mug: cup}"
    with pytest.raises(TaxonomyError):
        items.declare_taxonomy("items", "v1", "renames: [cap]")
    assert items.declare_taxonomy("items", "v1", "").taxonomy == ""
    assert items.show("items").taxonomy == ""
    assert items.verify("items").is_whole
