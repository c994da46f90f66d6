"""Splits: stable hashes, and the splits that folders bring."""

from collections import Counter
from pathlib import Path

from mlplatform.components.image_example_gen.given_splits import given_splits
from mlplatform.components.image_example_gen.splitting import split_of

ITEMS = [f"item-{number}" for number in range(20_000)]


def test_the_shares_are_those_of_the_weights() -> None:
    counts = Counter(split_of(item, {"train": 7, "eval": 2, "test": 1}) for item in ITEMS)
    assert [round(counts[split] / len(ITEMS), 2) for split in ("train", "eval", "test")] == [0.7, 0.2, 0.1]


def test_an_item_never_moves() -> None:
    halves = {"train": 1, "eval": 1}
    chosen = "".join(split_of(item, halves)[0] for item in ITEMS[:40])
    assert chosen == "tttteeteteetettteetteeeeeeeeetetetetette"
    assert all(
        split_of(i, {"train": 4, "eval": 1}) == split_of(i, {"train": 8, "eval": 2}) for i in ITEMS[:500]
    )


def test_a_smaller_evaluation_split_is_part_of_the_larger() -> None:
    small = {item for item in ITEMS if split_of(item, {"train": 9, "eval": 1}) == "eval"}
    large = {item for item in ITEMS if split_of(item, {"train": 8, "eval": 2}) == "eval"}
    assert small < large


def test_folders_of_class_folders_are_splits(tmp_path: Path) -> None:
    for folder in ("train/hat", "validation/hat", "test/hat", ".cache/hat", "empty"):
        (tmp_path / folder).mkdir(parents=True)
    assert given_splits(tmp_path) == ["train", "test", "validation"]


def test_class_folders_are_no_splits(tmp_path: Path) -> None:
    for folder in ("train", "hat"):  # a shop for toys has trains
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(b"")
    assert given_splits(tmp_path) == []
