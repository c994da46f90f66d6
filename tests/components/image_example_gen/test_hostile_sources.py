"""Sources that hang, leave the folder, or break what reads them: named rejects, and the rest is ingested."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mlplatform.components.image_example_gen import listing
from mlplatform.components.image_example_gen.listing import check_listing, read_listing
from mlplatform.errors import GateError, UsageError

Ingest = Any  # conftest.Ingest
RunIngest = Callable[..., Ingest]
Listed = Callable[..., Path]
HASHED = {"train": 2, "eval": 1}


def details(done: Ingest) -> dict[str, str]:
    lines = (done.folder / "rejects" / "rejects.jsonl").read_text().splitlines()
    return {row["path"]: row["detail"] for row in map(json.loads, lines)}


def test_what_is_not_a_file_below_the_source_is_a_named_reject(
    shop: Path, ingest: RunIngest, tmp_path: Path, make_photo: Callable[..., bytes]
) -> None:
    (tmp_path / "secret.jpg").write_bytes(make_photo(seed=99))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.jpg").write_bytes(make_photo(seed=98))
    (shop / "hat" / "inside.jpg").symlink_to(shop / "shoe" / "0.jpg")
    os.mkfifo(shop / "hat" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(shop / "hat" / "socket.jpg"))
    (shop / "hat" / "out.jpg").symlink_to("../../secret.jpg")
    (shop / "hat" / "zero.jpg").symlink_to("/dev/zero")
    (shop / "hat" / "lost.jpg").symlink_to("nowhere.jpg")
    (shop / "hat" / "round.jpg").symlink_to("round.jpg")
    (shop / "bag").symlink_to(tmp_path / "elsewhere")
    done = ingest(input_base=str(shop), splits=HASHED, max_reject_fraction=0.9)
    assert done.rejects == {
        "bag/far.jpg": "outside_of_source",
        "hat/lost.jpg": "missing_file",
        "hat/out.jpg": "outside_of_source",
        "hat/pipe.jpg": "not_a_file",
        "hat/round.jpg": "unreadable_file",
        "hat/socket.jpg": "not_a_file",
        "hat/zero.jpg": "outside_of_source",
    }
    assert details(done)["hat/out.jpg"] == f"a link leads to {tmp_path / 'secret.jpg'}"
    assert details(done)["hat/pipe.jpg"] == "it is a pipe"
    assert sum(done.summary["accepted"].values()) == 13


def test_links_are_followed_where_that_is_asked_for_and_a_read_error_is_named(
    shop: Path, ingest: RunIngest, tmp_path: Path, make_photo: Callable[..., bytes]
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "far.jpg").write_bytes(make_photo(seed=98))
    (shop / "bag").symlink_to(tmp_path / "disk")
    (shop / "hat" / "zero.jpg").symlink_to("/dev/zero")
    (shop / "hat" / "broken-disk.jpg").symlink_to("/proc/self/mem")  # a regular file; reading it is EIO
    done = ingest(input_base=str(shop), splits=HASHED, max_reject_fraction=0.9, follow_links=True)
    assert done.rejects == {"hat/broken-disk.jpg": "unreadable_file", "hat/zero.jpg": "not_a_file"}
    assert details(done) == {"hat/broken-disk.jpg": "Input/output error", "hat/zero.jpg": "it is a device"}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_list_is_neither_a_label_nor_an_id(kind: str, listed: Listed, ingest: RunIngest) -> None:
    base = listed([(f"{n}.jpg", "hat", f"i{n}", "s") for n in range(12)])
    rows: list[dict[str, Any]] = [
        {"path": [f"{n}.jpg"], "label": ["hat"], "item_id": [f"i{n}"]} for n in range(12)
    ]
    if kind == "jsonl":  # where the other rows are as they should be
        rows = [{name: value[0] for name, value in row.items()} for row in rows]
        rows[3]["label"] = ["pants", "clothes"]
        rows[4]["item_id"] = {"shop": 1}
        rows[5]["path"] = ["5.jpg"]
        (base / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        done = ingest(input_base=str(base), listing="rows.jsonl", splits=HASHED, max_reject_fraction=0.5)
        assert done.summary["rejected"] == {"wrong_type": 3}
        assert details(done)["3.jpg"] == "its label is ['pants', 'clothes']; it has to be one value"
        labels = {example["label"] for split in done.examples.values() for example in split}
        assert labels == {b"hat"}
    else:
        table = pa.Table.from_pylist(
            [{**row, "path": row["path"][0], "item_id": n} for n, row in enumerate(rows)]
        )
        parquet.write_table(table, base / "rows.parquet")
        with pytest.raises(GateError, match=r"wrong_type \(its label is \['hat'\]; it has to be one value\)"):
            ingest(input_base=str(base), listing="rows.parquet", splits=HASHED)


def test_rows_of_json_that_are_deep_or_huge_are_named_rejects(
    listed: Listed, ingest: RunIngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LONGEST_LINE", 1 << 16)
    base = listed([(f"{n}.jpg", "hat", f"i{n}", "s") for n in range(12)])
    rows = [json.dumps({"path": f"{n}.jpg", "label": "hat", "size": n}) for n in range(12)]
    deep = [
        '{"path": "0.jpg", "label": "hat", "x": ' + "[" * depth + "]" * depth + "}"
        for depth in (100, 900, 30_000)
    ]
    huge = [
        '{"path": "' + "a" * (1 << 17) + '"}',
        '{"path": "0.jpg", "label": "hat", "size": ' + "9" * 5000 + "}",
    ]
    odd = [
        '{"path": "0.jpg", "label": "hat", "item_id": "far", "size": 1' + "0" * 400 + "}",
        '{"path": "a\\u0000b.jpg", "label": "hat"}',
        '{"path": "%s.jpg", "label": "hat"}' % ("n" * 5000),
        '{"path": "0.jpg", "label": "hat", "item_id": "own", "image/encoded": "x"}',
    ]
    (base / "rows.jsonl").write_text("\n".join([*rows, *deep, *huge, *odd]) + "\n")
    done = ingest(input_base=str(base), listing="rows.jsonl", splits=HASHED, max_reject_fraction=0.9)
    assert sum(done.summary["accepted"].values()) == 12
    assert done.summary["rejected"] == {
        "malformed_row": 6,
        "unreadable_file": 1,  # a name of 5,000 characters
        "unreadable_name": 1,
        "wrong_type": 1,
    }


def test_a_list_within_ninety_others_is_a_value(tmp_path: Path) -> None:
    row = '{"path": "0.jpg", "label": "hat", "x": ' + "[" * 90 + "]" * 90 + "}"
    (tmp_path / "rows.jsonl").write_text(row + "\n")
    ((_, found),) = read_listing(str(tmp_path / "rows.jsonl"))
    assert isinstance(found, dict)


def test_a_listing_may_have_very_many_columns(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(100_000)]  # compared each with each, this takes minutes
    (tmp_path / "wide.csv").write_text(
        ",".join(["path", "label", *names]) + "\n" + ",".join(["a.jpg", "hat", *"1" * len(names)]) + "\n"
    )
    found = check_listing(str(tmp_path / "wide.csv"), ("path", "label"))
    assert (found.rows, len(found.kinds)) == (1, 100_002)


def test_a_line_without_end_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LONGEST_LINE", 1 << 16)
    (tmp_path / "a.csv").write_bytes(b"path,label\n" + b"a.jpg,hat," * (1 << 16))
    with pytest.raises(UsageError, match="line has more than 65,536 characters"):
        list(read_listing(str(tmp_path / "a.csv")))


def test_a_pipe_for_a_listing_is_one_clear_error(shop: Path, ingest: RunIngest) -> None:
    os.mkfifo(shop / "listing.csv")
    with pytest.raises(UsageError, match="it is not a file"):
        ingest(input_base=str(shop), listing="listing.csv", splits=HASHED)


def test_a_parquet_file_that_crashes_its_reader_is_one_clear_error() -> None:
    file = Path(__file__).with_name("crashes_pyarrow_10.parquet")  # found by changing bytes at random
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        list(read_listing(str(file)))
