"""A driver makes things quicker; the answer is the same without one."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.channel import Channel

from mlplatform.artifacts import DatasetVersion, RejectedRecords
from mlplatform.components import DatasetVersioner, ImageExampleGen
from mlplatform.components.dataset_versioner import driver
from mlplatform.components.dataset_versioner.executor import Executor as Versioner
from mlplatform.components.image_example_gen.driver import Driver as IngestDriver
from mlplatform.components.image_example_gen.executor import Executor as Ingest
from mlplatform.components.image_example_gen.settings import IngestSettings
from mlplatform.datasets import DatasetStore


def artifact(kind: Any, uri: Path) -> Any:
    made = kind()
    made.uri = str(uri)
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def photos(colours: ModuleType, tmp_path: Path) -> Path:
    for number in range(4):
        for label in ("red", "blue"):
            folder = tmp_path / "photos" / f"span-{number // 2}" / label
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(colours.encode(label, number, side=16))
    return tmp_path / "photos"


def test_ingest(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlplatform.components.image_example_gen.settings.SHARD_BYTES", 500)
    component = ImageExampleGen(str(photos), splits={"train": 1}, pattern="span-{SPAN}/*/*")
    made = {}
    for name in ("driver", "alone"):
        properties = dict(component.exec_properties)
        if name == "driver":
            properties = IngestDriver(None).resolve_exec_properties(properties, None, None)
        folder = tmp_path / name
        examples = artifact(standard_artifacts.Examples, folder / "examples")
        context = base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=[], tmp_dir=str(tmp_path / "t")
        )
        rejects = artifact(RejectedRecords, folder / "rejects")
        Ingest(context).Do({}, {"examples": [examples], "rejects": [rejects]}, properties)
        made[name] = files(folder)
    assert examples.span == 1
    assert made["alone"] == made["driver"]
    assert (
        len([name for name in made["alone"] if name.startswith("examples/")]) > 4
    )  # by the size of the source


def test_wrong_values_of_a_run_are_reported_where_it_runs() -> None:
    component = ImageExampleGen("photos", splits={"train": 1})
    properties = {**component.exec_properties, "max_reject_fraction": 2.0}
    with pytest.raises(Exception, match="max_reject_fraction is 2"):
        IngestSettings.of(properties)


@pytest.fixture
def examples(colours: ModuleType, tmp_path: Path) -> Any:
    colours.write(tmp_path / "in" / "Split-train" / "data_tfrecord-00000-of-00001.gz", colours.examples(2))
    made = artifact(standard_artifacts.Examples, tmp_path / "in")
    made.split_names = '["train"]'
    return made


def versioned(examples: Any, store: Path, folder: Path) -> tuple[Any, Any]:
    component = DatasetVersioner(
        examples=Channel(type=standard_artifacts.Examples), dataset="items", store=str(store)
    )
    dataset = artifact(DatasetVersion, folder / "dataset")
    checked_out = artifact(standard_artifacts.Examples, folder / "examples")
    Versioner().Do(
        {"ingested_examples": [examples]},
        {"dataset": [dataset], "examples": [checked_out]},
        dict(component.exec_properties),
    )
    return dataset, checked_out


def test_the_same_data_is_the_same_version_and_gives_the_same_files(examples: Any, tmp_path: Path) -> None:
    first, _ = versioned(examples, tmp_path / "datasets", tmp_path / "1")
    second, checked_out = versioned(examples, tmp_path / "datasets", tmp_path / "2")
    assert (first.dataset, first.version) == (second.dataset, second.version) == ("items", "v1")
    assert artifact_utils.decode_split_names(checked_out.split_names) == ["train"]
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_artifacts_of_earlier_releases_are_left_alone(examples: Any, tmp_path: Path) -> None:
    """A root whose ML Metadata has the types of before: what was made then is not what is made now."""
    dataset, _ = versioned(examples, tmp_path / "datasets", tmp_path / "1")
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(tmp_path / "metadata.sqlite")
    mlmd = metadata_store.MetadataStore(config)
    kind = metadata_store_pb2.ArtifactType(name="DatasetVersion")
    for name in ("dataset", "version", "digest"):
        kind.properties[name] = metadata_store_pb2.STRING
    old = metadata_store_pb2.Artifact(
        type_id=mlmd.put_artifact_type(kind), uri=dataset.uri, state=metadata_store_pb2.Artifact.LIVE
    )
    for name in ("dataset", "version", "digest"):
        old.properties[name].string_value = getattr(dataset, name)
    mlmd.put_artifacts([old])
    store = str(tmp_path / "datasets")
    [manifest] = DatasetStore(store).log("items")
    assert manifest.digest == dataset.digest
    assert driver._earlier_outputs(mlmd, store, manifest, 1) is None
    # Its folder is read as that of any other version.
    assert (artifact(DatasetVersion, Path(dataset.uri)).version, dataset.digest != "") == ("v1", True)
