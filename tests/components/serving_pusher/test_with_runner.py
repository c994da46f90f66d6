"""A pipeline that pushes, under the local runner: what was rolled back stays withdrawn, cached or not."""

from pathlib import Path

import pytest
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts

from mlplatform.components import ServingPusher
from mlplatform.orchestration.local import LocalRunner
from mlplatform.registry import ModelStore
from mlplatform.registry.errors import ModelWithdrawnError

pytestmark = pytest.mark.e2e


def test_an_unchanged_run_after_a_roll_back_is_refused_until_it_is_promoted(
    runner: LocalRunner, tmp_path: Path
) -> None:
    store = ModelStore(tmp_path / "models")
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "saved_model.pb").write_text("before")
    store.push(tmp_path / "before", "items")
    serving = tmp_path / "model" / "Format-Serving"
    serving.mkdir(parents=True)
    (serving / "saved_model.pb").write_text("a model")

    def run() -> str:
        model = Importer(source_uri=str(tmp_path / "model"), artifact_type=standard_artifacts.Model)
        pusher = ServingPusher(
            model=model.outputs["result"], models_dir=str(store.models_dir), model_name="items"
        )
        record = runner.run(
            Pipeline(
                "pushing",
                str(tmp_path / "root"),
                components=[model, pusher],
                metadata_connection_config=sqlite_metadata_connection_config(str(tmp_path / "mlmd.sqlite")),
                enable_cache=True,
            )
        )
        return next(node.state for node in record.nodes if node.id == "ServingPusher")

    assert run() == "done"
    assert run() == "cached"
    store.rollback("items", why="bad on shoes")
    for _ in range(2):  # the refusal is not the cached answer of the next run
        with pytest.raises(ModelWithdrawnError, match=r"was rolled back as version 2 .*: bad on shoes"):
            run()
    assert [v.version for v in store.versions("items") if not v.is_withdrawn] == [1]
    store.promote("items", "2")
    assert run() == "done"
    assert [v.version for v in store.versions("items")] == [1, 2]
