"""The image-search pipeline from photos to a pushed pair that answers, and again with one photo more."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.orchestration.local import LocalRunner
from mlplatform.pipelines.image_search import create_pipeline
from mlplatform.search.fingerprint import INDEX_FOLDER
from mlplatform.search.index import open_index

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def settings(quick: dict[str, dict[str, object]]) -> dict[str, Any]:
    return {
        "model": {
            "backbone": quick["model"]["backbone"],
            "image_size": 32,
            "epochs": 2,
            "dimensions": 16,
            "head_dimensions": 8,
            "component_dimensions": 24,
        },
        "thresholds": {"map_at_10": 0.0, "same_item": 0.0},
        "policy": {"drift": "warn", "leak": "warn"},
    }


def verdict(home: Path, number: int) -> Any:
    """The verdict of the index that was built in the given run, from 0."""
    found = sorted(home.glob("reports/*/IndexBuilder/verdict.json"), key=lambda file: file.stat().st_mtime_ns)
    return json.loads(found[number].read_text())


@pytest.fixture(scope="module")
def shop(
    photos: Path,
    quick: dict[str, dict[str, object]],
    runner: LocalRunner,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Photos, and a root in which the pipeline ran once."""
    folder = tmp_path_factory.mktemp("shop")
    shutil.copytree(photos, folder / "photos", ignore=shutil.ignore_patterns("unseen"))
    data, root = str(folder / "photos"), str(folder / "home")
    runner.run(create_pipeline(data=data, root=root, **settings(quick)))
    return folder


def test_photos_become_a_pair_of_model_and_index(photos: Path, shop: Path, tmp_path: Path) -> None:
    home = shop / "home"
    first = home / "models" / "image_search" / "1"
    index = open_index(first / INDEX_FOLDER)
    records = verdict(home, 0)["records"]
    assert records["records"] == records["embedded"] == 120
    assert records["indexed"] + records["duplicates"] == 120
    assert index.manifest.entries == 120
    assert index.manifest.dataset == "search_items@v1"
    assert {"label"} <= set(index.columns)

    from mlplatform.serving.local_search import open_search, write_answers

    unseen = sorted((photos / "unseen").glob("*.jpg"))[:2]
    with open_search(str(home / "models"), "image_search") as search:
        answers = [(str(file), search.nearest(file.read_bytes(), 5)) for file in unseen]
        page = write_answers(tmp_path / "page.html", "image_search", answers, search, str(home / "datasets"))
    assert [len(items) for _, items in answers] == [5, 5]
    assert page.read_text().count("data:image/jpeg") == 2 + 10
    assert all(item["label"] for _, items in answers for item in items)


@pytest.mark.soak
def test_an_unchanged_run_is_a_cache_hit_without_tensorflow(
    shop: Path, quick: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(settings(quick)))  # JSON is YAML
    words = ["run", "image_search", "--data", shop / "photos", "--root", shop / "home", "--config", config]
    command = [sys.executable, "-X", "importtime", "-m", "mlplatform.cli.main", *map(str, words)]
    for turn in ("compiled", "unchanged"):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, (turn, done.stdout)
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {"tensorflow", "tfx", "apache_beam", "faiss"}
    assert "nothing changed since run" in done.stderr
    assert [version.name for version in (shop / "home" / "models" / "image_search").glob("[0-9]*")] == ["1"]


@pytest.mark.soak
def test_new_photos_alone_are_embedded(
    photos: Path, shop: Path, quick: dict[str, dict[str, object]], runner: LocalRunner
) -> None:
    """One photo more: the embedder that is pushed stays, and embeds that one alone."""
    data, home = shop / "photos", shop / "home"
    index = open_index(home / "models" / "image_search" / "1" / INDEX_FOLDER)
    unseen = sorted((photos / "unseen").glob("*.jpg"))
    shutil.copy(unseen[0], data / "photos" / "extra.jpg")
    with (data / "listing.csv").open(encoding="utf-8") as lines:
        row = next(csv.DictReader(lines))
    with (data / "listing.csv").open("a", encoding="utf-8", newline="") as file:
        new = row | {"path": "photos/extra.jpg", "item_id": "extra"}
        csv.DictWriter(file, [*row], lineterminator="\n").writerow(new)
    runner.run(create_pipeline(data=str(data), root=str(home), **settings(quick)))
    second = open_index(home / "models" / "image_search" / "2" / INDEX_FOLDER)
    assert verdict(home, 1)["records"]["embedded"] == 1
    assert second.manifest.fingerprint == index.manifest.fingerprint
    assert second.manifest.entries == 121
    assert second.ids.entries("extra")
    name = index.ids[0]
    np.testing.assert_allclose(second.vector(name), index.vector(name), atol=2e-3)
