"""Faulty indexes: each is refused for the right reason, and before native code reads it."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.search.errors import EmbeddingMismatchError, GoldenPhotoError, IndexDamagedError, NoIndexError
from mlplatform.search.index import SearchIndex, open_index

Manifest = dict[str, Any]
Spoil = Callable[[Path, Manifest], object]


@pytest.fixture(scope="module")
def good(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An approximate index where faiss is installed, else an exact one."""
    from mlplatform.search.build import BuildPlan, GoldenPhotos, Source, write_index

    vectors = samples.unit_vectors(900, clusters=12)
    try:
        import faiss  # noqa: F401

        kind = "ivf"
    except ModuleNotFoundError:
        kind = "exact"
    folder = tmp_path_factory.mktemp("good") / "index"
    entries = samples.entries_of(900, queries=400)
    golden = GoldenPhotos([b"one", b"two"], vectors[[3, 5]], ["item-000003", "item-000005"])
    source = Source(fingerprint=samples.FINGERPRINT, records=900)
    write_index(folder, vectors, entries, golden, source, BuildPlan(kind=kind, goal=0.5))
    return folder


def forged(folder: Path, change: Spoil) -> None:
    """Change an index and make its digests right again, as its maker would have written it."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    change(folder, manifest)
    for name in manifest["files"]:
        if (folder / name).is_file() and isinstance(manifest["files"][name], dict):
            data = (folder / name).read_bytes()
            manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    file.write_text(json.dumps(manifest))


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """Change an array of an index."""
    return lambda folder, _: np.save(folder / name, change(np.load(folder / name)))


def fact(key: str, value: object) -> Spoil:
    """Change what the manifest says."""
    return lambda _, manifest: manifest.__setitem__(key, value)


def _with(array: np.ndarray, place: int, value: float) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def _twice(folder: Path, _: Manifest) -> None:
    """The last item gets the id of the first, and its vector: the same entry twice."""
    rows, order = np.load(folder / "item_rows.npy"), np.load(folder / "id_order.npy")
    text, offsets = (folder / "item_ids.utf8").read_bytes(), np.load(folder / "id_offsets.npy")
    start, end = offsets[1:3]
    (folder / "item_ids.utf8").write_bytes(text[:start] + text[: offsets[1]] + text[end:])
    rows = rows.copy()
    rows[1:] -= 1
    rows[-1] = len(rows) - 2
    np.save(folder / "item_rows.npy", rows)
    np.save(folder / "id_order.npy", order)
    np.save(folder / "vectors.npy", np.load(folder / "vectors.npy")[:-1])


def _traversal(_: Path, manifest: Manifest) -> None:
    manifest["files"]["../../etc/passwd"] = manifest["files"]["vectors.npy"]


def _column_elsewhere(_: Path, manifest: Manifest) -> None:
    manifest["columns"]["label"]["file"] = "../vectors.npy"


FORGED: dict[str, tuple[Spoil, str]] = {
    "a later format": (fact("format_version", 2), "format version 2"),
    "another metric": (fact("metric", "euclidean"), "metric"),
    "no vectors in the list": (lambda _, m: m["files"].pop("vectors.npy"), "does not list vectors.npy"),
    "a path in the list of files": (_traversal, "passwd"),
    "a column elsewhere": (_column_elsewhere, "columns.label.file"),
    "a kind that there is not": (fact("kind", "magic"), "kind"),
    "a key that there is not": (fact("speed", 1), "unknown key 'speed'"),
    "half of the vectors": (array("vectors.npy", lambda a: a[: len(a) // 2]), r"\[450, 16\].*should be"),
    "vectors of another size": (array("vectors.npy", lambda a: a[:, :8]), r"\[900, 8\].*should be"),
    "not normalised": (array("vectors.npy", lambda a: a * 2), "length 2"),
    "NaN": (array("vectors.npy", lambda a: _with(a, 7, np.nan)), "row 7"),
    "infinity": (array("vectors.npy", lambda a: _with(a, 8, np.inf)), "row 8"),
    "float64": (array("vectors.npy", lambda a: a.astype(np.float64)), "float64"),
    "ids that are not divided": (array("id_offsets.npy", lambda a: _with(a, 5, 0)), "does not divide"),
    "ids in no order": (array("id_order.npy", lambda a: a[::-1].copy()), "order of the ids"),
    "an order with a gap": (array("id_order.npy", lambda a: _with(a, 4, 3)), "each entry once"),
    "an order beyond the end": (array("id_order.npy", lambda a: _with(a, 4, 900)), "there are not"),
    "rows that do not exist": (array("item_rows.npy", lambda a: _with(a, -1, 5000)), "each of the 900"),
    "codes without a text": (array("column-000.npy", lambda a: _with(a, 0, 9)), "does not have"),
    "pickled objects": (array("column-001.npy", lambda a: a.astype(object)), "is not an array"),
    "golden photos of another size": (
        lambda f, _: np.savez(
            f / "golden.npz", content=np.zeros(1, np.uint8), offsets=np.array([0, 1]),
            vectors=np.zeros((1, 3), np.float32), item_ids=np.array(["a"]),
        ),
        "no photos with vectors",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FORGED)
def test_an_index_that_cannot_be_one_is_refused(good: Path, tmp_path: Path, fault: str) -> None:
    change, said = FORGED[fault]
    folder = tmp_path / "index"
    shutil.copytree(good, folder)
    forged(folder, change)
    with pytest.raises(IndexDamagedError, match=said):
        open_index(folder).check_golden(lambda photos: np.zeros((len(photos), 16), np.float32))


def test_the_same_entry_twice_is_refused(samples: Any, make_index: Callable[..., SearchIndex]) -> None:
    folder = make_index(samples.unit_vectors(30)).folder

    def twice(where: Path, manifest: Manifest) -> None:
        _twice(where, manifest)
        manifest["rows"] = 29

    forged(folder, twice)
    with pytest.raises(IndexDamagedError, match="'item-000000' twice"):
        open_index(folder)


FLIPPED = ["vectors.npy", "item_ids.utf8", "id_offsets.npy", "item_rows.npy", "photos.npy", "golden.npz"]


@pytest.mark.parametrize("name", [*FLIPPED, "index.faiss", "column-000.npy", "column-000.json"])
@pytest.mark.parametrize("fault", ["flipped", "truncated", "missing", "link"])
def test_other_bytes_are_refused_before_anything_reads_them(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    folder = tmp_path / "index"
    shutil.copytree(good, folder)
    file = folder / name
    if not file.exists():
        pytest.skip("faiss is not installed")
    data = bytearray(file.read_bytes())
    if fault == "flipped":
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
    elif fault == "truncated":
        file.write_bytes(data[:-1])
    else:
        file.unlink()
        if fault == "link":
            file.symlink_to(good / name)
    # A reader that is called is an error here: neither NumPy nor faiss may see the file.
    monkeypatch.setattr(np, "load", None)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(IndexDamagedError, match=name.partition(".")[0]):
        open_index(folder)


def test_a_file_that_nobody_listed_is_refused(good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    shutil.copytree(good, folder)
    (folder / "more.npy").write_bytes(b"more")
    with pytest.raises(IndexDamagedError, match=r"more\.npy is not listed"):
        open_index(folder)
    with pytest.raises(NoIndexError):
        open_index(tmp_path)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(IndexDamagedError, match="not a JSON object"):
        open_index(folder)


def test_the_index_of_another_model_is_refused(samples: Any, good: Path) -> None:
    index = open_index(good)
    index.check_model(samples.FINGERPRINT)
    with pytest.raises(EmbeddingMismatchError) as error:
        index.check_model("cd" * 32)
    assert "abababababababab" in str(error.value)
    assert "cdcdcdcdcdcdcdcd" in str(error.value)


def test_a_model_that_computes_otherwise_is_refused_by_golden_photos(
    samples: Any, good: Path, tmp_path: Path
) -> None:
    index = open_index(good)
    vectors = samples.unit_vectors(900, clusters=12)[[3, 5]]
    index.check_golden(lambda _: vectors)
    # The same weights at another image size: near, but not the same.
    near = vectors + 0.2 * samples.unit_vectors(2, seed=9)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    with pytest.raises(GoldenPhotoError, match=r"cosine 0\.9"):
        index.check_golden(lambda _: near)
    with pytest.raises(GoldenPhotoError, match="length 2"):
        index.check_golden(lambda _: 2 * vectors)
    with pytest.raises(GoldenPhotoError, match=r"\[8\] numbers"):
        index.check_golden(lambda _: vectors[:, :8])
    # Ids that belong to other vectors.
    folder = tmp_path / "index"
    shutil.copytree(good, folder)

    def shuffled(where: Path, _: Manifest) -> None:
        ids = [f"item-{row:06d}" for row in np.roll(np.arange(900), 1)]
        (where / "item_ids.utf8").write_bytes("".join(ids).encode())
        np.save(where / "id_order.npy", np.argsort(ids).astype(np.int32))

    forged(folder, shuffled)
    with pytest.raises(GoldenPhotoError, match="is found first instead of 'item-000003'"):
        open_index(folder).check_golden(lambda _: vectors)
