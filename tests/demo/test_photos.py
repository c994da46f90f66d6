"""Demo photos: the same every time, hard for a linear model, easy for the default one, faulty on request."""

import csv
import hashlib
import io
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from mlplatform.datasets.duplicates import alike, photo_hash
from mlplatform.demo.photos import FAULTS, FolderNotEmptyError, make_photos
from mlplatform.demo.photos.catalogue import CATEGORIES, COLOURS
from mlplatform.demo.photos.colored import colored_photos
from mlplatform.errors import UsageError

TINY = {"categories": 3, "per_category": 4, "unseen": 3, "size_px": 40}


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of all categories that the demo takes, at its size, without faults."""
    folder = tmp_path_factory.mktemp("clean") / "photos"
    make_photos(folder, per_category=30, unseen=24)
    return folder


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("faulty") / "photos"
    made = make_photos(folder, categories=6, per_category=25, size_px=40, faults=FAULTS[:-1])
    return folder, made


def test_the_catalogue_is_wide_enough() -> None:
    assert len(CATEGORIES) >= 24
    assert len(COLOURS) >= 12


def test_a_listing_names_every_photo_and_no_unseen_one(clean: Path) -> None:
    listed, unseen = rows(clean / "listing.csv"), rows(clean / "unseen.csv")
    assert list(listed[0]) == ["path", "item_id", "seller_id", "label", "color"]
    assert {row["path"] for row in listed} == {
        path.relative_to(clean).as_posix() for path in (clean / "photos").rglob("*.jpg")
    }
    assert len(listed) == 24 * 30
    assert len({row["item_id"] for row in listed}) == len(listed)
    assert {row["color"] for row in listed} == set(COLOURS)
    assert len({row["seller_id"] for row in listed}) > 20
    assert [row["label"] for row in unseen] == list(CATEGORIES)[:24]
    shown = {hashlib.sha256((clean / row["path"]).read_bytes()).digest() for row in listed}
    assert not shown & {hashlib.sha256((clean / row["path"]).read_bytes()).digest() for row in unseen}


def test_the_same_seed_draws_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        make_photos(tmp_path / name, **TINY, seed=seed, faults=["truncated", "exact_duplicates"])
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert set(digests(tmp_path / "a").values()).isdisjoint(digests(tmp_path / "c").values())


def test_photos_do_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    make_photos(tmp_path / "few", **TINY)
    make_photos(tmp_path / "more", **{**TINY, "unseen": 6})
    few, more = digests(tmp_path / "few"), digests(tmp_path / "more")
    assert {name: digest for name, digest in few.items() if name.endswith(".jpg")}.items() <= more.items()


def test_each_fault_is_put_in_and_told(faulty: tuple[Path, dict[str, Any]]) -> None:
    folder, made = faulty
    planted = {row["path"]: row["fault"] for row in rows(folder / "faults.csv")}
    assert len(planted) == sum(made["faults"].values())
    assert len(made["faults"]) == len(FAULTS) - 1
    assert all(count >= 2 for name, count in made["faults"].items() if name != "empty_folder")
    listed = {row["path"]: row for row in rows(folder / "listing.csv")}
    for path, fault in planted.items():
        file = folder / path
        if fault == "truncated":
            with pytest.raises(OSError, match=r"(?i)truncated"):
                Image.open(file).load()
        elif fault == "text":
            with pytest.raises(UnidentifiedImageError):
                Image.open(file)
        elif fault == "wrong_extension":
            assert Image.open(file).format == "PNG"
        elif fault == "missing_file":
            assert not file.exists()
            assert path in listed
        elif fault == "wrong_label":
            assert listed[path]["label"] != file.parent.name
        elif fault == "duplicate_id":
            assert sum(row["item_id"] == listed[path]["item_id"] for row in listed.values()) > 1
        elif fault == "empty_folder":
            assert list(file.iterdir()) == []
        else:
            original = folder / path.replace("-copy", "").replace("-near", "")
            same = (
                hashlib.sha256(original.read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest()
            )
            assert same == (fault == "exact_duplicate")


def test_planted_near_duplicates_look_alike(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    make_photos(folder, categories=3, per_category=40, unseen=0, faults=["near_duplicates"])
    files = sorted((folder / "photos").rglob("*.jpg"))
    groups = alike([photo_hash(path.read_bytes()) or bytes(16) for path in files])
    found = {tuple(sorted(files[place].name for place in group)) for group in groups}
    planted = {tuple(sorted((f.name, f.name.replace("-near", "")))) for f in files if "-near" in f.name}
    assert found
    assert found <= planted, "other photos do not look alike"


@pytest.mark.parametrize(
    ("per_category", "faults", "made"),
    [
        (1, ["truncated", "text", "empty_folder"], {"truncated": 2, "empty_folder": 1}),
        (2, ["exact_duplicates", "wrong_labels"], {"exact_duplicate": 2, "wrong_label": 2}),
    ],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_more_faults_than_photos_are_no_error(
    per_category: int, faults: list[str], made: dict[str, int], seed: int, tmp_path: Path
) -> None:
    few = {**TINY, "categories": 2, "per_category": per_category}
    assert make_photos(tmp_path / "photos", **few, seed=seed, faults=faults)["faults"] == made
    assert (tmp_path / "photos" / "photos" / "unsold").exists() == ("empty_folder" in faults)


def test_a_drifted_month_is_darker_and_has_another_mix(tmp_path: Path) -> None:
    make_photos(tmp_path / "usual", **{**TINY, "per_category": 12})
    make_photos(tmp_path / "drifted", **{**TINY, "per_category": 12}, seed=2, faults=["drift"])

    def brightness(folder: Path) -> float:
        photos = [folder / row["path"] for row in rows(folder / "listing.csv")]
        return float(np.mean([np.asarray(Image.open(photo)).mean() for photo in photos]))

    def largest(folder: Path) -> int:
        labels = [row["label"] for row in rows(folder / "listing.csv")]
        return max(labels.count(label) for label in labels)

    assert brightness(tmp_path / "drifted") < 0.6 * brightness(tmp_path / "usual")
    assert largest(tmp_path / "usual") == 12
    assert largest(tmp_path / "drifted") >= 18


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"categories": 1}, "categories is 1; it goes from 2 to"),
        ({"categories": 500}, "categories is 500"),
        ({"per_category": 0}, "per_category is 0"),
        ({"size_px": 8}, "size_px is 8"),
        ({"seed": -1}, "seed is -1; it goes from 0 to"),
        ({"faults": ["truncate"]}, "did you mean 'truncated'"),
        ({"faults": ["nothing"]}, "known are exact_duplicates"),
    ],
)
def test_a_wrong_request_is_one_clear_error(wrong: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        make_photos(tmp_path / "photos", **{**TINY, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FolderNotEmptyError, match="not empty"):
        make_photos(tmp_path, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_killed_draw_leaves_no_half_folder(tmp_path: Path) -> None:
    code = f"from mlplatform.demo.photos import make_photos; make_photos({str(tmp_path / 'photos')!r})"
    drawing = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.jpg")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    drawing.send_signal(signal.SIGKILL)
    drawing.wait()
    assert not (tmp_path / "photos").exists()
    make_photos(tmp_path / "photos", **TINY)
    assert (tmp_path / "photos" / "listing.csv").exists()


def accuracy(features: np.ndarray, labels: np.ndarray, penalties: tuple[float, ...]) -> float:
    """Best top-1 on every fifth record of a ridge classifier that is fitted on the others."""
    judged = np.arange(len(labels)) % 5 == 0
    centred = features - features[~judged].mean(0)
    gram, wanted = centred[~judged] @ centred[~judged].T, np.eye(labels.max() + 1)[labels[~judged]]
    best = 0.0
    for penalty in penalties:
        dual = np.linalg.solve(gram + penalty * np.trace(gram) / len(gram) * np.eye(len(gram)), wanted)
        guesses = (centred[judged] @ centred[~judged].T @ dual).argmax(1)
        best = max(best, float((guesses == labels[judged]).mean()))
    return best


def pictures(folder: Path, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    listed = rows(folder / "listing.csv")
    names = sorted({row["label"] for row in listed})
    photos = [
        Image.open(folder / row["path"]).resize((size_px, size_px), Image.Resampling.BICUBIC)
        for row in listed
    ]
    labels = np.array([names.index(row["label"]) for row in listed])
    return np.stack([np.asarray(photo, np.float32) for photo in photos]), labels


def test_a_linear_model_on_pixels_stays_under_half(clean: Path) -> None:
    pixels, labels = pictures(clean, 32)
    assert accuracy(pixels.reshape(len(pixels), -1), labels, (0.01, 0.1, 1, 10)) < 0.5


def test_features_of_the_default_backbone_pass_nine_tenths(clean: Path) -> None:
    from mlplatform.vision.backbones import build_backbone

    pixels, labels = pictures(clean, 128)
    network = build_backbone("efficientnet_lite0", 128).network
    features = np.asarray(network.predict(pixels, batch_size=32, verbose=0))
    assert accuracy(features, labels, (0.1, 1, 10)) > 0.9


def test_photos_for_a_model_of_colours_show_each_colour_in_turn_and_are_the_same_again() -> None:
    count = len(COLOURS) + 1
    drawn = list(colored_photos(count, 64, 5))
    assert [color for _, color in drawn] == [*COLOURS, "black"]
    assert {Image.open(io.BytesIO(photo)).size for photo, _ in drawn} == {(64, 64), (36, 36)}
    assert list(colored_photos(count, 64, 5)) == drawn
