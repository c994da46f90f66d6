"""The pipeline's part before the training: what it says, and what it stops."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.demo.photos import make_photos
from mlplatform.errors import GateError
from mlplatform.orchestration.local import LocalRunner
from mlplatform.pipelines.item_category import create_pipeline

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("warm_start")]
Run = Callable[..., str]


@pytest.fixture
def run(runner: LocalRunner, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the pipeline up to a node, in one root folder; return what it said."""

    def run(data: Path, to: str, **settings: Any) -> str:
        pipeline = create_pipeline(data=str(data), root=str(tmp_path / "home"), **settings)
        runner.run(pipeline, to_nodes=[to])
        return capsys.readouterr().err

    return run


def photos(folder: Path, **how: Any) -> Path:
    make_photos(folder, categories=4, per_category=30, unseen=0, size_px=48, **how)
    return folder


def rewrite(listing: Path, change: Callable[[int, dict[str, str]], dict[str, str]]) -> None:
    rows = [
        change(number, row) for number, row in enumerate(csv.DictReader(listing.read_text().splitlines()))
    ]
    with listing.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.slow
def test_a_drifted_month_is_told_and_can_stop_the_run(run: Run, tmp_path: Path) -> None:
    june = run(photos(tmp_path / "june", seed=1), "DataValidator")
    assert "warning" not in june
    july = run(photos(tmp_path / "july", seed=2), "DataValidator")
    assert "drift" not in july
    dark = photos(tmp_path / "november", seed=3, faults=["drift"])
    told = run(dark, "DataValidator")
    assert "DataValidator: accepted, with" in told
    assert "drift of image/encoded:brightness" in told
    with pytest.raises(GateError, match="drift: image/encoded:brightness in train"):
        run(dark, "DataValidator", policy={"drift": "block"})


@pytest.mark.slow
def test_given_splits_are_kept_and_the_firewall_holds_between_them(run: Run, tmp_path: Path) -> None:
    data = photos(tmp_path / "shop")
    split = ("train", "train", "train", "validation")
    rewrite(data / "listing.csv", lambda number, row: {**row, "split": split[number % 4]})
    run(data, "DatasetVersioner")
    rewrite(data / "listing.csv", lambda number, row: {**row, "split": "train"} if number == 3 else row)
    with pytest.raises(GateError, match="split firewall") as refused:
        run(data, "DatasetVersioner")
    assert "item_id=item-1-00003" in str(refused.value)
    run(data, "DatasetVersioner", firewall=False)


def test_renamed_splits_reach_the_gate(run: Run, tmp_path: Path) -> None:
    run(photos(tmp_path / "shop"), "DataValidator", splits={"learn": 4, "judge": 1})


def test_photos_in_folders_are_named_by_their_paths(run: Run, tmp_path: Path) -> None:
    folder = photos(tmp_path / "shop", faults=["exact_duplicates"]) / "photos"
    copy = next(folder.rglob("*-copy.jpg"))
    with pytest.raises(GateError):
        run(folder, "DataValidator", policy={"duplicate": "block"})
    (verdict,) = (tmp_path / "home" / "reports").glob("*/DataValidator/verdict.json")
    assert f'"{copy.relative_to(folder)}"' in verdict.read_text()


def test_what_is_left_out_is_told(run: Run, tmp_path: Path) -> None:
    folder = photos(tmp_path / "shop", faults=["truncated"]) / "photos"
    label = next(path for path in folder.iterdir() if path.is_dir())
    Path(os.fsdecode(os.fsencode(label) + b"/\xe4.jpg")).write_bytes(next(label.iterdir()).read_bytes())
    done = run(folder, "ImageExampleGen")
    assert "ImageExampleGen: 118 accepted, 3 rejected (truncated 2, unreadable_name 1): " in done
    assert list((tmp_path / "home" / "reports").glob("*/ImageExampleGen/report.html"))
