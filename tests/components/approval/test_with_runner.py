"""An approval under the local runner: a run that was killed while it waited takes the answer given since."""

import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlplatform.cli.main import cli
from mlplatform.home import Home
from mlplatform.registry import ModelStore
from mlplatform.registry.approvals import Approvals
from mlplatform.registry.ledger import Ledger

pytestmark = pytest.mark.e2e

RUN = """
import sys
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts
from mlplatform.components import Approval, ServingPusher
from mlplatform.home import Home
from mlplatform.orchestration.local import LocalRunner

home = Home.at(sys.argv[1])
model = Importer(source_uri=sys.argv[2], artifact_type=standard_artifacts.Model)
to = {"models_dir": home.models, "model_name": "items"}
approval = Approval(model=model.outputs["result"], poll_s=0.02, **to)
pusher = ServingPusher(model=model.outputs["result"], approval=approval.outputs["approval"], **to)
LocalRunner(home.root).run(
    Pipeline(
        "approving",
        str(home.pipelines / "approving"),
        components=[model, approval, pusher],
        metadata_connection_config=sqlite_metadata_connection_config(str(home.metadata_db)),
        enable_cache=True,
    )
)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_takes_the_answer_given_meanwhile(tmp_path: Path, warm_processes: Any) -> None:
    home, log = Home.at(tmp_path / "root"), tmp_path / "log"
    serving = tmp_path / "model" / "Format-Serving"
    serving.mkdir(parents=True)
    (serving / "saved_model.pb").write_text("a model")
    approvals = Approvals(Ledger(home.ledger))

    def start() -> Any:
        with log.open("ab") as out:
            command = [sys.executable, "-c", RUN, home.root, str(tmp_path / "model")]
            return warm_processes.Popen(command, stdout=out, stderr=out)

    run = start()
    while not (waiting := approvals.waiting(datetime.now(timezone.utc))):
        assert run.poll() is None, log.read_text()
        time.sleep(0.05)
    run.kill()
    run.wait(timeout=60)
    words = ["approve", waiting[0].run, "--by", "ann", "--why", "seen it", "--root", home.root]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert ModelStore(home.models).names() == []
    assert start().wait(timeout=300) == 0, log.read_text()
    [version] = ModelStore(home.models).versions("items")
    assert version.push is not None
    answer = approvals.answer_to("items", version.push.digest)
    assert answer is not None
    assert (answer.approver, answer.run) == ("ann", waiting[0].run)
