"""The main trip with a root on an S3 server, and the same root read by another machine."""

import datetime
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from mlplatform.demo.trip import ask, read_unseen, serving
from mlplatform.home import Home
from mlplatform.storage import open_storage

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Command = Callable[..., "Finished"]  # noqa: F821 - see tests/conftest.py
ROOT = "s3://bucket/team"


@pytest.fixture(scope="module")
def machine(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Become another machine: one with an empty home, that shares nothing but the S3 server."""

    def become(name: str) -> None:
        home = tmp_path_factory.mktemp(name)
        os.environ["HOME"] = str(home)
        os.environ["XDG_CACHE_HOME"] = str(home / "cache")

    return become


class OneHour(datetime.datetime):
    """What a pipeline is remembered with: the tests may run over the full hour."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "OneHour":
        return cls(2026, 1, 1, 12, tzinfo=tz)


@pytest.fixture(scope="module")
def requests(s3: str) -> Iterator[list[str]]:
    """The requests to the S3 server that this process makes, by their names in its API."""
    from s3fs import S3FileSystem

    call, made = S3FileSystem._call_s3, []

    async def counted(self: Any, method: str, *arguments: Any, **named: Any) -> Any:
        made.append(method)
        return await call(self, method, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3FileSystem, "_call_s3", counted)
        yield made


@pytest.fixture(scope="module")
def trained(
    requests: list[str],
    photos: Path,
    settings: list[str],
    command: Command,
    machine: Callable[[str], None],
) -> Iterator[Any]:
    """A run with the root at the URL, and once more with nothing changed: `again` and its `requests`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlplatform.orchestration.local.cache.surroundings.datetime", OneHour)
        patch.setenv("HOME", os.environ["HOME"])
        patch.setenv("XDG_CACHE_HOME", "")
        machine("first")
        words = ("run", "item_category", "--data", photos, "--root", ROOT, *settings, "--json")
        done = command(*words)
        assert done.code == 0, done.err
        requests.clear()
        again = command(*words)
        assert again.code == 0, again.err
        machine("second")
        yield {**json.loads(done.out), "again": json.loads(again.out), "requests": list(requests)}


def test_an_unchanged_run_starts_nothing_and_makes_few_requests(trained: Any) -> None:
    why = f"nothing changed since run {trained['run_id']}"
    assert {(node["state"], node["why"]) for node in trained["again"]["nodes"]} == {("cached", why)}
    print(len(trained["requests"]), Counter(trained["requests"]))
    assert len(trained["requests"]) <= 45


def test_all_that_outlives_the_run_is_at_the_url(trained: Any) -> None:
    paths = open_storage(ROOT).paths("")
    run = trained["run_id"]
    assert {node["state"] for node in trained["nodes"]} == {"done"}
    assert "models/item_category/1/saved_model.pb" in paths
    for gate in ("DataValidator", "ModelValidator"):
        assert f"reports/{run}/{gate}/report.html" in paths
    assert "reports/index.html" in paths
    assert any(path.startswith("datasets/items/versions/") for path in paths)
    assert f"runs/{run}/logs/ModelTrainer.log" in paths
    places = {"datasets", "ledger", "models", "reports", "runs", "work"}
    assert {path.split("/")[0] for path in paths} <= places


def test_another_machine_reads_it(
    trained: Any,
    photos: Path,
    command: Command,
    warmly: Callable[[], AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    log = json.loads(command("datasets", "log", "items", "--root", ROOT, "--json").out)
    assert [version["version"] for version in log] == ["v1"]
    model = json.loads(command("models", "show", "item_category", "--root", ROOT, "--json").out)
    assert [(version["version"], version["dataset"]) for version in model["versions"]] == [(1, "items@v1")]
    runs = json.loads(command("runs", "list", "--root", ROOT, "--json").out)
    assert [run["run_id"] for run in runs] == [trained["again"]["run_id"], trained["run_id"]]
    assert command("runs", "logs", trained["run_id"], "ModelTrainer", "--root", ROOT).out
    photo = next(iter(read_unseen(photos)))
    with warmly(), serving(ROOT, tmp_path / "server.log") as port:
        classes, scores = ask(port, "item_category", photo.path.read_bytes())
    assert len(classes) == len(scores) == 6
    assert not Home.at(ROOT).metadata_db.exists(), "reading needs no ML Metadata"
