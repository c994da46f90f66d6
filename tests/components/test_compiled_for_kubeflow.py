"""TFX's compiler for Kubeflow takes pipelines of our components, with parameters that each run chooses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.pipeline import Pipeline
from tfx.utils import import_utils

import mlplatform.artifacts
import mlplatform.components
from mlplatform.components import (
    Approval,
    BatchPredictor,
    DatasetImporter,
    DatasetVersioner,
    DataValidator,
    ImageExampleGen,
    IndexBuilder,
    ModelTrainer,
    ModelValidator,
    ServingPusher,
)
from mlplatform.components.image_example_gen.errors import SplitsError
from mlplatform.config_file import ConfigError

Compile = Callable[[Any], dict[str, Any]]
ROOT = "s3://bucket/root"


def of_run(name: str, kind: type = str, default: Any = None) -> RuntimeParameter:
    return RuntimeParameter(name=name, ptype=kind, default=default)


def pipeline(components: list[Any]) -> Pipeline:
    return Pipeline(pipeline_name="small", pipeline_root=f"{ROOT}/pipelines", components=components)


def every_component() -> list[Any]:
    ingest = ImageExampleGen(
        of_run("data"),
        splits={"train": 4, "eval": 1},
        split_by=of_run("split_by", default="item_id"),
        labels=of_run("labels", default='["hat", "shoe"]'),
        max_reject_fraction=of_run("max_reject_fraction", float, 0.05),
        max_image_bytes=of_run("max_image_bytes", int, 1 << 20),
        max_image_pixels=of_run("max_image_pixels", int, 1 << 20),
        follow_links=of_run("follow_links", int, 0),
        shards=of_run("shards", int, 2),
        reports_dir=of_run("reports_dir"),
    )
    version = DatasetVersioner(
        examples=ingest.outputs["examples"],
        dataset=of_run("dataset"),
        store=of_run("store"),
        key=of_run("key", default='["item_id"]'),
        label=of_run("label", default="label"),
        message=of_run("message", default=""),
        training_splits=of_run("training_splits", default='["train"]'),
        is_firewall_on=of_run("is_firewall_on", int, 1),
    )
    gate = DataValidator(
        examples=version.outputs["examples"],
        dataset=version.outputs["dataset"],
        schema_path=of_run("schema_path", default=""),
        policy=of_run("policy", default="{}"),
        train_split=of_run("train_split", default="train"),
        drift_threshold=of_run("drift_threshold", float, 0.1),
        serving_logs=of_run("serving_logs", default=""),
        serving_features=of_run("serving_features", default="null"),
        reports_dir=of_run("reports_dir"),
    )
    trainer = ModelTrainer(
        examples=version.outputs["examples"],
        schema=gate.outputs["schema"],
        dataset=version.outputs["dataset"],
        run_fn=of_run("run_fn"),
        hyperparameters=of_run("hyperparameters", default="{}"),
        train_splits=of_run("train_splits", default='["train"]'),
        eval_splits=of_run("eval_splits", default='["eval"]'),
        work_dir=of_run("work_dir"),
    )
    model_gate = ModelValidator(
        model=trainer.outputs["model"],
        examples=version.outputs["examples"],
        eval_splits=of_run("judging_splits", default='["test"]'),
        thresholds=of_run("thresholds", default='{"top_1": 0.5}'),
        budget=of_run("budget", default="{}"),
        models_dir=of_run("models_dir"),
        model_name=of_run("model_name"),
        reports_dir=of_run("reports_dir"),
        kind=of_run("kind", default="classification"),
    )
    approval = Approval(
        model=trainer.outputs["model"],
        blessing=model_gate.outputs["blessing"],
        models_dir=of_run("models_dir"),
        model_name=of_run("model_name"),
        approvers=of_run("approvers", default='["ann"]'),
        time_limit_h=of_run("time_limit_h", float, 48.0),
        poll_s=of_run("poll_s", float, 5.0),
    )
    pusher = ServingPusher(
        model=trainer.outputs["model"],
        approval=approval.outputs["approval"],
        blessing=model_gate.outputs["blessing"],
        infra_blessing=model_gate.outputs["infra_blessing"],
        evaluation=model_gate.outputs["evaluation"],
        dataset=version.outputs["dataset"],
        models_dir=of_run("models_dir"),
        model_name=of_run("model_name"),
        servers=of_run("servers", default="[]"),
        timeout_s=of_run("timeout_s", float, 60.0),
        keep=of_run("keep", int, 0),
        allow_withdrawn=of_run("allow_withdrawn", int, 0),
    )
    imported = DatasetImporter(
        of_run("dataset"), store=of_run("store"), version=of_run("version", default="latest")
    )
    predictor = BatchPredictor(
        model=trainer.outputs["model"],
        examples=imported.outputs["examples"],
        splits=of_run("predicted_splits", default='["eval"]'),
        signature=of_run("signature", default="serving_default"),
        model_name=of_run("model_name"),
        blessing=model_gate.outputs["blessing"],
    )
    index = IndexBuilder(
        model=trainer.outputs["model"],
        examples=version.outputs["examples"],
        blessing=model_gate.outputs["blessing"],
        dataset=version.outputs["dataset"],
        query_splits=of_run("query_splits", default='["eval"]'),
        plan=of_run("plan", default="{}"),
        thresholds=of_run("index_thresholds", default="{}"),
        columns=of_run("columns", default="null"),
        models_dir=of_run("models_dir"),
        model_name=of_run("model_name"),
        work_dir=of_run("work_dir"),
        reports_dir=of_run("reports_dir"),
    )
    return [ingest, version, gate, trainer, model_gate, approval, pusher, imported, predictor, index]


def test_every_component_with_parameters_of_the_run(compile_for_kubeflow: Compile) -> None:
    components = every_component()
    ours = set(mlplatform.components.__all__)
    assert {type(component).__name__ for component in components} == ours
    specification = compile_for_kubeflow(pipeline(components))
    tasks = specification["root"]["dag"]["tasks"]
    assert set(tasks) == {component.id for component in components}
    for component in components:
        given = tasks[component.id]["inputs"].get("parameters", {})
        for name, value in component.exec_properties.items():
            if isinstance(value, RuntimeParameter):
                assert given[name] == {"componentInputParameter": value.name}, (component.id, name)
    kinds = {
        name: parameter["parameterType"]
        for name, parameter in specification["root"]["inputDefinitions"]["parameters"].items()
    }
    assert kinds["max_reject_fraction"] == "NUMBER_DOUBLE"
    assert kinds["shards"] == "NUMBER_INTEGER"
    assert kinds["servers"] == "STRING"


def test_artifact_types_are_named_by_what_a_container_imports(compile_for_kubeflow: Compile) -> None:

    specification = compile_for_kubeflow(pipeline(every_component()))
    versioner = specification["components"]["DatasetVersioner"]["outputDefinitions"]["artifacts"]
    assert "title: mlplatform.DatasetVersion" in versioner["dataset"]["artifactType"]["instanceSchema"]


def test_item_category(compile_for_kubeflow: Compile, tmp_path: Path) -> None:
    from mlplatform.pipelines.item_category import create_pipeline

    data = tmp_path / "photos"
    for split in ("train", "validation"):
        for label in ("hat", "shoe"):
            (data / split / label).mkdir(parents=True)
            (data / split / label / "1.jpg").write_bytes(b"")
    specification = compile_for_kubeflow(create_pipeline(data=data, root=ROOT))
    assert set(specification["root"]["dag"]["tasks"]) == {
        "ImageExampleGen",
        "DatasetVersioner",
        "DataValidator",
        "ModelTrainer",
        "ModelValidator",
        "ServingPusher",
    }


@pytest.mark.parametrize("name", ["listing", "splits", "pattern"])
def test_what_makes_the_pipeline_cannot_be_a_parameter_of_the_run(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is known only when the pipeline runs"):
        ImageExampleGen("photos", **{"splits": {"train": 1}, name: of_run(name)})


@pytest.mark.parametrize("data", [of_run("data"), "s3://bucket/photos"])
def test_data_that_is_elsewhere_needs_the_names_of_its_splits(data: Any) -> None:
    with pytest.raises(SplitsError, match="no splits"):
        ImageExampleGen(data)


def test_known_values_are_checked_beside_those_of_the_run() -> None:
    with pytest.raises(ConfigError, match="max_reject_fraction is 2"):
        ImageExampleGen(
            of_run("data"), splits={"train": 1}, shards=of_run("shards", int), max_reject_fraction=2
        )


def test_its_containers_find_every_artifact_type_by_name() -> None:
    types = [
        value
        for value in vars(mlplatform.artifacts).values()
        if isinstance(value, type) and value.__module__ == "mlplatform.artifacts"
    ]
    assert types
    for each in types:
        assert import_utils.import_class_by_path(each.TYPE_NAME) is each  # as TFX's container does
