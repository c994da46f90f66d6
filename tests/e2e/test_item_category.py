"""The main trip through the command line: photos in, a model that answers out, and gates that stop."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlplatform.demo.trip import ask, read_unseen, serving
from mlplatform.errors import GateError
from mlplatform.orchestration.local import LocalRunner
from mlplatform.pipelines.item_category import create_pipeline

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Command = Callable[..., "Finished"]  # noqa: F821 - see tests/conftest.py


def test_a_run_leaves_a_version_a_verdict_and_a_pushed_model(home: Path, command: Command) -> None:
    log = json.loads(command("datasets", "log", "items", "--store", home / "datasets", "--json").out)
    assert [version["version"] for version in log] == ["v1"]
    model = json.loads(command("models", "show", "item_category", "--root", home, "--json").out)
    (version,) = model["versions"]
    assert version["version"] == 1
    assert version["dataset"] == "items@v1"
    assert (Path(model["base_path"]) / "1" / "saved_model.pb").exists()
    assert list((home / "reports").rglob("report.html"))


def test_the_same_again_from_anywhere_runs_nothing_and_makes_no_version(
    home: Path,
    photos: Path,
    alone: Callable[[], AbstractContextManager[None]],
    settings: list[str],
    command: Command,
    tmp_path: Path,
) -> None:
    words = ("run", "item_category", "--data", photos, "--root", home, *settings, "--json")
    with alone():
        again = command(*words, cwd=tmp_path)
    assert again.code == 0, again.err
    nodes = json.loads(again.out)["nodes"]
    assert {node["state"] for node in nodes} == {"cached"}, again.err
    model = json.loads(command("models", "show", "item_category", "--root", home, "--json").out)
    assert [v["version"] for v in model["versions"]] == [1]


@dataclass(frozen=True)
class Served:
    """A root folder whose model is served while runs go on in it."""

    root: Path
    port: int
    photo: bytes

    def answer(self) -> Any:
        """What the server says of an unseen photo."""
        return ask(self.port, "item_category", self.photo)

    def versions(self) -> list[str]:
        """The versions that lie in the serving folder."""
        return [p.name for p in (self.root / "models" / "item_category").iterdir() if p.name.isdigit()]


@pytest.fixture(scope="module")
def served(
    photos: Path, copy_of_home: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One server for the tests below: none of their runs may change what it says."""
    folder = tmp_path_factory.mktemp("served")
    root = copy_of_home(folder / "home")
    with serving(root, folder / "server.log") as port:
        yield Served(root, port, next(read_unseen(photos)).path.read_bytes())


def test_the_pushed_model_answers_raw_photos_over_rest(served: Served, photos: Path) -> None:
    for photo in list(read_unseen(photos))[:4]:
        classes, scores = ask(served.port, "item_category", photo.path.read_bytes())
        assert len(classes) == len(scores) == 6
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-3)


def test_a_model_below_its_thresholds_stops_the_run_and_the_server_keeps_what_it_has(
    served: Served, photos: Path, settings: list[str], command: Command
) -> None:
    before = served.answer()
    run = ("run", "item_category", "--data", photos, "--root", served.root, *settings)
    refused = command(*run, "--set", "thresholds.top_1=1.0", "--from", "ModelValidator")
    assert refused.code == 3, refused.err
    assert "top-1 is" in refused.err
    assert "Traceback" not in refused.err
    assert served.answer() == before
    assert served.versions() == ["1"]


def test_data_that_does_not_fit_its_schema_stops_the_run_and_the_server_keeps_what_it_has(
    served: Served, photos: Path, quick: dict[str, dict[str, object]], runner: LocalRunner, tmp_path: Path
) -> None:
    schema = next((served.root / "pipelines").rglob("schema.pbtxt"))
    data = shutil.copytree(photos, tmp_path / "photos")
    listing = data / "listing.csv"
    lines = listing.read_text("utf-8").splitlines()
    column = lines[0].split(",").index("label")
    cells = [line.split(",") for line in lines]
    for row in cells[1:40]:
        row[column] = "submarine"
    listing.write_text("\n".join(",".join(row) for row in cells) + "\n", "utf-8")
    before = served.answer()
    with pytest.raises(GateError, match="submarine") as refused:
        runner.run(create_pipeline(data=str(data), root=str(served.root), schema=str(schema), **quick))
    assert "Traceback" not in str(refused.value.__cause__)
    assert served.answer() == before
    assert served.versions() == ["1"]


def test_the_same_pipeline_runs_under_the_stock_runner(
    photos: Path, quick: dict[str, dict[str, object]], warm_python: Command, tmp_path: Path
) -> None:
    code = (
        "from tfx.orchestration.local.local_dag_runner import LocalDagRunner\n"
        "from mlplatform.pipelines.item_category import create_pipeline\n"
        f"LocalDagRunner().run(create_pipeline(data={str(photos)!r}, root={str(tmp_path)!r}, **{quick}))\n"
    )
    done = warm_python("-c", code, timeout_s=540)
    assert done.code == 0, done.err[-3000:]
    assert (tmp_path / "models" / "item_category" / "1" / "saved_model.pb").exists()
