"""The diff against one that is written plainly, record by record; and the counts that must balance."""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.diff import KINDS, VersionDiff
from mlplatform.datasets.format.tfrecord import SLACK_BYTES, Bytes, Int64s
from mlplatform.datasets.format.values import Values, joint_codes

Write = Callable[..., Path]
Make = Callable[..., bytes]
Record = tuple[str, int]  # an item's key ("" for none) and its content
Contents = dict[str, Counter[Record]]


def plainly(old: Contents, new: Contents, has_key: bool) -> Counter[str]:
    """Count what changed, one record after another."""
    gone: dict[Record, Counter[str]] = defaultdict(Counter)
    came: dict[Record, Counter[str]] = defaultdict(Counter)
    for split in {*old, *new}:
        before, after = old.get(split, Counter()), new.get(split, Counter())
        for record, copies in (before - after).items():
            gone[record][split] += copies
        for record, copies in (after - before).items():
            came[record][split] += copies
    counts: Counter[str] = Counter()
    for record in gone.keys() & came.keys():
        moved = min(gone[record].total(), came[record].total())
        counts["moved"] += moved
        for side in (gone, came):
            left = side[record].total() - moved
            # With two splits, one has what is left.
            side[record] = Counter({next(iter(side[record])): left}) if left else Counter()
    places: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for number, side in enumerate((gone, came)):
        for (key, _), splits in side.items():
            for copies in splits.values():
                if has_key and key:
                    places[key][number].append(copies)
                else:
                    counts["added" if number else "removed"] += copies
    for before, after in places.values():
        if len(before) > 1 or len(after) > 1:
            counts["ambiguous"] += sum(before) + sum(after)
            continue
        changed = min(sum(before), sum(after))
        counts["changed"] += changed
        counts["removed"] += sum(before) - changed
        counts["added"] += sum(after) - changed
    return +counts


def write_version(folder: Path, write: Write, make: Make, contents: Contents) -> Path:
    return write(
        folder,
        {
            split: [
                [
                    make({"content": content, "label": f"c{content % 3}", **({"id": key} if key else {})})
                    for key, content in records.elements()
                ]
            ]
            for split, records in contents.items()
        },
    )


