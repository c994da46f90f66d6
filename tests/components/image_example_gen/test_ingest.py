"""Photos in, Examples and rejects out; in = out + rejects."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from mlplatform.components.image_example_gen.files import all_below
from mlplatform.components.image_example_gen.settings import IngestSettings
from mlplatform.errors import GateError, UsageError

Ingest = Any  # conftest.Ingest
RunIngest = Callable[..., Ingest]
Listed = Callable[..., Path]
HASHED = {"train": 2, "eval": 1}


def test_class_folders_become_examples(shop: Path, ingest: RunIngest) -> None:
    done = ingest(input_base=str(shop), splits=HASHED)
    examples = [example for split in done.examples.values() for example in split]
    assert {example["path"].decode() for example in examples} == {
        f"{label}/{number}.jpg" for label in ("hat", "shoe") for number in range(6)
    }
    for example in examples:
        path = shop / example["path"].decode()
        assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(example["item_id"].decode())
        assert example["image/encoded"] == path.read_bytes()
        assert example["image/format"] == b"jpeg"
        assert (example["image/height"], example["image/width"]) == (16, 24)
        assert example["label"].decode() == path.parent.name
    assert done.summary == {
        "entries": 12,
        "accepted": {split: len(done.examples[split]) for split in HASHED},
        "rejected": {},
        "warnings": {},
        "turned": 0,
    }


def test_the_same_photos_give_the_same_bytes(shop: Path, ingest: RunIngest) -> None:
    first, second = (ingest(input_base=str(shop), splits=HASHED) for _ in range(2))
    files = sorted(path.relative_to(first.folder) for path in (first.folder / "examples").rglob("*-of-*"))
    assert len(files) == 8
    assert all((first.folder / file).read_bytes() == (second.folder / file).read_bytes() for file in files)


def test_a_photo_that_is_relabelled_or_renamed_stays_the_item_that_it_is_in_its_split(
    shop: Path, ingest: RunIngest
) -> None:
    before = ingest(input_base=str(shop), splits=HASHED)
    for number in range(6):
        (shop / "hat" / f"{number}.jpg").rename(shop / "shoe" / f"was-a-hat-{number}.jpg")
    (shop / "hat").rmdir()
    after = ingest(input_base=str(shop), splits=HASHED)
    assert {split: sorted(before.ids(split)) for split in HASHED} == {
        split: sorted(after.ids(split)) for split in HASHED
    }
    assert {e["label"] for split in after.examples.values() for e in split} == {b"shoe"}


def test_the_same_photo_under_two_names_is_in_one_split(shop: Path, ingest: RunIngest) -> None:
    for number in range(6):
        shutil.copy(shop / "hat" / f"{number}.jpg", shop / "shoe" / f"copy-{number}.jpg")
    done = ingest(input_base=str(shop), splits=HASHED)
    assert set(done.ids("train")).isdisjoint(done.ids("eval"))
    assert done.summary["accepted"] == {split: len(done.examples[split]) for split in HASHED}
    assert sum(done.summary["accepted"].values()) == 18


def test_a_name_that_is_not_utf_8_is_a_counted_reject(shop: Path, ingest: RunIngest) -> None:
    photo = (shop / "hat" / "0.jpg").read_bytes()
    Path(os.fsdecode(os.fsencode(shop / "hat") + b"/\xe4.jpg")).write_bytes(photo)
    folder = Path(os.fsdecode(os.fsencode(shop) + b"/h\xfcte"))
    folder.mkdir()
    (folder / "1.jpg").write_bytes(photo)
    done = ingest(input_base=str(shop), splits=HASHED, max_reject_fraction=0.5)
    assert done.rejects == {"hat/\\xe4.jpg": "unreadable_name", "h\\xfcte/1.jpg": "unreadable_name"}
    assert done.summary["entries"] == 14


@pytest.mark.parametrize("label", [" hat", "hat ", "a\tb", "line\u2028break"])
def test_a_folder_that_cannot_be_a_class_is_a_counted_reject(
    label: str, shop: Path, ingest: RunIngest
) -> None:
    shutil.copytree(shop / "hat", shop / label)
    done = ingest(input_base=str(shop), splits=HASHED, max_reject_fraction=0.5)
    assert done.summary["rejected"] == {"bad_label": 6}
    assert done.summary["entries"] == 18


def test_names_may_hold_what_patterns_are_made_of(
    tmp_path: Path, ingest: RunIngest, make_photo: Callable[..., bytes]
) -> None:
    label = "t-shirt [men] *new* ü"
    folder = tmp_path / "shop [2026]?" / label
    folder.mkdir(parents=True)
    for number in range(6):
        (folder / f"a [{number}].jpg").write_bytes(make_photo(seed=number))
    done = ingest(input_base=str(folder.parent), splits={"train": 1, "eval": 1})
    assert {e["label"].decode() for split in done.examples.values() for e in split} == {label}
    assert done.summary["entries"] == 6


def test_given_splits_are_respected(shop: Path, ingest: RunIngest, tmp_path: Path) -> None:
    base = tmp_path / "divided"
    for split in ("train", "validation", "test"):
        shutil.copytree(shop, base / split)
    done = ingest(input_base=str(base))
    assert {split: len(examples) for split, examples in done.examples.items()} == {
        "train": 12, "test": 12, "validation": 12,
    }  # fmt: skip
    assert all(e["path"].startswith(b"validation/") for e in done.examples["validation"])
    chosen = ingest(input_base=str(base), splits=["train", "validation"])
    assert list(chosen.examples) == ["train", "validation"]


def test_every_broken_photo_is_a_counted_reject(
    shop: Path, ingest: RunIngest, make_photo: Callable[..., bytes]
) -> None:
    whole = make_photo(size=(80, 80))
    (shop / "hat" / "cut.jpg").write_bytes(whole[:500])
    (shop / "hat" / "text.jpg").write_text("not a photo")
    (shop / "hat" / "empty.jpg").write_bytes(b"")
    (shop / "hat" / "moving.gif").write_bytes(make_photo("GIF"))
    (shop / "hat" / "huge.jpg").write_bytes(make_photo(size=(60, 60)))
    (shop / "hat" / "heavy.png").write_bytes(make_photo("PNG", size=(50, 50)))
    (shop / "hat" / "really-png.jpg").write_bytes(make_photo("PNG"))
    (shop / "hat" / "folder.jpg").mkdir()
    (shop / "hat" / ".DS_Store").write_bytes(b"left by a file manager")
    (shop / "unsold").mkdir()
    done = ingest(
        input_base=str(shop),
        splits=HASHED,
        max_reject_fraction=0.5,
        max_image_pixels=3000,
        max_image_bytes=6000,
    )
    assert done.rejects == {
        "hat/cut.jpg": "truncated",
        "hat/text.jpg": "not_an_image",
        "hat/empty.jpg": "empty_file",
        "hat/moving.gif": "unsupported_format",
        "hat/huge.jpg": "too_many_pixels",
        "hat/heavy.png": "file_too_large",
        "hat/folder.jpg": "not_a_file",
        "unsold": "empty_class_folder",
    }
    assert done.warnings == {"hat/really-png.jpg": "wrong_extension"}
    assert done.summary["entries"] == 12 + 8 + 1
    assert sum(done.summary["accepted"].values()) == 13
    kept = {e["path"]: e for split in done.examples.values() for e in split}
    assert kept[b"hat/really-png.jpg"]["image/format"] == b"png"


def test_a_listing_brings_labels_ids_and_columns(listed: Listed, ingest: RunIngest) -> None:
    base = listed([(f"p/{n}.jpg", "hat" if n % 2 else "shoe", f"i{n}", f"s{n % 3}") for n in range(12)])
    done = ingest(input_base=str(base), listing="listing.csv", splits=HASHED)
    examples = {e["item_id"]: e for split in done.examples.values() for e in split}
    assert len(examples) == 12
    assert examples[b"i7"]["label"] == b"hat"
    assert examples[b"i7"]["seller_id"] == b"s1"
    assert examples[b"i7"]["image/encoded"] == (base / "p" / "7.jpg").read_bytes()
    assert "path" not in examples[b"i7"]


def test_a_cell_may_hold_quotes_and_line_breaks(
    tmp_path: Path, ingest: RunIngest, make_photo: Callable[..., bytes]
) -> None:
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(make_photo(seed=number))
    titles = ['5" nail', '"a ""good"" one"', '"two\nlines"', *"abcde"]
    lines = ["path,label,title", *(f"{number}.jpg,hat,{title}" for number, title in enumerate(titles))]
    (tmp_path / "items.csv").write_text("\n".join(lines))
    done = ingest(input_base=str(tmp_path), listing="items.csv", splits=HASHED)
    found = {e["title"] for split in done.examples.values() for e in split}
    assert found == {b'5" nail', b'a "good" one', b"two\nlines", *(t.encode() for t in "abcde")}


def test_a_column_can_keep_records_together(listed: Listed, ingest: RunIngest) -> None:
    base = listed([(f"{n}.jpg", "hat", f"i{n}", f"s{n % 8}") for n in range(40)])
    done = ingest(input_base=str(base), listing="listing.csv", splits=HASHED, split_by="seller_id")
    train, evaluation = ({e["seller_id"] for e in done.examples[split]} for split in ("train", "eval"))
    assert train
    assert evaluation
    assert train.isdisjoint(evaluation)


def test_every_broken_row_is_a_counted_reject(listed: Listed, ingest: RunIngest) -> None:
    good = [(f"{n}.jpg", "hat", f"good{n}", "s") for n in range(10)]
    base = listed(
        [
            *good,
            ("gone.jpg", "hat", "a", "s"),
            ("again.jpg", "hat", "good3", "s"),
            ("strange.jpg", "submarine", "b", "s"),
            ("nameless.jpg", "", "c", "s"),
            ("", "hat", "d", "s"),
            ("../listed/1.jpg", "hat", "e", "s"),
            ("/etc/hostname", "hat", "f", "s"),
            ("keyless.jpg", "hat", "g", ""),
        ],
        without=("gone.jpg",),
    )
    with (base / "listing.csv").open("a") as listing:
        listing.write("too,few\n")
    done = ingest(
        input_base=str(base),
        listing="listing.csv",
        splits=HASHED,
        labels=["hat", "shoe"],
        max_reject_fraction=0.6,
    )
    rejects = [
        json.loads(line) for line in (done.folder / "rejects" / "rejects.jsonl").read_text().splitlines()
    ]
    assert sorted((r["path"], r["reason"]) for r in rejects) == [
        ("", "malformed_row"),
        ("", "missing_path"),
        ("../listed/1.jpg", "outside_of_source"),
        ("/etc/hostname", "outside_of_source"),
        ("again.jpg", "duplicate_item_id"),
        ("gone.jpg", "missing_file"),
        ("nameless.jpg", "missing_label"),
        ("strange.jpg", "unknown_label"),
    ]
    assert {r["item_id"] for r in rejects if r["reason"] == "duplicate_item_id"} == {"good3"}
    accepted = {item for split in done.examples for item in done.ids(split)}
    assert accepted == {*(f"good{n}" for n in range(10)), "g"}


def test_a_label_that_cannot_be_a_class_is_a_counted_reject(listed: Listed, ingest: RunIngest) -> None:
    rows = [(f"{n}.jpg", "hat", f"i{n}", "s") for n in range(12)]
    base = listed([*rows, ("12.jpg", '"hat\nshoe"', "broken", "s"), ("13.jpg", "hat ", "blank", "s")])
    done = ingest(input_base=str(base), listing="listing.csv", splits=HASHED, max_reject_fraction=0.2)
    assert done.rejects == {"12.jpg": "bad_label", "13.jpg": "bad_label"}


def test_an_empty_split_column_is_a_reject(listed: Listed, ingest: RunIngest) -> None:
    rows = [(f"{n}.jpg", "hat", f"i{n}", f"s{n}") for n in range(20)]
    base = listed([*rows, ("x.jpg", "hat", "x", "")])
    done = ingest(input_base=str(base), listing="listing.csv", splits=HASHED, split_by="seller_id")
    assert done.rejects == {"x.jpg": "missing_split_key"}


def test_a_listing_may_be_json_lines_or_parquet(listed: Listed, ingest: RunIngest, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    base = listed([(f"{n}.jpg", "hat", f"i{n}", "s") for n in range(9)])
    rows = [
        {
            "path": f"{n}.jpg",
            "label": "hat",
            "item_id": n,
            "price": 1.5 * n,
            "stock": n,
            "new": n > 3,
            "tags": ["a", "b"],
        }
        for n in range(9)
    ]
    (base / "listing.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n[1]\n{broken\n")
    parquet.write_table(pa.Table.from_pylist(rows), base / "listing.parquet")
    for listing in ("listing.jsonl", "listing.parquet"):
        done = ingest(input_base=str(base), listing=listing, splits=HASHED, max_reject_fraction=0.3)
        examples = {e["item_id"]: e for split in done.examples.values() for e in split}
        assert len(examples) == 9
        five = examples[b"5"]
        assert (five["price"], five["stock"], five["new"], five["tags"]) == (7.5, 5, 1, [b"a", b"b"])
        assert done.summary["rejected"] == ({"malformed_row": 2} if listing == "listing.jsonl" else {})


def test_a_column_has_one_type_whatever_single_rows_hold(listed: Listed, ingest: RunIngest) -> None:
    base = listed([(f"{n}.jpg", "hat", f"i{n}", "s") for n in range(12)])
    prices: list[Any] = [7, 7.5, 8, 9, 10, 11, None, float("nan"), True, 3, "7", "n/a"]
    sizes: list[Any] = ["S", "M", 42, "L", "M", "M", "M", "M", "M", "M", "M", "M"]
    rows = [
        {"path": f"{n}.jpg", "label": "hat", "item_id": f"i{n}", "price": prices[n], "size": sizes[n]}
        for n in range(12)
    ]
    (base / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    done = ingest(input_base=str(base), listing="rows.jsonl", splits=HASHED, max_reject_fraction=0.2)
    examples = {e["item_id"].decode(): e for split in done.examples.values() for e in split}
    assert {item: e.get("price") for item, e in examples.items()} == {
        **{f"i{n}": float(prices[n]) for n in (0, 1, 2, 3, 4, 5, 8, 9)},
        **dict.fromkeys(("i6", "i7")),
    }
    assert isinstance(examples["i0"]["price"], float)
    assert examples["i2"]["size"] == b"42"
    assert done.rejects == {"10.jpg": "wrong_type", "11.jpg": "wrong_type"}


def test_nan_is_no_class_and_no_id(listed: Listed, ingest: RunIngest) -> None:
    base = listed([(f"{n}.jpg", "hat", f"i{n}", "s") for n in range(12)])
    rows: list[dict[str, Any]] = [
        {"path": f"{n}.jpg", "label": "hat", "item_id": f"i{n}", "seller_id": f"s{n}"} for n in range(12)
    ]
    nan = float("nan")
    rows += [
        {"path": "0.jpg", "label": nan, "item_id": "a", "seller_id": "s"},
        {"path": nan, "label": "hat", "item_id": "b", "seller_id": "s"},
        {"path": "1.jpg", "label": "hat", "item_id": "c", "seller_id": nan},
        {"path": "none/2.jpg", "label": "hat", "item_id": nan, "seller_id": "s"},
    ]
    (base / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    done = ingest(
        input_base=str(base),
        listing="rows.jsonl",
        splits=HASHED,
        split_by="seller_id",
        max_reject_fraction=0.5,
    )
    assert done.summary["rejected"] == {
        "missing_file": 1,
        "missing_label": 1,
        "missing_path": 1,
        "missing_split_key": 1,
    }
    rejects = (done.folder / "rejects" / "rejects.jsonl").read_text().splitlines()
    assert {json.loads(line)["item_id"] for line in rejects} == {"a", "b", "c", "none/2.jpg"}


def test_text_that_cannot_be_written_down_is_a_counted_reject(listed: Listed, ingest: RunIngest) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    base = listed([(f"{n}.jpg", "hat", f"i{n}", "s") for n in range(12)])
    rows = [{"path": f"{n}.jpg", "label": "hat", "item_id": f"i{n}"} for n in range(12)]
    half = '{"path": "0.jpg", "label": "hat", "item_id": "half", "title": "\\ud83d"}'
    (base / "rows.jsonl").write_text("\n".join([*(json.dumps(row) for row in rows), half]))
    done = ingest(input_base=str(base), listing="rows.jsonl", splits=HASHED, max_reject_fraction=0.2)
    assert done.summary["rejected"] == {"malformed_row": 1}

    encoded = [row["path"].encode() for row in rows]
    table = pa.table({"path": [*encoded[:-1], b"\xe4.jpg"], "label": ["hat"] * 12})
    parquet.write_table(table, base / "rows.parquet")
    done = ingest(input_base=str(base), listing="rows.parquet", splits=HASHED, max_reject_fraction=0.2)
    assert done.summary["rejected"] == {"malformed_row": 1}
    assert "0.jpg" in {item for split in done.examples for item in done.ids(split)}


def test_a_listing_may_bring_its_splits(
    tmp_path: Path, ingest: RunIngest, make_photo: Callable[..., bytes]
) -> None:
    lines = ["path,label,split"]
    for number, split in enumerate(["train"] * 4 + ["eval"] * 2 + ["holdout", ""]):
        (tmp_path / f"{number}.jpg").write_bytes(make_photo(seed=number))
        lines.append(f"{number}.jpg,hat,{split}")
    (tmp_path / "items.csv").write_text("\n".join(lines))
    done = ingest(
        input_base=str(tmp_path), listing="items.csv", splits=["train", "eval"], max_reject_fraction=0.3
    )
    assert [len(done.examples[split]) for split in ("train", "eval")] == [4, 2]
    assert done.rejects == {"6.jpg": "unknown_split", "7.jpg": "unknown_split"}


def test_too_many_rejects_stop_the_run_with_reasons_and_files(
    shop: Path, ingest: RunIngest, tmp_path: Path
) -> None:
    for number in range(3):
        (shop / "hat" / f"{number}.jpg").write_text("gone")
    (shop / "shoe" / "1.jpg").write_bytes(b"")
    with pytest.raises(GateError) as caught:
        ingest(
            input_base=str(shop),
            splits=HASHED,
            max_reject_fraction=0.3,
            reports_dir=str(tmp_path / "reports"),
        )
    text = str(caught.value)
    assert "4 of 12 entries" in text
    assert "not_an_image (3), empty_file (1)" in text
    assert "hat/0.jpg" in text
    assert "shoe/1.jpg" in text
    report = Path(text.rpartition("All of them: ")[2])
    assert "hat/0.jpg" in report.read_text()
    assert "Photos: rejected" in report.read_text()
    assert len((report.parent / "rejects.jsonl").read_text().splitlines()) == 4
    verdict = json.loads((report.parent / "verdict.json").read_text())
    assert verdict["accepted"] is False
    assert verdict["summary"]["rejected"] == {"empty_file": 1, "not_an_image": 3}


def test_what_an_accepted_ingest_left_out_is_told_and_kept(
    shop: Path, ingest: RunIngest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop / "hat" / "0.jpg").write_text("gone")
    (shop / "shoe" / "0.png").write_bytes((shop / "shoe" / "0.jpg").read_bytes())
    ingest(
        input_base=str(shop),
        splits=HASHED,
        max_reject_fraction=0.3,
        reports_dir=str(tmp_path / "reports"),
    )
    (folder,) = (tmp_path / "reports").glob("*/ImageExampleGen")
    said = [line for line in capsys.readouterr().err.splitlines() if "accepted" in line]
    assert said == [
        "12 accepted, 1 rejected (not_an_image 1), 1 accepted with a warning (wrong_extension 1): "
        f"{folder / 'report.html'}"
    ]
    page = (folder / "report.html").read_text()
    assert "Photos: accepted" in page
    assert "hat/0.jpg" in page
    assert "shoe/0.png" in page
    assert json.loads((folder / "verdict.json").read_text())["accepted"] is True


def test_a_photo_that_the_pipeline_loses_fails_the_run(
    shop: Path, listed: Listed, ingest: RunIngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlplatform.beam.accounting import RecordsLostError
    from mlplatform.beam.shards import WriteShards
    from mlplatform.components.image_example_gen.ingest import ReadPhoto

    base = listed([(f"{n}.jpg", "hat", f"i{n}", "s") for n in range(12)])
    sources = ({"input_base": str(shop)}, {"input_base": str(base), "listing": "listing.csv"})
    read, write = ReadPhoto.process, WriteShards.expand

    def read_all_but_one(self: Any, entry: Any) -> Any:
        return iter(()) if entry.path.endswith("5.jpg") else read(self, entry)

    def write_all_but_one(self: Any, records: Any) -> Any:
        return write(self, records | "LoseOne" >> beam.Filter(lambda record: not record[0].endswith(lost)))

    lost = ("i5", hashlib.sha256((shop / "hat" / "5.jpg").read_bytes()).hexdigest()[:32])
    for place, name, broken in (
        (ReadPhoto, "process", read_all_but_one),
        (WriteShards, "expand", write_all_but_one),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, broken)
            for source in sources:
                with pytest.raises(RecordsLostError, match="12 records went in"):
                    ingest(splits=HASHED, **source)


def test_nothing_but_rejects_stops_the_run_whatever_is_allowed(tmp_path: Path, ingest: RunIngest) -> None:
    (tmp_path / "hat").mkdir()
    with pytest.raises(GateError, match="empty_class_folder"):
        ingest(input_base=str(tmp_path), splits=HASHED, max_reject_fraction=1.0)


@pytest.mark.parametrize(
    ("total_bytes", "given", "shards"),
    [(0, None, 4), (10 << 30, None, 80), (1 << 60, None, 100_000), (10 << 30, 2, 2)],
)
def test_a_large_source_gets_more_shards(total_bytes: int, given: int | None, shards: int) -> None:
    settings = IngestSettings(
        layout="folders",
        label_feature="label",
        also_feature=None,
        leave_out_unlabelled=False,
        split_by="item_id",
        labels=None,
        max_reject_fraction=0.1,
        max_image_bytes=1,
        max_image_pixels=1,
        follow_links=False,
        shards=given,
        reports_dir=None,
    )
    assert settings.shards_for(total_bytes) == shards


BAD_LISTINGS = {
    "lacks a column": (
        "a.csv",
        b"path,category\n1.jpg,hat\n",
        "lacks the column 'label'; it has 'path', 'category'",
    ),
    "no header": ("a.csv", b"", "it is empty"),
    "no rows": ("a.csv", b"path,label\n", "it has no rows"),
    "column twice": ("a.csv", b"path,label,label\n1.jpg,a,b\n", "the column 'label' twice"),
    "quote never closed": (
        "a.csv",
        b'path,label\n1.jpg,hat\n2.jpg,"shoe\n3.jpg,hat\n4.jpg,bag\n',
        "lines 3 to 5 cannot be read as CSV",
    ),
    "text after a quote": ("a.csv", b'path,label\n1.jpg,"L" size\n', "line 2 cannot be read as CSV"),
    "NUL": (
        "a.csv",
        b"path,label\n1.jpg,h\0t\n",
        r"line 2 cannot be read as CSV \(line contains NUL\)\. A listing",
    ),
    "reserved column": ("a.csv", b"path,label,image/width\n1.jpg,a,3\n", "'image/width'"),
    "not UTF-8": ("a.csv", b"path,label\n\xe4.jpg,h\xfct\n", "not UTF-8"),
    "unknown kind": ("a.xlsx", b"PK", "neither CSV nor JSON Lines nor Parquet"),
    "not Parquet": ("a.parquet", b"path,label\n", "cannot be read as Parquet"),
    "not JSON at all": ("a.jsonl", b"path,label\n1.jpg,hat\n", None),
    "split column lacks": ("a.csv", b"path,label\n1.jpg,hat\n", "lacks the column 'seller_id'"),
}


@pytest.mark.parametrize("name", BAD_LISTINGS)
def test_a_bad_listing_is_one_clear_error(name: str, tmp_path: Path, ingest: RunIngest) -> None:
    file, content, says = BAD_LISTINGS[name]
    (tmp_path / file).write_bytes(content)
    split_by = "seller_id" if name == "split column lacks" else "item_id"
    if says is None:  # every row is a reject, so the gate says no
        with pytest.raises(GateError, match="malformed_row"):
            ingest(input_base=str(tmp_path), listing=file, splits=HASHED)
        return
    with pytest.raises(UsageError, match=says):
        ingest(input_base=str(tmp_path), listing=file, splits=HASHED, split_by=split_by)


BAD_SOURCES: dict[str, tuple[dict[str, Any], str]] = {
    "no such folder": ({"input_base": "{tmp}/none", "splits": HASHED}, "no such folder"),
    "no such folder, given splits": ({"input_base": "{tmp}/none"}, "no such folder"),
    "a file": ({"input_base": "{tmp}/file", "splits": HASHED}, "a file of this name"),
    "empty folder": ({"input_base": "{tmp}/empty", "splits": HASHED}, "no class folders"),
    "no splits in it": ({"input_base": "{shop}"}, "brings no splits of its own"),
    "no such listing": (
        {"input_base": "{shop}", "listing": "x.csv", "splits": HASHED},
        "there is no such file",
    ),
    "listing without splits": ({"input_base": "{shop}", "listing": "x.csv"}, "needs its splits by name"),
    "weight 0": ({"input_base": "{shop}", "splits": {"train": 0, "eval": 1}}, "weight of split 'train' is 0"),
    "split with a path": ({"input_base": "{shop}", "splits": {"../x": 1, "eval": 1}}, "a split is called"),
    "given split with a path": ({"input_base": "{shop}", "splits": ["train", "../x"]}, "a split is called"),
    "no split": ({"input_base": "{shop}", "splits": {}}, "there are no splits"),
    "unknown split_by": (
        {"input_base": "{shop}", "splits": HASHED, "split_by": "seller_id"},
        "folders know no such",
    ),
    "fraction above 1": (
        {"input_base": "{shop}", "splits": HASHED, "max_reject_fraction": 2},
        "max_reject_fraction",
    ),
    "no label allowed": ({"input_base": "{shop}", "splits": HASHED, "labels": []}, "labels"),
    "split stays empty": (
        {"input_base": "{shop}", "splits": {"train": 100000, "eval": 1}},
        "split 'eval' gets none",
    ),
    "splits in place of classes": (
        {"input_base": "{nested}", "splits": HASHED},
        "training and validation hold folders and no photos",
    ),
    "no span": (
        {"input_base": "{shop}", "splits": HASHED, "pattern": "span-{SPAN}/*/*"},
        "the spans in .* cannot be listed",
    ),
    "no shards": ({"input_base": "{shop}", "splits": HASHED, "shards": 0}, "shards"),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_a_source_that_cannot_be_meant_is_one_clear_error(
    name: str, shop: Path, tmp_path: Path, ingest: RunIngest
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    nested = tmp_path / "nested"
    shutil.copytree(shop, nested / "training")
    shutil.copytree(shop, nested / "validation")
    arguments, says = BAD_SOURCES[name]
    arguments = {
        **arguments,
        "input_base": arguments["input_base"].format(tmp=tmp_path, shop=shop, nested=nested),
    }
    with pytest.raises(UsageError, match=says):
        ingest(**arguments)


def fingerprint(**arguments: Any) -> str:
    """The fingerprint that the driver takes of the source."""
    from mlplatform.components import ImageExampleGen
    from mlplatform.components.image_example_gen.driver import Driver

    properties = dict(ImageExampleGen(**arguments).exec_properties)
    resolved = Driver(None).resolve_exec_properties(properties, None, None)
    return str(resolved["input_fingerprint"])


def test_photos_behind_a_linked_folder_are_seen(
    listed: Listed, tmp_path: Path, make_photo: Callable[..., bytes]
) -> None:
    base = listed([("a.jpg", "hat", "i0", "s")])
    for name in ("2025", "2026"):
        (tmp_path / "disk" / name).mkdir(parents=True)
        (tmp_path / "disk" / name / "b.jpg").write_bytes(make_photo(seed=int(name)))
    (base / "disk").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(base)  # a circle
    (tmp_path / "disk" / "latest").symlink_to("2025")
    source: dict[str, Any] = {"input_base": str(base), "listing": "listing.csv", "splits": HASHED}
    assert any(file.endswith("disk/2025/b.jpg") for file in all_below(str(base), root=None))
    confined = all_below(str(base), root=str(base))
    assert not any(file.endswith("b.jpg") for file in confined)
    assert f"{base}/disk -> {tmp_path}/disk" in confined
    source["follow_links"] = True
    seen = [fingerprint(**source), fingerprint(**source)]
    (tmp_path / "disk" / "2025" / "b.jpg").write_bytes(make_photo(seed=7))
    seen.append(fingerprint(**source))
    (tmp_path / "disk" / "latest").unlink()
    (tmp_path / "disk" / "latest").symlink_to("2026")
    seen.append(fingerprint(**source))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_folders_that_link_to_each_other_are_looked_into_once(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "log").touch()
    names = [f"f{number}" for number in range(9)]
    for name in names:
        (tmp_path / "shop" / name).mkdir(parents=True)
        (tmp_path / "shop" / name / "photo.jpg").touch()
        for other in names:
            (tmp_path / "shop" / name / f"to-{other}").symlink_to(tmp_path / "shop" / other)
    (tmp_path / "shop" / "up").symlink_to(tmp_path)
    found = all_below(str(tmp_path / "shop"), root=None)
    assert sum(name.endswith("photo.jpg") for name in found) == 9
    assert not any("beside" in name for name in found)


@pytest.fixture
def as_nobody(tmp_path: Path) -> Callable[[], AbstractContextManager[None]]:
    """Go on without the superuser's permissions for a while, where the tests have them."""

    @contextmanager
    def without() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        modes = {folder: folder.stat().st_mode for folder in (tmp_path, *tmp_path.parents[:-1])}
        try:
            for folder, mode in modes.items():
                folder.chmod(mode | (0o077 if folder == tmp_path else 0o011))
            os.seteuid(65534)
            yield
        finally:
            os.seteuid(0)
            for folder, mode in modes.items():
                folder.chmod(mode)

    return without


