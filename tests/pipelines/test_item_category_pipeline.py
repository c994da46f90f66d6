"""The pipeline as it is handed to a runner: made where neither its data nor its files are."""

import re
from pathlib import Path

import ml_metadata
import pytest
from tfx.dsl.compiler import compiler

from mlplatform.home import Home
from mlplatform.pipelines.item_category import create_pipeline


def test_nothing_of_the_machine_that_makes_it_is_in_its_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pipeline = create_pipeline(
        data="s3://bucket/photos",
        root="s3://bucket/team",
        data_splits=["train", "validation", "test"],
        schema="s3://bucket/schema.pbtxt",
        model={"backbone": "/weights/of/the/pods.keras"},
    )
    assert list(tmp_path.iterdir()) == []
    nodes = "".join(map(str, compiler.Compiler().compile(pipeline).nodes))
    assert set(re.findall(r'"(/[^"\\]*)', nodes)) == {"/weights/of/the/pods.keras"}
    assert {"s3://bucket/team/" + place in nodes for place in ("datasets", "models", "reports", "work")} == {
        True
    }
    assert str(tmp_path) not in nodes
    assert pipeline.pipeline_info.pipeline_root == str(
        Home.at("s3://bucket/team").pipelines / "item_category"
    )
    assert [path.name for path in tmp_path.iterdir()] == [
        "cache"
    ]  # compiled for this machine, it is to run here
    ml_metadata.MetadataStore(pipeline.metadata_connection_config).get_artifacts()
    assert Home.at("s3://bucket/team").metadata_db.is_file()


def test_data_that_is_not_here_is_no_error_until_it_is_read(tmp_path: Path) -> None:
    pipeline = create_pipeline(data="/data/of/the/pods", root=str(tmp_path))
    assert next(iter(pipeline.components)).id == "ImageExampleGen"