RECORD = st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), st.integers(0, 4))
VERSION = st.fixed_dictionaries(
    {
        split: st.dictionaries(RECORD, st.integers(1, 3), max_size=7).map(Counter)
        for split in ("train", "eval")
    }
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(VERSION, VERSION)
def test_the_diff_is_the_plain_one_and_balances(
    tmp_path_factory: pytest.TempPathFactory,
    write_examples: Write,
    make_example: Make,
    old: Contents,
    new: Contents,
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    store = DatasetStore(folder / "store")
    for name, contents in (("a", old), ("b", new)):
        source = write_version(folder / name, write_examples, make_example, contents)
        store.commit("d", source, is_firewall_on=False)
    for key in ((), ("id",)):
        found = store.diff("d", "v1", "latest", key=key)
        assert Counter({kind: found.count(kind) for kind in KINDS if found.count(kind)}) == plainly(
            old, new, bool(key)
        )
        balances(found, old, new)
        deltas: dict[str, Counter[str]] = defaultdict(Counter)
        for delta in store.deltas(found):
            deltas[delta.split][delta.record] += delta.copies
        for split in new:
            sizes = new[split].total() - old[split].total()
            assert sum(deltas[split].values()) == sizes


def balances(found: VersionDiff, old: Contents, new: Contents) -> None:
    items = list(found.items())
    for split, row in found.by_split.items():
        came = sum(item.copies for item in items if item.after and item.after.split == split)
        gone = sum(item.copies for item in items if item.before and item.before.split == split)
        assert row["unchanged"] == new[split].total() - came == old[split].total() - gone
        if not row["ambiguous"]:
            assert came == row["added"] + row["moved_in"] + row["changed"]
            assert gone == row["removed"] + row["moved_out"] + row["changed"]
    assert sum(row["added"] for row in found.by_split.values()) == found.count("added")
    for kind in ("added", "removed", "changed"):
        assert sum(row[kind] for row in found.by_label.values()) == found.count(kind)
    assert found.unchanged == sum(row["unchanged"] for row in found.by_split.values())


def test_an_item_that_changed_and_moved_is_in_both_splits_rows(
    tmp_path: Path, write_examples: Write, make_example: Make, store: DatasetStore
) -> None:
    one, other = ({"id": "x", "content": n} for n in (1, 2))
    rest = [make_example({"id": "y"})]
    old = {"train": [[make_example(one), *rest]], "eval": [[]]}
    new = {"train": [rest], "eval": [[make_example(other)]]}
    store.commit("d", write_examples(tmp_path / "a", old), key=["id"])
    store.commit("d", write_examples(tmp_path / "b", new))
    found = store.diff("d", "v1", "v2")
    assert (found.count("changed"), found.count("moved")) == (1, 0)
    zero = dict.fromkeys(
        ("added", "removed", "changed", "ambiguous", "moved_in", "moved_out", "unchanged"), 0
    )
    assert found.by_split == {
        "train": {**zero, "moved_out": 1, "unchanged": 1},
        "eval": {**zero, "moved_in": 1},
    }


def test_a_key_of_several_features_pairs_by_all_of_them(
    tmp_path: Path, write_examples: Write, make_example: Make, store: DatasetStore
) -> None:
    def rows(content: int) -> list[bytes]:
        pairs = [("a", 1), ("a", 2), ("b", 1), ("1", 12), ("11", 2)]
        rows = [make_example({"shop": shop, "number": n, "content": content}) for shop, n in pairs]
        return [*rows, make_example({"shop": "c", "content": content})]  # a part of the key is missing

    for version in (1, 2):
        store.commit("d", write_examples(tmp_path / f"{version}", {"train": [rows(version)]}))
    found = store.diff("d", "v1", "v2", key=["shop", "number"])
    assert [found.count(kind) for kind in KINDS] == [1, 1, 5, 0, 0]
    assert {item.key for item in found.of_kind("changed")} == {
        ("a", "1"), ("a", "2"), ("b", "1"), ("1", "12"), ("11", "2"),
    }  # fmt: skip
    assert [item.key for item in found.of_kind("added")] == [()]
    assert found.key == ("shop", "number")


def test_samples_are_spread_over_the_classes(
    tmp_path: Path, write_examples: Write, make_example: Make, store: DatasetStore
) -> None:
    def rows(labels: Sequence[str]) -> list[list[bytes]]:
        return [[make_example({"id": f"{n}-{label}", "label": label}) for n, label in enumerate(labels)]]

    store.commit("d", write_examples(tmp_path / "a", {"train": [[]]}))
    store.commit("d", write_examples(tmp_path / "b", {"train": rows(["x"] * 50 + ["y"] * 2 + ["z"])}))
    found = store.diff("d", "v1", "v2")
    assert Counter(item.label_after for item in found.sample("added", 6)) == {"x": 3, "y": 2, "z": 1}
    assert len(found.sample("added", 100)) == 53
    assert found.sample("removed", 5) == []


def test_what_changed_is_counted_without_a_call_per_record(
    tmp_path: Path, write_examples: Write, make_example: Make, store: DatasetStore
) -> None:
    def calls(records: int) -> int:
        """Return how many Python functions it takes to count the changes of so many records."""
        dataset, made = f"d{records}", 0
        for version in (1, 2):
            rows = [make_example({"id": f"i{n}", "content": version}) for n in range(records)]
            source = write_examples(tmp_path / f"{records}-{version}", {"train": [rows]})
            store.commit(dataset, source, key=["id"])

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal made
            made += event == "call"

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            found = store.diff(dataset, "v1", "v2")
            assert found.count("changed") == found.by_label[""]["changed"] == records
        finally:
            sys.setprofile(before)
        return made

    calls(10)  # imports what it needs
    assert calls(2_000) < calls(200) + 200


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=20)), max_size=40), st.booleans())
def test_codes_are_equal_exactly_where_strings_are(strings: list[bytes | None], is_hash_blind: bool) -> None:
    column = values(strings)
    if is_hash_blind:  # as if somebody had made strings of one hash
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "mlplatform.datasets.format.values.hash_spans", lambda *_: np.zeros(len(strings), np.uint64)
            )
            codes = column.codes()
    else:
        codes = column.codes()
    assert [column[place] for place in range(len(strings))] == strings
    assert [code < 0 for code in codes.tolist()] == [one is None for one in strings]
    pairs = {(one, code) for one, code in zip(strings, codes.tolist(), strict=True)}
    assert len(pairs) == len({one for one, _ in pairs}) == len({code for _, code in pairs})
    joint = joint_codes([column, values([b"x"] * len(strings))])
    assert (joint < 0).tolist() == (codes < 0).tolist()
    assert len(set(joint.tolist())) == len(set(codes.tolist()))


def values(strings: Sequence[bytes | None]) -> Values:
    sizes: Int64s = np.array([-1 if one is None else len(one) for one in strings], np.int64)
    data = b"".join(one or b"" for one in strings)
    buffer: Bytes = np.frombuffer(data + bytes(SLACK_BYTES), np.uint8)
    lengths = np.maximum(sizes, 0)
    return Values.copied(buffer, np.cumsum(lengths) - lengths, sizes)


def test_the_page_survives_pictures_that_are_none_and_runs_no_program_for_them(
    tmp_path: Path, write_examples: Write, make_example: Make, store: DatasetStore
) -> None:
    from mlplatform.reports.dataset_diff_page import write_dataset_diff

    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0" * 17
    pictures = [
        png,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"BM",
        b"GIF89a",
    ]
    rows = [make_example({"image/encoded": picture, "id": f"{n}"}) for n, picture in enumerate(pictures)]
    store.commit("d", write_examples(tmp_path / "a", {"train": [[]]}))
    store.commit("d", write_examples(tmp_path / "b", {"train": [rows]}))
    page = write_dataset_diff(tmp_path / "page.html", store, store.diff("d", "v1", "v2")).read_text()
    assert "data:image" not in page
    assert page.count("<code>") >= len(pictures)
