"""DatasetVersioner on Examples as they are: what it hands on, and what it must not."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.dsl.components.common import importer
from tfx.dsl.io import fileio
from tfx.orchestration import metadata
from tfx.types import standard_artifacts

from mlplatform.artifacts import DatasetVersion
from mlplatform.components import DatasetVersioner
from mlplatform.components.dataset_versioner.driver import COMMITTED, REFUSED
from mlplatform.components.dataset_versioner.executor import Executor
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import ForgottenRecordError, KeyMissingError, SplitFirewallError
from mlplatform.datasets.format.tfrecord import frame

COMPLETE, CACHED, FAILED = 3, 5, 4


def example(number: int, label: str = "coat") -> bytes:
    import tensorflow as tf

    features = {"item_id": f"i{number}", "label": label}
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                for name, value in sorted(features.items())
            }
        )
    ).SerializeToString(deterministic=True)


def write(folder: Path, content: dict[str, list[bytes]], gz: bool = False) -> Path:
    for split, records in content.items():
        shard = folder / f"Split-{split}" / ("data_tfrecord-00000-of-00001" + (".gz" if gz else ""))
        shard.parent.mkdir(parents=True, exist_ok=True)
        data = b"".join(map(frame, records))
        shard.write_bytes(gzip.compress(data) if gz else data)
    return folder


def properties(store: Path | str, **more: Any) -> dict[str, Any]:
    given = {
        "dataset_name": "items",
        "store": str(store),
        "key": '["item_id"]',
        "label": "label",
        "training_splits": "null",
        "is_firewall_on": 1,
    }
    return {**given, **more}


def artifacts(source: Path, out: str) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    ingested, examples, dataset = (
        standard_artifacts.Examples(),
        standard_artifacts.Examples(),
        DatasetVersion(),
    )
    ingested.uri, examples.uri, dataset.uri = str(source), f"{out}/examples", f"{out}/dataset"
    ingested.split_names = json.dumps(sorted(path.name[6:] for path in source.iterdir()))
    return {"ingested_examples": [ingested]}, {"dataset": [dataset], "examples": [examples]}


class TestExecutor:
    @pytest.mark.parametrize("gz", [False, True])
    def test_outputs_can_lie_on_another_file_system(self, tmp_path: Path, gz: bool) -> None:
        source = write(tmp_path / "in", {"train": [example(1), example(2)], "eval": [example(3)]}, gz)
        out = f"memory://out-{gz}"
        inputs, outputs = artifacts(source, out)
        for _ in range(2):  # also over what a killed run left there
            if fileio.exists(f"{out}/dataset/version.json"):
                fileio.remove(f"{out}/dataset/version.json")
            Executor().Do(inputs, outputs, properties(tmp_path / "store"))
        files = sorted(fileio.glob(f"{out}/examples/Split-*/*"))
        assert [file.rsplit("/", 2)[1] for file in files] == ["Split-eval", "Split-train"]
        with fileio.open(files[1], "rb") as file:
            data = file.read()
        assert (gzip.decompress(data) if gz else data) == b"".join(map(frame, [example(1), example(2)]))
        with fileio.open(f"{out}/dataset/version.json", "rb") as file:
            assert json.loads(file.read())["version"] == "v1"
        assert not list(Path.cwd().glob("memory:*"))
        copies = DatasetStore(tmp_path / "store").copies("items")
        assert {(copy.kind, copy.place) for copy in copies} == {
            ("source", str(source)),
            ("checkout", f"{out}/examples"),
        }

    def test_a_key_that_the_data_does_not_have_fails(self, tmp_path: Path) -> None:
        source = write(tmp_path / "in", {"train": [example(1)]})
        inputs, outputs = artifacts(source, str(tmp_path / "out"))
        with pytest.raises(KeyMissingError, match="has the key sku"):
            Executor().Do(inputs, outputs, properties(tmp_path / "store", key='["sku"]'))
        assert not (tmp_path / "out").exists()

    def test_beam_makes_the_version_where_its_flags_are_given(self, tmp_path: Path) -> None:
        source = write(tmp_path / "in", {"train": [example(n) for n in range(5)]})
        inputs, outputs = artifacts(source, str(tmp_path / "out"))
        Executor().Do(inputs, outputs, properties(tmp_path / "store", beam_options="[]"))
        assert DatasetStore(tmp_path / "store").show("items").records == 5

    def test_what_the_driver_committed_is_not_read_again(self, tmp_path: Path) -> None:
        store = DatasetStore(tmp_path / "store")
        source = write(tmp_path / "in", {"train": [example(1)]})
        digest = store.commit("items", source).manifest.digest
        inputs, outputs = artifacts(source, str(tmp_path / "out"))
        (source / "Split-train" / "data_tfrecord-00000-of-00001").write_bytes(b"not read")
        Executor().Do(inputs, outputs, properties(tmp_path / "store", **{COMMITTED: digest}))
        assert outputs["dataset"][0].version == "v1"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, list[int]]]:
    """Run a pipeline on `in`, and return how DatasetVersioner ended and which artifacts it gave."""
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(tmp_path / "mlmd.sqlite"))

    def work(*, reimport: bool) -> tuple[int, list[int]]:
        ingested = importer.Importer(
            source_uri=str(tmp_path / "in"),
            artifact_type=standard_artifacts.Examples,
            reimport=reimport,
            properties={"split_names": '["train"]'},
        ).with_id("ingest")
        versioner = DatasetVersioner(
            examples=ingested.outputs["result"],
            dataset="items",
            store=str(tmp_path / "store"),
            key=["item_id"],
        )
        tfx.orchestration.LocalDagRunner().run(
            tfx.dsl.Pipeline(
                pipeline_name="p",
                pipeline_root=str(tmp_path / "root"),
                components=[ingested, versioner],
                metadata_connection_config=connection,
                enable_cache=True,
            )
        )
        with metadata.Metadata(connection) as handle:
            name = "mlplatform.components.dataset_versioner.component.DatasetVersioner"
            last = max(handle.store.get_executions_by_type(name), key=lambda execution: execution.id)
            events = handle.store.get_events_by_execution_ids([last.id])
            given = [e.artifact_id for e in events if e.type == metadata_store_pb2.Event.OUTPUT]
            assert REFUSED not in last.custom_properties
            return int(last.last_known_state), sorted(given)

    return work


@pytest.mark.e2e
def test_what_is_no_longer_there_is_made_again(
    tmp_path: Path, run: Callable[..., tuple[int, list[int]]]
) -> None:
    write(tmp_path / "in", {"train": [example(1), example(2)]})
    state, first = run(reimport=True)
    assert state == COMPLETE
    assert run(reimport=True)[1] == first, "the same content in another artifact: the same outputs"
    (shard,) = (tmp_path / "root" / "DatasetVersioner" / "examples").rglob("data_tfrecord*")
    shard.unlink()
    state, again = run(reimport=True)
    assert state == COMPLETE
    assert set(again).isdisjoint(first)
    assert DatasetStore(tmp_path / "store").show("items").version == "v1"


@pytest.mark.e2e
@pytest.mark.parametrize("reimport", [False, True])
def test_a_forgotten_record_is_not_handed_on_again(
    tmp_path: Path, run: Callable[..., tuple[int, list[int]]], reimport: bool
) -> None:
    write(tmp_path / "in", {"train": [example(1), example(2)]})
    run(reimport=reimport)
    DatasetStore(tmp_path / "store").forget("items", "i1", is_erasing=True)
    with pytest.raises(ForgottenRecordError):
        run(reimport=reimport)


@pytest.mark.e2e
def test_the_firewall_stops_a_pipeline(tmp_path: Path, run: Callable[..., tuple[int, list[int]]]) -> None:
    write(tmp_path / "in", {"train": [example(1)], "eval": [example(2)]})
    run(reimport=True)
    write(tmp_path / "in", {"train": [example(1), example(2, "hat")], "eval": [example(3)]})
    with pytest.raises(SplitFirewallError, match="item_id=i2"):
        run(reimport=True)


def test_an_unchanged_run_meets_what_was_erased_and_is_still_in_its_source(
    runner: Any, tmp_path: Path
) -> None:
    """Under the local runner, whose cache does not ask the driver."""

    write(tmp_path / "in", {"train": [example(number) for number in range(5)]})
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "mlmd.sqlite"))

    def pipeline() -> Any:
        ingested = importer.Importer(
            source_uri=str(tmp_path / "in"),
            artifact_type=standard_artifacts.Examples,
            properties={"split_names": '["train"]'},
        ).with_id("ingest")
        versioner = DatasetVersioner(
            ingested.outputs["result"], dataset="items", store=str(tmp_path / "store"), key=["item_id"]
        )
        return tfx.dsl.Pipeline(
            pipeline_name="p",
            pipeline_root=str(tmp_path / "root"),
            components=[ingested, versioner],
            metadata_connection_config=connection,
            enable_cache=True,
        )

    def states(record: Any) -> dict[str, str]:
        return {node.id: node.state for node in record.nodes}

    assert states(runner.run(pipeline()))["DatasetVersioner"] == "done"
    assert states(runner.run(pipeline()))["DatasetVersioner"] == "cached"
    DatasetStore(tmp_path / "store").forget("items", "i3", is_erasing=True)
    with pytest.raises(ForgottenRecordError, match="source still has them: item_id=i3"):
        runner.run(pipeline())
    write(tmp_path / "in", {"train": [example(number) for number in range(5) if number != 3]})
    assert states(runner.run(pipeline()))["DatasetVersioner"] == "done"
