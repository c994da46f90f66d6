"""The pipeline's part before the training, through the command line: what it says, and what it stops."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.demo.photos import make_photos

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the pipeline up to a node, in one root folder."""

    def run(data: Path, to: str, *settings: str) -> "subprocess.CompletedProcess[str]":
        words = ["run", "item_category", "--data", str(data), "--root", str(tmp_path / "home"), "--to", to]
        command = [sys.executable, "-m", "mlplatform.cli.main", *words]
        for setting in settings:
            command += ["--set", setting]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert "Traceback" not in done.stderr
        return done

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


def test_a_drifted_month_is_told_and_can_stop_the_run(run: Run, tmp_path: Path) -> None:
    june = run(photos(tmp_path / "june", seed=1), "DataValidator")
    assert june.returncode == 0, june.stderr
    assert "warning" not in june.stderr
    july = run(photos(tmp_path / "july", seed=2), "DataValidator")
    assert july.returncode == 0, july.stderr
    assert "drift" not in july.stderr
    dark = photos(tmp_path / "november", seed=3, faults=["drift"])
    told = run(dark, "DataValidator")
    assert told.returncode == 0, told.stderr
    assert "DataValidator: accepted, with" in told.stderr
    assert "drift of image/encoded:brightness" in told.stderr
    stopped = run(dark, "DataValidator", "policy.drift=block")
    assert stopped.returncode == 3, stopped.stderr
    assert "drift: image/encoded:brightness in train" in stopped.stderr


def test_given_splits_are_kept_and_the_firewall_holds_between_them(run: Run, tmp_path: Path) -> None:
    data = photos(tmp_path / "shop")
    split = ("train", "train", "train", "validation")
    rewrite(data / "listing.csv", lambda number, row: {**row, "split": split[number % 4]})
    first = run(data, "DatasetVersioner")
    assert first.returncode == 0, first.stderr
    rewrite(data / "listing.csv", lambda number, row: {**row, "split": "train"} if number == 3 else row)
    second = run(data, "DatasetVersioner")
    assert second.returncode == 3, second.stderr
    assert "split firewall" in second.stderr
    assert "item_id=item-1-00003" in second.stderr
    third = run(data, "DatasetVersioner", "firewall=false")
    assert third.returncode == 0, third.stderr


def test_renamed_splits_reach_the_gate(run: Run, tmp_path: Path) -> None:
    done = run(photos(tmp_path / "shop"), "DataValidator", "splits={learn: 4, judge: 1}")
    assert done.returncode == 0, done.stderr


def test_photos_in_folders_are_named_by_their_paths(run: Run, tmp_path: Path) -> None:
    folder = photos(tmp_path / "shop", faults=["exact_duplicates"]) / "photos"
    copy = next(folder.rglob("*-copy.jpg"))
    done = run(folder, "DataValidator", "policy.duplicate=block")
    assert done.returncode == 3, done.stderr
    (verdict,) = (tmp_path / "home" / "reports").glob("DataValidator-*/verdict.json")
    assert f'"{copy.relative_to(folder)}"' in verdict.read_text()


def test_what_is_left_out_is_told(run: Run, tmp_path: Path) -> None:
    folder = photos(tmp_path / "shop", faults=["truncated"]) / "photos"
    label = next(path for path in folder.iterdir() if path.is_dir())
    Path(os.fsdecode(os.fsencode(label) + b"/\xe4.jpg")).write_bytes(next(label.iterdir()).read_bytes())
    done = run(folder, "ImageExampleGen")
    assert done.returncode == 0, done.stderr
    assert "ImageExampleGen: 118 accepted, 3 rejected (truncated 2, unreadable_name 1): " in done.stderr
    assert list((tmp_path / "home" / "reports").glob("ImageExampleGen-*/report.html"))
