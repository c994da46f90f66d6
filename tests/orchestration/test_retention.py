"""Runs after a collection: what the cache still has is whole, all else is made again."""

import io
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from mlplatform.home import Home
from mlplatform.orchestration.local import LocalRunner
from mlplatform.orchestration.local.display import Lines
from mlplatform.retention.collect import collect
from mlplatform.retention.policy import RetentionPolicy

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("warm_start")]


def test_a_cache_hit_after_a_collection_is_whole_or_a_miss(tmp_path: Path) -> None:
    import steps_that_say
    from tfx.orchestration.metadata import sqlite_metadata_connection_config
    from tfx.orchestration.pipeline import Pipeline

    home = Home.at(tmp_path / "root")
    runner = LocalRunner(home.root, display=Lines(io.StringIO()))

    def run(text: str) -> tuple[list[str], list[str]]:
        """The states of the nodes, and what their artifacts hold."""
        first = steps_that_say.Write(text=text)
        last = steps_that_say.Double(text=first.outputs["out"])
        record: Any = runner.run(
            Pipeline(
                "saying",
                str(home.pipelines / "saying"),
                components=[first, last],
                metadata_connection_config=sqlite_metadata_connection_config(str(home.metadata_db)),
                enable_cache=True,
            )
        )
        outputs = [artifact for node in record.nodes for artifact in node.outputs["out"]]
        return [n.state for n in record.nodes], [Path(artifact.uri).read_text() for artifact in outputs]

    try:
        assert run("a") == (["done", "done"], ["a", "aa"])
        assert run("b") == (["done", "done"], ["b", "bb"])
        assert run("a") == (["cached", "cached"], ["a", "aa"])
        later = datetime.now(timezone.utc) + timedelta(days=9)
        done = collect(home, RetentionPolicy(keep_runs=1, keep_days=1), later, is_dry_run=False)
        freed = {each.kind: each.count for each in done.freed}
        assert freed["runs"] == 1
        assert freed["artifacts"] >= 2  # both of `b`, and what TFX keeps of their executions
        assert run("a") == (["cached", "cached"], ["a", "aa"])
        assert run("b") == (["done", "done"], ["b", "bb"])
        assert run("a") == (["cached", "cached"], ["a", "aa"])
    finally:
        runner.close()
