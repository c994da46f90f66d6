"""A stored version as the Examples of a pipeline."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tfx.orchestration.portable import data_types
from tfx.types import artifact_utils, standard_artifacts

from mlplatform.artifacts import DatasetVersion
from mlplatform.components import DatasetImporter
from mlplatform.components.dataset_importer.component import DatasetImporterSpec
from mlplatform.components.dataset_importer.driver import DIGEST, TAXONOMY, Driver
from mlplatform.components.dataset_importer.executor import Executor
from mlplatform.components.image_example_gen.photo_folder import NoPhotosError
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import VersionNotFoundError
from mlplatform.fingerprints.digests import Digests
from mlplatform.orchestration.local.cache.cache_key import make_key
from mlplatform.tfx_io.dataset_version import read_taxonomy_of, read_version


@pytest.fixture
def store(colours: ModuleType, tmp_path: Path) -> DatasetStore:
    """A store with `items@v1`."""
    for split, count in (("train", 3), ("validation", 2)):
        folder = tmp_path / "examples" / f"Split-{split}"
        folder.mkdir(parents=True)
        colours.write(folder / "data_tfrecord-00000-of-00001.gz", colours.examples(count))
    store = DatasetStore(tmp_path / "home" / "datasets")
    store.commit(
        "items", tmp_path / "examples", key=["item_id"], is_firewall_on=False, taxonomy="renames: {rot: red}"
    )
    return store


def properties(store: DatasetStore, version: str = "latest") -> dict[str, Any]:
    made = DatasetImporter("items", store.url, version)
    return {name: value for name, value in made.exec_properties.items() if value is not None}


def test_the_executor_gives_the_version_and_its_taxonomy(store: DatasetStore, tmp_path: Path) -> None:
    examples, dataset = standard_artifacts.Examples(), DatasetVersion()
    examples.uri, dataset.uri = str(tmp_path / "out" / "examples"), str(tmp_path / "out" / "dataset")
    Executor().Do({}, {"examples": [examples], "dataset": [dataset]}, properties(store))

    assert artifact_utils.decode_split_names(examples.split_names) == ["train", "validation"]
    assert sorted(path.name for path in Path(examples.uri).iterdir()) == ["Split-train", "Split-validation"]
    assert read_version(dataset.uri)["version"] == "v1"
    taxonomy = read_taxonomy_of(dataset.uri)
    assert taxonomy is not None
    assert taxonomy.current("rot") == "red"
    assert len(store.log("items")) == 1


def test_the_driver_names_what_a_tag_stands_for_now(store: DatasetStore) -> None:
    def named() -> dict[str, str]:
        info = data_types.ExecutionInfo(exec_properties=properties(store))
        found = Driver(None).run(info).exec_properties
        return {name: found[name].string_value for name in (DIGEST, TAXONOMY)}

    before = named()
    assert before[DIGEST] == store.show("items").digest
    store.declare_taxonomy("items", "v1", "renames: {rosso: red}")
    assert named()[DIGEST] == before[DIGEST]
    assert named()[TAXONOMY] != before[TAXONOMY]


def test_a_cache_sees_what_a_name_comes_to_mean(
    store: DatasetStore, colours: ModuleType, tmp_path: Path
) -> None:
    names = ("latest", "good", "v1")

    def keys() -> list[str]:
        made = [
            make_key(
                pipeline="p",
                node="n",
                component="DatasetImporter",
                executor="",
                inputs={},
                outputs={},
                parameters=properties(store, name),
                digests=Digests(tmp_path / "memory"),
                roles=DatasetImporterSpec.PARAMETER_ROLES,
            )
            for name in names
        ]
        return [each.key for each in made]

    def changed(before: list[str], after: list[str]) -> list[str]:
        return [name for name, old, new in zip(names, before, after, strict=True) if old != new]

    first = keys()
    assert keys() == first
    store.tag("items", "v1", "good")
    second = keys()
    assert changed(first, second) == ["latest", "good"]
    colours.write(tmp_path / "examples/Split-train/data_tfrecord-00000-of-00001.gz", colours.examples(4))
    assert store.commit("items", tmp_path / "examples", is_firewall_on=False).is_new
    third = keys()
    assert changed(second, third) == ["latest", "good"]
    store.declare_taxonomy("items", "v1", "renames: {rosso: red}")
    assert changed(third, keys()) == ["latest", "good", "v1"]


@pytest.mark.parametrize("pipeline", ["item_category", "item_color"])
def test_a_pipeline_takes_a_version_instead_of_a_folder(
    store: DatasetStore, tmp_path: Path, pipeline: str
) -> None:
    module = importlib.import_module(f"mlplatform.pipelines.{pipeline}")
    check_arguments, create_pipeline = module.check_arguments, module.create_pipeline
    root = tmp_path / "home"
    check_arguments("items@v1", root)
    nodes = [node.id for node in create_pipeline("items@v1", root).components]
    assert nodes[0] == "DatasetImporter"
    assert not {"ImageExampleGen", "DatasetVersioner"} & {*nodes}
    with pytest.raises(VersionNotFoundError):
        check_arguments("items@v9", root)
    (tmp_path / "examples" / "Split-validation" / "data_tfrecord-00000-of-00001.gz").unlink()
    (tmp_path / "examples" / "Split-validation").rmdir()
    store.commit("alone", tmp_path / "examples")
    with pytest.raises(NoPhotosError, match="none is left to evaluate on"):
        check_arguments("alone@v1", root)
