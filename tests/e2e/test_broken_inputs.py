"""Broken inputs: each is one clear error or a counted reject, and leaves nothing half-written.

All run through the whole command line, in this process. What can be wrong with single photos and rows of a
listing is held, kind by kind, in `tests/components/image_example_gen`, too; here all at once in one real run.
"""

import csv
import json
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlplatform.demo.photos import FAULTS, make_photos

pytestmark = pytest.mark.e2e

Command = Callable[..., "Finished"]  # noqa: F821 - see tests/conftest.py


@dataclass(frozen=True)
class Broken:
    """A command that cannot work, its exit code, and words that its error must hold.

    `{data}`, `{root}` and `{tmp}` in the words become real folders; `files` are made in `{tmp}` first.
    """

    words: str
    code: int
    says: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)


RUN = "run item_category --root {root} "
INGEST = RUN + "--data {tmp}/d --to ImageExampleGen "
BROKEN = {
    "pipeline: misspelt": Broken("run item_categroy --data {data}", 2, ("item_categroy", "item_category")),
    "pipeline: no such file": Broken("run {tmp}/none.py", 2, ("none.py",)),
    "pipeline: no such function": Broken("run {tmp}/p.py:make", 2, ("make",), {"p.py": "x = 1\n"}),
    "pipeline: syntax error": Broken("run {tmp}/p.py", 1, ("p.py", "line 1"), {"p.py": "def (:\n"}),
    "pipeline: no such module": Broken("run no.such.module:create", 2, ("no.such.module",)),
    "data: not given": Broken(RUN, 2, ("data",)),
    "data: no such folder": Broken(RUN + "--data {tmp}/none", 2, ("none", "no such folder")),
    "data: a file": Broken(RUN + "--data {tmp}/a.txt", 2, ("a.txt", "not a folder"), {"a.txt": "x"}),
    "data: empty folder": Broken(RUN + "--data {tmp}/d", 2, ("it holds no folders",), {"d/.keep": ""}),
    "data: no such listing": Broken(RUN + "--data {data} --set listing=none.csv", 2, ("none.csv",)),
    "config: misspelt key": Broken(RUN + "--data {data} --set keeep=3", 2, ("keeep", "did you mean 'keep'")),
    "config: misspelt nested key": Broken(
        RUN + "--data {data} --set thresholds.top1=1",
        2,
        ("thresholds.top1", "did you mean 'thresholds.top_1'"),
    ),
    "config: misspelt model key": Broken(
        RUN + "--data {data} --set model.epoch=1", 2, ("model.epoch", "did you mean 'model.epochs'")
    ),
    "config: out of range": Broken(
        RUN + "--data {data} --set max_reject_fraction=2", 2, ("max_reject_fraction", "2")
    ),
    "config: wrong type": Broken(RUN + "--data {data} --set keep=many", 2, ("keep", "many")),
    "config: no equals sign": Broken(RUN + "--data {data} --set keep", 2, ("keep", "=")),
    "config: no such file": Broken(RUN + "--data {data} --config {tmp}/none.yaml", 2, ("none.yaml",)),
    "config: not YAML": Broken(
        RUN + "--data {data} --config {tmp}/c.yaml", 2, ("c.yaml",), {"c.yaml": "a: [1"}
    ),
    "config: one split": Broken(RUN + "--data {data} --set splits={{train: 1}}", 2, ("splits",)),
    "root: below a file": Broken(
        "run item_category --data {data} --root {tmp}/f/home", 1, ("/f",), {"f": "x"}
    ),
    "node: misspelt": Broken(RUN + "--data {data} --from ModelTrainr", 2, ("ModelTrainr", "ModelTrainer")),
    "runs: no such run": Broken("runs show nothing --root {root}", 2, ("no run is recorded",)),
    "datasets: no such dataset": Broken("datasets log nothing --store {root}/datasets", 2, ("nothing",)),
    "datasets: no such folder": Broken(
        "datasets commit items {tmp}/none --store {root}/datasets", 2, ("none",)
    ),
    "datasets: not TFRecord": Broken(
        "datasets commit items {tmp}/d --store {root}/datasets",
        1,
        ("data_tfrecord-00000-of-00001",),
        {"d/Split-train/data_tfrecord-00000-of-00001": "this is no TFRecord file at all, only text"},
    ),
    "models: no such model": Broken("models show nothing --root {root}", 2, ("nothing", "none was pushed")),
    "models: no version": Broken("models promote item_category --root {root}", 2, ("NAME@VERSION",)),
    "models: not a SavedModel": Broken("models push {data} x --root {root}", 2, ("no saved_model.pb",)),
    "serve: no such config file": Broken(
        "serve --model_config_file {tmp}/none.txt", 2, ("none.txt", "no such file")
    ),
    "listing: no such columns": Broken(
        INGEST + "--set listing=l.csv", 2, ("l.csv", "'path'"), {"d/l.csv": "file,class\n1.jpg,hat\n"}
    ),
    "listing: no rows": Broken(INGEST + "--set listing=l.csv", 2, ("l.csv",), {"d/l.csv": "path,label\n"}),
    "listing: not UTF-8": Broken(
        INGEST + "--set listing=l.csv", 2, ("l.csv",), {"d/l.csv": b"path,label\n1.jpg,h\xe9\n"}
    ),
    "listing: not JSON": Broken(
        INGEST + "--set listing=l.jsonl", 3, ("malformed_row",), {"d/l.jsonl": "{path: 1.jpg}\n"}
    ),
    "listing: all photos missing": Broken(
        INGEST + "--set listing=l.csv", 3, ("missing_file", "2 of 2"), {"d/l.csv": "path,label\na,b\nc,b\n"}
    ),
    "photos: all text": Broken(INGEST, 3, ("hat/1.jpg", "1 of 1"), {"d/hat/1.jpg": "<html></html>"}),
    "demo: folder is taken": Broken("demo photos {data}", 2, ("photos",)),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    make_photos(folder, categories=2, per_category=2, unseen=1, size_px=48)
    return folder


@pytest.mark.parametrize("name", BROKEN)
def test_one_clear_error_and_nothing_left(name: str, command: Command, data: Path, tmp_path: Path) -> None:
    broken = BROKEN[name]
    for file, content in broken.files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    root = tmp_path / "root"
    words = [word.format(data=data, root=root, tmp=tmp_path) for word in _words(broken.words)]
    done = command(*words, cwd=tmp_path)
    assert done.code == broken.code, done.err
    for text in broken.says:
        assert text in done.err
    assert "Traceback" not in done.err
    error = done.err.partition("\nmlplatform: ")[2] or done.err  # what went before is the run's table
    assert len(error.splitlines()) <= 8, done.err
    nothing_is_left(tmp_path)


def nothing_is_left(folder: Path) -> None:
    """There is no dataset version and no model below the folder, in whatever root, not even half of one."""
    assert not list(folder.rglob("datasets/*/versions/*")), "a dataset version was left"
    assert not list(folder.rglob("datasets/*/packs/*")), "records were left"
    assert not [p for p in folder.rglob("models/*/*") if p.name != "lock"], "a model was left"


def _words(line: str) -> list[str]:
    words = line.split(" ")
    if "{{train:" in line:  # the one value with a space in it
        at = next(i for i, word in enumerate(words) if "{{train:" in word)
        words[at : at + 2] = [" ".join(words[at : at + 2])]
    return [word for word in words if word]


def test_serving_on_a_taken_port_is_one_clear_error(mlplatform: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = mlplatform("serve", "--root", tmp_path, "--port", 0, "--rest_api_port", port, timeout_s=120)
    assert done.code == 1, done.err
    assert str(port) in done.err
    assert "Traceback" not in done.err


def test_too_many_broken_photos_stop_the_run_and_leave_no_version(
    command: Command, settings: list[str], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, categories=3, per_category=8, unseen=1, size_px=48)
    for file in sorted((photos / "photos").rglob("*.jpg"))[:6]:
        file.write_bytes(file.read_bytes()[:300])
    root = tmp_path / "root"
    done = command("run", "item_category", "--data", photos, "--root", root, *settings)
    assert done.code == 3, done.err
    assert "6 of 24" in done.err
    assert "Traceback" not in done.err
    nothing_is_left(tmp_path)


# Fault of the generator -> the reason under which its photos are rejected; the others can be used.
REJECTED = {
    "truncated": "truncated",
    "text": "not_an_image",
    "missing_file": "missing_file",
    "duplicate_id": "duplicate_item_id",
}


def test_every_planted_fault_is_a_counted_reject_or_can_be_used(command: Command, tmp_path: Path) -> None:
    photos, root = tmp_path / "photos", tmp_path / "root"
    make_photos(
        photos,
        categories=4,
        per_category=30,
        unseen=1,
        size_px=48,
        faults=[f for f in FAULTS if f != "drift"],
    )
    with (photos / "faults.csv").open(newline="", encoding="utf-8") as file:
        planted = Counter(row["fault"] for row in csv.DictReader(file))
    assert len(planted) == len(FAULTS) - 1
    words = ("--data", photos, "--root", root, "--set", "max_reject_fraction=0.2", "--to", "DatasetVersioner")
    done = command("run", "item_category", *words)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    (summary,) = (root / "pipelines").rglob("summary.json")
    expected = {reason: planted[fault] for fault, reason in REJECTED.items()}
    assert json.loads(summary.read_text())["rejected"] == expected
    show = json.loads(command("datasets", "show", "items", "--store", root / "datasets", "--json").out)
    with (photos / "listing.csv").open(encoding="utf-8") as file:
        listed = len(file.readlines()) - 1
    assert sum(show["records"].values()) == listed - sum(expected.values())
