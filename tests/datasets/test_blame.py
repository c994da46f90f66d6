"""blame finds the same records by the hashes that commits kept and by the bytes of the key."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.datasets import DatasetStore

Write = Callable[..., Path]
Make = Callable[..., bytes]


@pytest.mark.parametrize("gz", [False, True])
def test_kept_hashes_and_bytes_say_the_same(
    gz: bool, tmp_path: Path, write_examples: Write, make_example: Make, store: DatasetStore
) -> None:
    rows = [make_example({"id": f"i{n}", "number": n % 7, "shop": "a" if n % 2 else "b"}) for n in range(200)]
    first = {"train": [rows[:60], rows[60:120]], "eval": [rows[120:]]}
    store.commit("d", write_examples(tmp_path / "a", first, gz), key=["shop", "number"])
    again = {
        "train": [[*rows[:90], make_example({"number": 3, "shop": "a", "more": 1})]],
        "eval": [rows[150:]],
    }
    store.commit("d", write_examples(tmp_path / "b", again, gz))
    kept = Path(store.url) / "d" / "keys"
    assert list(kept.iterdir())
    for values in (("a", "3"), ("b", "0"), ("c", "1")):
        by_hash = store.blame("d", values)
        for path in kept.iterdir():
            path.rename(tmp_path / path.name)
        by_bytes = store.blame("d", values)
        assert not list(kept.iterdir()), "who reads writes nothing"
        for path in tmp_path.glob("*.keys"):
            path.rename(kept / path.name)
        assert by_hash == by_bytes
        assert bool(by_hash.records) == (values[0] != "c")
    assert store.blame("d", "3", key=["number"]).versions == ["v1", "v2"]
    assert len(store.blame("d", "3", key=["number"]).records) == sum(n % 7 == 3 for n in range(200)) + 1


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.sampled_from(["a", "b", "ab", "aa", "7", ""]), min_size=1, max_size=8),
    st.sampled_from(["a", "aa", "7", "", "none"]),
)
def test_blame_finds_exactly_the_records_of_the_item(
    tmp_path_factory: pytest.TempPathFactory,
    write_examples: Write,
    make_example: Make,
    keys: list[str],
    asked: str,
) -> None:
    folder = tmp_path_factory.mktemp("blame")
    store = DatasetStore(folder / "store")
    rows = [make_example({"id": key, "trap": asked, "n": n}) for n, key in enumerate(keys)]
    store.commit("d", write_examples(folder / "in", {"train": [rows]}))
    assert len(store.blame("d", asked, key=["id"]).records) == keys.count(asked)