def test_a_class_folder_that_may_not_be_read_is_a_counted_reject(
    shop: Path, ingest: RunIngest, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    ingest(input_base=str(shop), splits=HASHED)  # loads what nobody may not read
    shutil.copytree(shop / "hat", shop / "attic")
    (shop / "attic").chmod(0)
    try:
        with as_nobody():
            done = ingest(input_base=str(shop), splits=HASHED, max_reject_fraction=0.1)
    finally:
        (shop / "attic").chmod(0o755)
    assert done.rejects == {"attic": "unreadable_file"}
    assert done.summary["entries"] == 13


def test_a_folder_beside_train_that_may_not_be_read_is_one_clear_error(
    shop: Path, tmp_path: Path, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    from mlplatform.components.image_example_gen.given_splits import given_splits

    for split in ("train", "validation"):
        shutil.copytree(shop, tmp_path / "divided" / split)
    (tmp_path / "divided" / "validation").chmod(0)
    try:
        with as_nobody(), pytest.raises(UsageError, match="validation cannot be read: Permission denied"):
            given_splits(tmp_path / "divided")
    finally:
        (tmp_path / "divided" / "validation").chmod(0o755)


PIPELINE = """
import sys
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from mlplatform.components import ImageExampleGen

base, root = sys.argv[1:]
def run():
    gen = ImageExampleGen(input_base=base, splits={"train": 2, "eval": 1}, pattern="span-{SPAN}/*/*")
    LocalDagRunner().run(pipeline.Pipeline("p", root, components=[gen], enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(root + "/m.db")))
"""
CHANGES = """
from pathlib import Path
run(); run()
Path(base, "span-2/hat/0.jpg").rename(Path(base, "span-2/shoe/moved.jpg")); run()
"""


@pytest.mark.e2e
def test_under_the_stock_runner_spans_work_and_a_moved_photo_is_seen(
    warm_python: Callable[..., Any], shop: Path, tmp_path: Path
) -> None:
    base, root = tmp_path / "base", tmp_path / "root"
    shutil.copytree(shop / "hat", base / "span-1" / "hat")
    shutil.copytree(shop, base / "span-2")
    done = warm_python("-c", PIPELINE + CHANGES, base, root)
    assert done.code == 0, done.err[-3000:]
    runs = sorted((root / "ImageExampleGen" / "rejects").iterdir(), key=lambda path: int(path.name))
    assert len(runs) == 2, "the second run is cached, the third is not"
    for run in runs:
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["entries"], sum(summary["accepted"].values())) == (12, 12)


def test_the_label_may_be_any_column_and_photos_without_it_are_left_out(
    listed: Listed, ingest: RunIngest
) -> None:
    """Half of the photos have no colour: no fault of the source, where they are to be left out."""
    rows = [(f"{n}.jpg", "hat", f"item-{n}", "s1") for n in range(8)]
    base = listed(rows)
    lines = ["path,label,item_id,color,also"]
    lines += [f"{p},{label},{i},{'red' if n % 2 else ''},{'pink' if n < 3 else ''}"
              for n, (p, label, i, _) in enumerate(rows)]  # fmt: skip
    (base / "listing.csv").write_text("\n".join(lines) + "\n", "utf-8")
    arguments = {
        "input_base": str(base),
        "listing": "listing.csv",
        "splits": {"train": 1},
        "label_feature": "color",
        "also_feature": "also",
    }
    found = ingest(**arguments, leave_out_unlabelled=True)
    examples = {example["item_id"]: example for example in found.examples["train"]}
    assert sorted(examples) == [b"item-1", b"item-3", b"item-5", b"item-7"]
    assert examples[b"item-1"]["color"] == [b"red", b"pink"]
    assert (examples[b"item-3"]["color"], examples[b"item-3"]["label"]) == (b"red", b"hat")
    assert set(found.rejects.values()) == {"unlabelled"}
    assert found.summary["entries"] == 8
    with pytest.raises(GateError, match="missing_label"):
        ingest(**arguments)
