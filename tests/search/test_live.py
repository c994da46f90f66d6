"""Items that are added and removed beside an index."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.search.errors import SegmentDamagedError
from mlplatform.search.filters import parse_filter
from mlplatform.search.index import SearchIndex
from mlplatform.search.live import Follower
from mlplatform.search.segments import Segment, Segments

Make = Callable[..., SearchIndex]


def followed(index: SearchIndex, segments: Segments, **more: Any) -> Follower:
    return Follower(segments, index.manifest.segment, index.manifest.fingerprint, index.columns, **more)


def test_what_is_added_is_found_and_what_is_removed_is_not(
    samples: Any, make_index: Make, tmp_path: Path
) -> None:
    index = make_index(samples.unit_vectors(50))
    segments = Segments(str(tmp_path / "model"))
    follower = followed(index, segments)
    new = samples.unit_vectors(2, seed=8)
    assert index.search(new[0], 50, live=follower.now()).item_ids[0] != "new"
    added = Segment(samples.FINGERPRINT, ["new"], new[:1], [b"photo"], {"label": ["odd"], "price": [7]})
    assert segments.append(added) == 1
    assert index.search(new[0], 3, live=follower.now()).item_ids[0] == "new"
    assert index.search(new[0], 3, parse_filter('{"price": 7, "label": "odd"}'), follower.now()).item_ids == [
        "new"
    ]
    assert "new" not in index.search(new[0], 60, parse_filter('{"label": "even"}'), follower.now()).item_ids
    # Added anew with another photo: the old vector no longer counts, in the index and beside it.
    segments.append(Segment(samples.FINGERPRINT, ["new", "item-000004"], new[[1, 1]], [b"p", b"q"]))
    found = index.search(new[1], 60, live=follower.now())
    assert found.item_ids[:2] == ["item-000004", "new"]
    assert len(found.item_ids) == len({*found.item_ids}) == 51
    segments.append(Segment("", ["new", "item-000004", "item-000007", "nobody"], is_removal=True))
    found = index.search(new[1], 60, live=follower.now())
    assert sorted(found.item_ids) == [f"item-{row:06d}" for row in range(50) if row not in (4, 7)]
    assert len(index.search(new[1], 48, live=follower.now()).item_ids) == 48


def test_photos_that_another_model_embedded_are_embedded_anew(
    samples: Any, make_index: Make, tmp_path: Path
) -> None:
    index, segments = make_index(samples.unit_vectors(20)), Segments(str(tmp_path / "model"))
    vector = samples.unit_vectors(1, seed=4)
    segments.append(Segment("cd" * 32, ["other"], samples.unit_vectors(1, 8), [b"its photo"]))
    without = followed(index, segments).now()
    assert "other" not in index.search(vector[0], 30, live=without).item_ids
    asked: list[bytes] = []

    def embed(photos: Any) -> np.ndarray:
        asked.extend(photos)
        return vector

    live = followed(index, segments, embed=embed).now()
    assert index.search(vector[0], 1, live=live).item_ids == ["other"]
    assert asked == [b"its photo"]


def test_an_index_begins_after_the_segments_that_it_contains(
    samples: Any, make_index: Make, tmp_path: Path
) -> None:
    index, segments = make_index(samples.unit_vectors(20)), Segments(str(tmp_path / "model"))
    for number in range(3):
        segments.append(Segment("", [f"item-{number:06d}"], is_removal=True))
    live = Follower(segments, 2, samples.FINGERPRINT, index.columns).now()
    assert live.hides == {"item-000002"}
    assert live.segment == 3


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    url = str(tmp_path / "model")

    def write(writer: int) -> None:
        for number in range(10):
            Segments(url).append(Segment("", [f"{writer}-{number}"], is_removal=True))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    segments = Segments(url)
    names = [name for n in range(1, 41) if (s := segments.read(n)) is not None for name in s.item_ids]
    assert sorted(names) == sorted(f"{w}-{n}" for w in range(4) for n in range(10))
    assert segments.newest() == 40
    assert segments.read(41) is None


def test_a_writer_that_is_killed_loses_nothing_that_it_said_and_leaves_nothing_half(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from mlplatform.search.segments import Segment, Segments\n"
        "segments = Segments(sys.argv[1])\n"
        "for number in range(100000):\n"
        "    print(segments.append(Segment('', [f'item-{number}'], is_removal=True)), flush=True)\n"
    )
    url, said = str(tmp_path / "model"), 0
    for kill_after in (1, 2, 5):
        writer = subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(kill_after)]
        writer.kill()
        lines += writer.stdout.readlines()
        writer.wait()
        writer.stdout.close()
        said = max(int(line) for line in lines if line.endswith("\n"))
        segments = Segments(url)
        assert segments.newest() >= said
        assert all(segments.read(number) is not None for number in range(1, segments.newest() + 1))
    assert said >= 8


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(TEXT, st.binary(max_size=20), st.none() | TEXT | st.integers()), min_size=1, max_size=5
    )
)
def test_a_segment_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[str, bytes, Any]]
) -> None:
    segments = Segments(str(tmp_path_factory.mktemp("segments")))
    vectors = np.arange(3 * len(items), dtype=np.float32).reshape(-1, 3)
    names = [name for name, _, _ in items]
    columns = {"column": [value for _, _, value in items]}
    segments.append(Segment("ab", names, vectors, [photo for _, photo, _ in items], columns))
    found = segments.read(1)
    assert found is not None
    assert (found.item_ids, found.columns, found.is_removal) == (names, columns, False)
    assert found.photos == [photo for _, photo, _ in items]
    np.testing.assert_array_equal(found.vectors, vectors)
    file = Path(segments.url) / "000000000001.npz"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(SegmentDamagedError, match="000000000001"):
        segments.read(1)
