"""Export: every type that tf.Examples hold, and one clear error where a column cannot be."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import MixedTypesError
from mlplatform.datasets.format.columns import columns
from mlplatform.datasets.format.tfrecord import SLACK_BYTES

Write = Callable[..., Path]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def field(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + varint(len(data)) + data


def floats(*values: float) -> bytes:
    return field(0x12, field(0x0A, struct.pack(f"<{len(values)}f", *values)))


def ints(*values: int) -> bytes:
    return field(0x1A, field(0x0A, b"".join(varint(value % 2**64) for value in values)))


def texts(*values: bytes) -> bytes:
    return field(0x0A, b"".join(field(0x0A, value) for value in values))


def example(**features: bytes) -> bytes:
    return field(
        0x0A,
        b"".join(
            field(0x0A, field(0x0A, name.encode()) + field(0x12, value)) for name, value in features.items()
        ),
    )


def exported(store: DatasetStore, folder: Path, version: str = "latest") -> "pa.Table":
    return pq.read_table(store.export("d", version, folder) / "train.parquet")


def test_types_that_change_from_pack_to_pack_get_one_column(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    first = [example(number=ints(1), text=texts(b"a"), late=texts(b"x"))]
    second = [example(number=floats(2.5), text=texts(b"\xff"), new=ints(-7)), example()]
    third = [example(late=texts(b"y", b"z"), new=b"")]
    for name, records in (("a", first), ("b", first + second), ("c", first + second + third)):
        store.commit("d", write_examples(tmp_path / name, {"train": [records]}))
    table = exported(store, tmp_path / "out")
    kinds = [str(kind).replace("element", "item") for kind in table.schema.types]  # pyarrow 10 and 18
    assert table.schema.names == ["late", "new", "number", "text"]
    assert kinds == ["list<item: string>", "list<item: int64>", "double", "binary"]
    assert sorted(table.to_pylist(), key=str) == sorted(
        [
            {"late": ["x"], "new": None, "number": 1.0, "text": b"a"},
            {"late": None, "new": [-7], "number": 2.5, "text": b"\xff"},
            {"late": None, "new": None, "number": None, "text": None},
            {"late": ["y", "z"], "new": [], "number": None, "text": None},
        ],
        key=str,
    )


@pytest.mark.parametrize("is_apart", [True, False], ids=["in two packs", "in one pack"])
def test_text_and_numbers_in_one_feature_are_refused_with_a_record_of_each(
    is_apart: bool, tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    one, other = example(price=ints(3)), example(price=texts(b"three"))
    if is_apart:
        store.commit("d", write_examples(tmp_path / "a", {"train": [[one]]}))
    store.commit("d", write_examples(tmp_path / "b", {"train": [[one, other]]}))
    with pytest.raises(
        MixedTypesError, match=r"feature 'price' of 'd' holds bytes \(in record [0-9a-f]{32}\)"
    ):
        store.export("d", "latest", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_integers_that_a_float_would_change_are_refused_and_others_become_floats(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[example(n=ints(2**24 + 1))]]}))
    store.commit(
        "d", write_examples(tmp_path / "b", {"train": [[example(n=ints(2**24 + 1)), example(n=floats(1))]]})
    )
    assert sorted(exported(store, tmp_path / "1")["n"].to_pylist()) == [1.0, 2**24 + 1]
    store.commit(
        "d", write_examples(tmp_path / "c", {"train": [[example(n=ints(2**60 + 1)), example(n=floats(1))]]})
    )
    with pytest.raises(MixedTypesError, match=r"float32 .* and large int64"):
        store.export("d", "latest", tmp_path / "2")


def test_records_without_features_and_empty_splits_are_exported(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[example(), example()]], "eval": [[]]}))
    folder = store.export("d", "v1", tmp_path / "out")
    assert pq.read_table(folder / "eval.parquet").num_rows == 0
    assert pq.ParquetFile(folder / "train.parquet").schema_arrow.names == []


SINGLE = st.one_of(
    st.lists(st.binary(max_size=300), max_size=3).map(lambda v: (texts(*v), "bytes", v)),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40).map(
        lambda v: (floats(*v), "float32", v)
    ),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40).map(lambda v: (ints(*v), "int64", v)),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(  # not packed
        lambda v: (field(0x1A, b"".join(b"\x08" + varint(n % 2**64) for n in v)), "int64", v)
    ),
    st.just((b"", "", [])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), SINGLE), min_size=1, max_size=20))
def test_columns_hold_what_the_records_say(records: list[dict[str, Any]]) -> None:
    import numpy as np

    payloads = [example(**{name: one[0] for name, one in record.items()}) for record in records]
    ends = np.cumsum([len(payload) for payload in payloads])
    buffer = np.frombuffer(b"".join(payloads) + bytes(SLACK_BYTES), np.uint8)
    found, is_plain = columns(buffer, ends - [len(payload) for payload in payloads], ends)
    assert is_plain.all()
    for name in "abc":
        wanted = {number: one for number, record in enumerate(records) if (one := record.get(name))}
        column = found.get(name)
        got: dict[int, Any] = {}
        if column is not None:
            got = {int(number): ("", []) for number in np.flatnonzero(column.is_empty)}
            for kind, part in column.parts.items():
                got.update(
                    (number, (kind, values))
                    for number, values in zip(part.records.tolist(), part.lists.to_pylist(), strict=True)
                )
        assert got == {number: (kind, values) for number, (_, kind, values) in wanted.items()}
