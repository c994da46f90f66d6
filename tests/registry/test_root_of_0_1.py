"""A root that release 0.1 left is read, listed, written and served, without a step by its user."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mlplatform.cli.main import cli
from mlplatform.registry import ModelStore
from mlplatform.registry.errors import ModelWithdrawnError
from mlplatform.registry.lineage import made_from, origin
from mlplatform.registry.model_ledger import ModelLedger

FIXTURE = Path(__file__).parents[1] / "fixtures" / "root_of_0_1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "root"))


def answer(root: Path, *arguments: str) -> Any:
    result = CliRunner().invoke(cli, [*arguments, "--root", str(root), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_it_is_listed_and_shown_and_nothing_is_written(root: Path) -> None:
    before = files(root)
    (model,) = answer(root, "models", "list")
    assert (model["name"], model["version"], model["labels"]) == ("half", 1, {"stable": 1, "canary": 1})
    shown = answer(root, "models", "show", "half")["versions"]
    assert [(v["version"], v["is_withdrawn"], v["integrity"]) for v in shown] == [
        (1, False, "intact"),
        (2, True, "intact"),
    ]
    assert [event["event"] for event in shown[1]["history"]] == ["push", "promote", "promote", "rollback"]
    assert (shown[0]["run"], shown[0]["dataset"]) == ("20261101-120000-aaaa", "numbers@v1")
    versions = answer(root, "datasets", "log", "numbers")
    assert [version["version"] for version in versions] == ["v2", "v1"]
    (run,) = answer(root, "runs", "list")
    assert (run["pipeline"], run["state"]) == ("tiny", "done")
    made = origin(ModelLedger(str(root / "models")), "half", 1)
    assert (made.run, [used.dataset for used in made.datasets]) == ("20261101-120000-aaaa", ["numbers@v1"])
    (pushed,) = made_from(ModelLedger(str(root / "models")), "numbers@v2").models
    assert (pushed.version, pushed.is_withdrawn) == (2, True)
    assert files(root) == before


def test_the_first_command_that_writes_goes_on_where_it_ended(root: Path, tmp_path: Path) -> None:
    before = ModelStore(root / "models").ledger("half")
    old = (root / "models" / "half" / "ledger.jsonl").read_bytes()
    store = ModelStore(root / "models")
    with pytest.raises(ModelWithdrawnError, match="as version 2"):
        store.push(root / "models" / "half" / "withdrawn" / "2", "half")
    assert store.promote("half", "2").labels == ("stable",)
    store = ModelStore(root / "models")
    assert [event["event"] for event in store.ledger("half")] == [*(e["event"] for e in before), "promote"]
    assert store.ledger("half")[:-1] == before
    assert store.labels("half") == {"stable": 2, "canary": 1}
    shutil.copytree(root / "models" / "half" / "1", tmp_path / "new")
    (tmp_path / "new" / "more").write_text("x")
    assert store.push(tmp_path / "new", "half").version.version == 3
    assert store.rollback("half").version == 2
    assert (root / "models" / "half" / "ledger.jsonl").read_bytes() == old


@pytest.mark.e2e
def test_it_is_served(root: Path) -> None:
    from mlplatform.serving import Client, ModelServer

    quiet = {"port": 0, "rest_api_port": -1, "file_system_poll_wait_seconds": -1, "lame_duck_s": 0.0}
    with ModelServer(root=root, **quiet) as server, Client(f"127.0.0.1:{server.grpc_port}") as client:
        x = np.array([[2.0]], np.float32)
        assert client.predict("half", {"x": x}, label="canary")["y"][0, 0] == 3.0
        ModelStore(root / "models").promote("half", "2")
        server.manager.look_now()
        assert client.predict("half", {"x": x}, label="stable")["y"][0, 0] == 4.0
