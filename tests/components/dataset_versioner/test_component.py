"""DatasetVersioner in a stock TFX pipeline, under the stock LocalDagRunner."""

import json
import random
from pathlib import Path

import pytest

from mlplatform.datasets import DatasetStore

ROWS = 400


def write_csv(path: Path, rows: range, seed: int) -> None:
    order = list(rows)
    random.Random(seed).shuffle(order)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"item-{n},{n % 7}.5,{n % 3}" for n in order]
    path.write_text("\n".join(["item_id,price,label", *lines]) + "\n")


@pytest.mark.e2e
def test_a_stock_pipeline_reuses_what_follows_after_an_ingest_of_the_same_data(tmp_path: Path) -> None:
    from ml_metadata.proto import metadata_store_pb2
    from tfx import v1 as tfx
    from tfx.orchestration import metadata

    from mlplatform.components import DatasetVersioner

    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(tmp_path / "mlmd.sqlite"))

    def run() -> dict[str, list[tuple[str, str]]]:
        gen = tfx.components.CsvExampleGen(input_base=str(tmp_path / "csv"))
        versioner = DatasetVersioner(
            examples=gen.outputs["examples"], dataset="items", store=str(tmp_path / "store"), key=["item_id"]
        )
        statistics = tfx.components.StatisticsGen(examples=versioner.outputs["examples"])
        tfx.orchestration.LocalDagRunner().run(
            tfx.dsl.Pipeline(
                pipeline_name="p",
                pipeline_root=str(tmp_path / "root"),
                components=[gen, versioner, statistics],
                metadata_connection_config=connection,
                enable_cache=True,
            )
        )
        with metadata.Metadata(connection) as handle:
            states: dict[str, list[tuple[str, str]]] = {}
            for node in ("CsvExampleGen", "DatasetVersioner", "StatisticsGen"):
                type_name = next(
                    one.name
                    for one in handle.store.get_execution_types()
                    if one.name.rsplit(".", 1)[-1].startswith(node)
                )
                states[node] = [
                    (
                        str(execution.last_known_state),
                        ",".join(
                            sorted(
                                str(event.artifact_id)
                                for event in handle.store.get_events_by_execution_ids([execution.id])
                                if event.type == metadata_store_pb2.Event.OUTPUT
                            )
                        ),
                    )
                    for execution in handle.store.get_executions_by_type(type_name)
                ]
        return states

    complete, cached = "3", "5"
    write_csv(tmp_path / "csv" / "items.csv", range(ROWS), seed=1)
    first = run()
    assert [state for state, _ in first["DatasetVersioner"]] == [complete]

    unchanged = run()
    assert [state for state, _ in unchanged["DatasetVersioner"]] == [complete, cached]
    assert [state for state, _ in unchanged["StatisticsGen"]] == [complete, cached]

    # The same rows, ingested anew: CsvExampleGen writes other bytes in another order.
    write_csv(tmp_path / "csv" / "items.csv", range(ROWS), seed=2)
    again = run()
    assert [state for state, _ in again["CsvExampleGen"]] == [complete, cached, complete]
    assert len({outputs for _, outputs in again["CsvExampleGen"]}) == 2
    assert len({outputs for _, outputs in again["DatasetVersioner"]}) == 1, "the artifacts of the first run"
    assert [state for state, _ in again["StatisticsGen"]] == [complete, cached, cached]
    store = DatasetStore(tmp_path / "store")
    assert [one.version for one in store.log("items")] == ["v1"]

    # One row more: a new version, and what follows runs again.
    write_csv(tmp_path / "csv" / "items.csv", range(ROWS + 1), seed=3)
    changed = run()
    assert [state for state, _ in changed["StatisticsGen"]] == [complete, cached, cached, complete]
    newest = store.show("items")
    assert (newest.version, newest.added, newest.removed, newest.records) == ("v2", 1, 0, ROWS + 1)

    # And back: the version is the first again, and so are its artifacts.
    write_csv(tmp_path / "csv" / "items.csv", range(ROWS), seed=4)
    back = run()
    assert back["DatasetVersioner"][-1][1] == back["DatasetVersioner"][0][1]
    assert back["StatisticsGen"][-1][0] == cached

    facts = [json.loads(path.read_text()) for path in (tmp_path / "root").rglob("version.json")]
    assert sorted(one["version"] for one in facts) == ["v1", "v2"]
