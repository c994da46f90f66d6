"""The item-color pipeline from a folder with a listing to a pushed model that answers, on few photos."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mlplatform.demo.photos import make_photos
from mlplatform.orchestration.local import LocalRunner
from mlplatform.pipelines.item_color import create_pipeline

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

QUICK = {
    "model": {"image_size": 64, "epochs": 20, "drawn_photos": 28},
    "thresholds": dict.fromkeys(("top_1", "top_2", "lenient_top_1", "balanced_recall"), 0.0)
    | {"gain_over_rules": -1.0},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of a shop; some have no colour in the listing, and some a second one."""
    folder = tmp_path_factory.mktemp("shop") / "photos"
    make_photos(folder, categories=4, per_category=30, unseen=4, size_px=64)
    with (folder / "listing.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    for number, row in enumerate(rows):
        row["color"] = "" if number % 10 == 0 else row["color"]
        row["also"] = "grey" if number % 4 == 1 else ""
    with (folder / "listing.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_a_folder_with_a_listing_becomes_a_pushed_model_of_colours(
    shop: Path, runner: LocalRunner, tmp_path: Path
) -> None:
    import tensorflow as tf

    home = tmp_path / "home"
    runner.run(create_pipeline(data=str(shop), root=str(home), **QUICK))
    summary = json.loads(next(home.glob("pipelines/**/rejects/**/summary.json")).read_text("utf-8"))
    assert summary["rejected"] == {"unlabelled": 12}
    model = tf.saved_model.load(str(home / "models" / "item_color" / "1"))
    photos = [path.read_bytes() for path in sorted((shop / "unseen").glob("*.jpg"))]
    found = {k: v.numpy() for k, v in model.signatures["image_bytes"](tf.constant(photos)).items()}
    assert set(found) == {"scores", "classes", "palette_rgb", "palette_share", "answer"}
    assert found["scores"].shape == found["classes"].shape == (4, 10)
    assert (found["palette_rgb"].shape, found["palette_rgb"].dtype) == ((4, 3, 3), np.float32)
    assert found["palette_rgb"].min() >= 0
    assert found["palette_rgb"].max() <= 255
    np.testing.assert_allclose(found["palette_share"].sum(axis=1), 1, atol=1e-3)
    is_sure = found["scores"][:, 0] >= 0.6
    np.testing.assert_array_equal(found["answer"] == b"", ~is_sure)
    metrics = json.loads(next(home.glob("pipelines/**/evaluation/**/metrics.json")).read_text("utf-8"))
    text = json.dumps(metrics)
    for figure in ("lenient_top_1", "top_2", "coverage", "gain_over_rules"):
        assert figure in text
