"""The index: what is written is found again, under filters, with duplicates, whatever the vectors are."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.search.build import GoldenPhotos, IndexEntry, Source, write_index
from mlplatform.search.errors import (
    FilterError,
    ItemNotFoundError,
    TooFewQueriesError,
    UnindexableVectorError,
)
from mlplatform.search.filters import parse_filter
from mlplatform.search.index import SearchIndex, open_index

Make = Callable[..., SearchIndex]


def test_an_exact_index_finds_what_a_full_comparison_finds(samples: Any, make_index: Make) -> None:
    vectors = samples.unit_vectors(300)
    index = make_index(vectors)
    stored = vectors.astype(np.float16).astype(np.float32)
    for query in samples.unit_vectors(20, seed=1):
        found = index.search(query, 7)
        wanted = np.argsort(-(stored @ query), kind="stable")[:7]
        assert found.item_ids == [f"item-{row:06d}" for row in wanted]
        np.testing.assert_allclose(found.scores, (stored @ query)[wanted], atol=1e-6)


def test_filters_leave_what_passes_and_never_fewer_than_there_are(samples: Any, make_index: Make) -> None:
    vectors = samples.unit_vectors(200)
    index = make_index(vectors)
    query = samples.unit_vectors(1, seed=2)[0]
    wanted = [row for row in np.argsort(-(vectors @ query)) if row % 2 and row * 10 <= 300]
    found = index.search(query, 50, parse_filter('{"label": ["odd"], "price": [null, 300]}'))
    assert sorted(found.item_ids) == sorted(f"item-{row:06d}" for row in wanted)
    first = found.item_ids[0]
    again = index.search(query, 50, parse_filter(json.dumps({"label": "odd", "not": [first]})))
    assert first not in again.item_ids
    assert len(again.item_ids) == 50
    assert index.search(query, 3, parse_filter('{"price": 70}')).item_ids == ["item-000007"]
    assert index.search(query, 3, parse_filter('{"price": "70"}')).item_ids == ["item-000007"]
    assert index.search(query, 3, parse_filter('{"label": ["neither"]}')).item_ids == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"colour": ["red"]}', "no column 'colour'; it has label, price"),
        ('{"label": [1]}', "holds texts"),
        ('{"price": ["dear"]}', "holds numbers"),
        ('{"price": [true]}', "holds numbers"),
        ('{"not": "item"}', "list of item ids"),
        ('{"label": {"a": 1}}', "takes a value or a list"),
        ('{"label": []}', "takes a value or a list"),
        ("[" * 5000, "not JSON"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_an_error(
    samples: Any, make_index: Make, text: str, said: str
) -> None:
    index = make_index(samples.unit_vectors(20))
    with pytest.raises(FilterError, match=said):
        index.search(samples.unit_vectors(1)[0], 3, parse_filter(text))


def test_photos_of_one_item_count_once_and_items_of_one_photo_are_all_found(
    samples: Any, make_index: Make
) -> None:
    vectors = samples.unit_vectors(40)
    entries = samples.entries_of(40)
    entries += [IndexEntry("twin", 3, b"p" * 16, {"label": "even"}), IndexEntry("item-000003", 9, b"q" * 16)]
    index = make_index(vectors, entries)
    found = index.search(vectors[3], 40)
    assert found.item_ids[:2] == ["item-000003", "twin"]  # the same score: by id
    assert len(set(found.item_ids)) == len(found.item_ids) == 40
    assert "twin" not in index.search(vectors[3], 5, parse_filter('{"label": "odd"}')).item_ids
    assert index.search(vectors[3], 1, parse_filter('{"label": "even"}')).item_ids == ["twin"]
    np.testing.assert_allclose(index.vector("twin"), vectors[3], atol=1e-3)
    with pytest.raises(ItemNotFoundError, match="nobody"):
        index.vector("nobody")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_is_written_is_read_again(
    samples: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    rows = data.draw(st.integers(1, 12))
    vectors = samples.unit_vectors(rows, 4, seed=data.draw(st.integers(0, 99)))
    texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
    ids = data.draw(st.lists(texts, min_size=rows, max_size=rows + 5, unique=True))
    values = st.one_of(st.none(), texts, st.integers(-(2**40), 2**40), st.floats(allow_nan=False, width=32))
    columns = st.dictionaries(texts, values, max_size=3)
    entries = [
        IndexEntry(item, min(n, rows - 1), bytes([n] * 16), data.draw(columns)) for n, item in enumerate(ids)
    ]
    folder = tmp_path_factory.mktemp("written") / "index"
    golden = GoldenPhotos([b"a", b""], vectors[[0, 0]], [ids[0], ids[0]])
    write_index(folder, vectors, entries, golden, Source(fingerprint=samples.FINGERPRINT, records=len(ids)))
    index = open_index(folder)
    for number, entry in enumerate(entries):
        assert index.ids.entries(entry.item_id) != []
        answer = index.search(vectors[entry.row], rows + 5)
        assert entry.item_id in answer.item_ids, number
        assert answer.scores == sorted(answer.scores, reverse=True)
        found = index.attributes(entry.item_id)
        for name, value in entry.columns.items():
            if isinstance(value, str):
                assert found[name] == value
    assert sorted(index.search(vectors[0], 100).item_ids) == sorted(ids)


def test_vectors_that_cannot_be_searched_are_not_written(samples: Any, make_index: Make) -> None:
    vectors = samples.unit_vectors(10)
    vectors[4] = np.nan
    with pytest.raises(UnindexableVectorError, match="vector 4"):
        make_index(vectors)
    with pytest.raises(UnindexableVectorError, match="length 2"):
        make_index(2 * samples.unit_vectors(10))


def test_an_approximate_index_needs_queries_to_be_judged_by(samples: Any, make_index: Make) -> None:
    with pytest.raises(TooFewQueriesError, match="at least 200"):
        make_index(samples.unit_vectors(500), samples.entries_of(500, queries=10), kind="ivf")


@pytest.mark.parametrize("kind", ["ivf", "pq"])
def test_an_approximate_index_is_tuned_to_the_goal_and_reports_on_other_queries(
    samples: Any, make_index: Make, kind: str
) -> None:
    pytest.importorskip("faiss")
    made = samples.unit_vectors(6030, 32, clusters=60)
    vectors, queries = made[:6000], made[6000:]
    index = make_index(vectors, samples.entries_of(6000, queries=400), kind=kind, goal=0.95)
    report = index.manifest.report
    assert index.manifest.kind == kind
    assert report["queries"] == 200
    assert report["tuning"][-1]["recall_at_10"] >= 0.95
    assert report["recall_at_10"] >= 0.93
    assert report["recall_at_10_low"] <= report["recall_at_10"]
    exact = make_index(vectors, name="exact")
    hits = []
    for query in queries:
        hits.append(len({*index.search(query, 10).item_ids} & {*exact.search(query, 10).item_ids}))
        # A small subset is scanned as a whole.
        few = parse_filter('{"price": [0, 2000]}')
        assert index.search(query, 10, few) == exact.search(query, 10, few)
    assert np.mean(hits) >= 8.5


def test_a_large_subset_is_searched_with_a_wider_probe(
    samples: Any, make_index: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr("mlplatform.search.engines.SCANNED_UP_TO", 50)
    made = samples.unit_vectors(4020, 16, clusters=40)
    vectors, queries = made[:4000], made[4000:]
    index = make_index(vectors, samples.entries_of(4000, queries=300), kind="ivf", goal=0.9)
    exact = make_index(vectors, name="exact")
    odd = parse_filter('{"label": "odd"}')
    shares = []
    for query in queries:
        found, wanted = index.search(query, 10, odd), exact.search(query, 10, odd)
        assert len(found.item_ids) == 10
        assert all(int(item[5:]) % 2 for item in found.item_ids)
        shares.append(len({*found.item_ids} & {*wanted.item_ids}) / 10)
    assert np.mean(shares) >= 0.9
    few = parse_filter('{"price": [0, 600]}')  # 61 rows, more than are scanned here
    assert sorted(index.search(query, 61, few).item_ids) == sorted(exact.search(query, 61, few).item_ids)


def test_a_subset_that_lies_together_is_found_from_afar(
    samples: Any, make_index: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr("mlplatform.search.engines.SCANNED_UP_TO", 50)
    monkeypatch.setattr("mlplatform.search.engines._LEAST_SEEN", 150)
    made = samples.unit_vectors(4060, 16, clusters=40)
    vectors, queries = made[:4000], made[4000:]
    index = make_index(vectors, samples.entries_of(4000, queries=300), kind="ivf", goal=0.9)
    exact = make_index(vectors, name="exact")
    allowed = np.zeros(4000, np.bool_)
    allowed[np.argsort(-(vectors @ vectors[0]))[:400]] = True
    shares = []
    for query in queries:
        found, wanted = (one.engine.nearest(query, 10, allowed)[0] for one in (index, exact))
        shares.append(len({*found} & {*wanted}) / 10)
    assert np.mean(shares) >= 0.98  # 0.92 of those in the cells nearest to the query
