"""The acceptance figures on 3,409 real second-hand photos: quality, time, and the same answers over REST."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.demo.trip import ask, serving

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.soak,
    pytest.mark.shared_data,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"the development data {CLOTHING} is not there"),
]


def test_real_photos_are_told_apart_in_time_and_the_server_gives_the_same_figures(
    mlplatform: Callable[..., "Finished"],  # noqa: F821 - see tests/conftest.py
    tmp_path: Path,
) -> None:
    root = tmp_path / "home"
    started = time.monotonic()
    done = mlplatform("run", "item_category", "--data", CLOTHING, "--root", root, timeout_s=1000)
    seconds = time.monotonic() - started
    assert done.code == 0, done.err

    (verdict,) = (json.loads(file.read_text()) for file in root.glob("reports/*/ModelValidator/verdict.json"))
    quality = verdict["quality"]
    photos = sorted((CLOTHING / "validation").glob("*/*.jpg"))
    assert quality["records"] == len(photos) == 341

    with serving(root, tmp_path / "server.log") as port:
        answers = [ask(port, "item_category", photo.read_bytes())[0] for photo in photos]
    truths = [photo.parent.name for photo in photos]
    top_1 = sum(a[0] == t for a, t in zip(answers, truths, strict=True)) / len(photos)
    top_3 = sum(t in a[:3] for a, t in zip(answers, truths, strict=True)) / len(photos)
    print(f"\n{seconds:.0f} s from ingest to push; top-1 {top_1:.4f}, top-3 {top_3:.4f} over REST")
    assert top_1 == pytest.approx(quality["top_1"]["value"], abs=1e-9)
    assert top_3 == pytest.approx(quality["top_3"]["value"], abs=1e-9)
    assert top_1 >= 0.86
    assert top_3 >= 0.96
    assert seconds <= 480
