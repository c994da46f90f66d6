"""The acceptance figures of search on 3,409 real second-hand photos, asked through the pushed pair."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlplatform.vision.alterations import altered

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"
DEPTH = 10

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.soak,
    pytest.mark.shared_data,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"the development data {CLOTHING} is not there"),
]


def figures(models: Path) -> tuple[float, float]:
    """Class MAP at 10 of the validation photos, each itself left out; and altered photos' recall at 1."""
    from mlplatform.serving.local_search import open_search

    precision, hits = [], []
    with open_search(str(models), "image_search") as search:
        index, embed = search.searches.index, search.servable.signatures["embed_image_bytes"].run
        labels = np.array([index.columns["label"].at(entry) for entry in range(index.manifest.entries)])
        counts = dict(zip(*np.unique(labels, return_counts=True), strict=True))
        for file in sorted((CLOTHING / "validation").glob("*/*.jpg")):
            photo = file.read_bytes()
            photos = np.array([photo, *altered(photo)], np.object_)
            vectors = embed({"image_bytes": photos})["embedding"]
            first = index.search(vectors[0], DEPTH + 1).item_ids
            own, others = first[0], first[1:]
            found = np.array([index.attributes(name)["label"] == file.parent.name for name in others])
            gained = (np.cumsum(found) / np.arange(1, DEPTH + 1) * found).sum()
            precision.append(gained / min(DEPTH, counts[file.parent.name] - 1))
            hits += [index.search(vector, 1).item_ids[0] == own for vector in vectors[1:]]
    return float(np.mean(precision)), float(np.mean(hits))


def test_real_photos_find_their_class_and_the_very_item(
    mlplatform: Callable[..., "Finished"],  # noqa: F821 - see tests/conftest.py
    tmp_path: Path,
) -> None:
    root = tmp_path / "home"
    done = mlplatform("run", "image_search", "--data", CLOTHING, "--root", root, timeout_s=1700)
    assert done.code == 0, done.err
    class_map, same_item = figures(root / "models")
    print(f"\nclass MAP at 10 {class_map:.4f}, altered photos that find the original first {same_item:.4f}")
    assert class_map >= 0.75
    assert same_item >= 0.90
