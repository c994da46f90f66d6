"""What is compiled is what open-source Kubeflow Pipelines runs, of stock components and of any other node."""
# ruff: noqa: E501 - tables of what is compiled

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tfx import v1 as tfx
from tfx.orchestration.data_types import RuntimeParameter

from mlplatform.config_file import ConfigError
from mlplatform.orchestration.kubeflow.compile import DEFAULT_IMAGE, ENTRY_POINT, compile_pipeline
from mlplatform.orchestration.kubeflow.errors import CompileError, PackageError, ParameterValueError
from mlplatform.orchestration.kubeflow.options import KubernetesOptions, with_options
from mlplatform.pipelines.item_category import create_pipeline

ROOT = "s3://bucket/team"
Compile = Callable[..., Any]


def tasks(package: Any) -> dict[str, Any]:
    return package.spec["root"]["dag"]["tasks"]


def container(package: Any, task: str) -> dict[str, Any]:
    return package.spec["deploymentSpec"]["executors"][f"{task}_executor"]["container"]


def facts(package: Any, task: str) -> dict[str, Any]:
    arguments = container(package, task)["args"]
    return json.loads(arguments[arguments.index("--node") + 1])


def test_the_same_bytes_each_time_and_the_pipeline_as_it_was(compile_: Compile, every_kind: Any) -> None:
    pipeline = every_kind.create_pipeline(ROOT)
    first, second = (compile_pipeline(pipeline, root=ROOT).text for _ in range(2))
    assert first == second == compile_().text
    assert pipeline.pipeline_info.pipeline_name == "every_kind"
    assert [node.id for node in pipeline.components].count("latest_blessed") == 1
    assert next(iter(yaml.safe_load_all(first))) == compile_().spec


def test_names_types_and_values(compile_: Compile) -> None:
    package = compile_(parameters={"threshold": "0.25"})
    assert package.spec["pipelineInfo"]["name"] == "every-kind"
    assert set(tasks(package)) == {
        "curated-schema",
        "measure-data",
        "latest-blessed",
        "use-numbers",
        "only-if-good",
    }
    assert package.nodes["measure-data"] == "measure_data"
    used = tasks(package)["use-numbers"]
    assert used["dependentTasks"] == ["latest-blessed", "measure-data"]
    assert used["inputs"]["parameters"]["count"] == {
        "taskOutputParameter": {"producerTask": "measure-data", "outputParameterKey": "count"}
    }
    declared = package.spec["components"]["use-numbers"]["inputDefinitions"]["parameters"]
    assert declared["count"] == {"parameterType": "NUMBER_INTEGER"}
    assert package.parameters == {
        "threshold": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.25, "isOptional": True},
        "title": {"parameterType": "STRING"},
    }
    arguments = container(package, "use-numbers")["args"]
    inputs = json.loads(arguments[arguments.index("--json_serialized_inputs_spec_args") + 1])
    assert inputs["parameters"]["count"] == {"parameterType": "NUMBER_INTEGER"}
    assert inputs["artifacts"]["baseline"]["artifactType"]["instanceSchema"].startswith("title: tfx.Model\n")


def test_the_entry_point_is_given_what_tfx_does_not_say(compile_: Compile) -> None:
    package = compile_()
    made = container(package, "measure-data")
    assert tuple(made["command"]) == ENTRY_POINT
    assert made["args"][:4] == [
        "--executor_class_path", "every_kind.measure_data_Executor", "--json_serialized_invocation_args", "{{$}}",
    ]  # fmt: skip
    assert made["image"] == DEFAULT_IMAGE
    found = facts(package, "measure-data")
    code = zipfile.ZipFile(io.BytesIO(base64.b64decode(found.pop("code"))))
    assert code.namelist() == ["every_kind.py"]
    assert found == {
        "id": "measure_data", "pipeline": "every_kind", "root": ROOT, "type": "every_kind.measure_data",
        "upstream": ["curated_schema"], "json": ["sizes"], "booleans": ["is_strict"], "is_function": True,
    }  # fmt: skip


def test_a_resolver_is_one_task_that_is_never_cached(compile_: Compile) -> None:
    package = compile_()
    task = tasks(package)["latest-blessed"]
    assert "cachingOptions" not in task
    assert tasks(package)["use-numbers"]["cachingOptions"] == {"enableCache": True}
    arguments = container(package, "latest-blessed")["args"]
    assert json.loads(arguments[1]) == {
        "strategy": "tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy.LatestBlessedModelStrategy",
        "config": {},
        "outputs": {"model": "tfx.Model", "model_blessing": "tfx.ModelBlessing"},
        "producers": {},
    }  # fmt: skip


def test_conditions_name_what_the_task_is_given(compile_: Compile) -> None:
    task = tasks(compile_())["only-if-good"]
    assert (
        task["triggerPolicy"]["condition"]
        == "(inputs.artifacts['model'].artifacts[0].metadata['good'] == 1.0)"
    )
    assert set(task["inputs"]["artifacts"]) == {"model"}


def test_an_exit_handler_follows_a_part_that_knows_the_parameters(compile_: Compile) -> None:
    package = compile_(handler=True)
    assert set(tasks(package)) == {"tfx-dag", "report-end"}
    inner = package.spec["components"]["tfx-dag"]
    assert set(inner["dag"]["tasks"]) == {
        "curated-schema",
        "measure-data",
        "latest-blessed",
        "use-numbers",
        "only-if-good",
    }
    assert set(inner["inputDefinitions"]["parameters"]) == {"threshold", "title"}
    assert tasks(package)["tfx-dag"]["inputs"]["parameters"]["title"] == {"componentInputParameter": "title"}
    handler = tasks(package)["report-end"]
    assert handler["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert handler["inputs"]["parameters"]["final_status"] == {"taskFinalStatus": {"producerTask": "tfx-dag"}}


def test_stock_components_with_their_code(taxi: Any) -> None:
    found = facts(taxi, "Trainer")
    names = zipfile.ZipFile(io.BytesIO(base64.b64decode(found["code"]))).namelist()
    assert {"trainer.py", "features.py"} <= set(names)
    assert tasks(taxi)["Trainer"]["inputs"]["parameters"]["module_file"]["runtimeValue"] == {
        "constant": "trainer.py"
    }
    assert facts(taxi, "CsvExampleGen")["driver"] == "tfx.components.example_gen.driver.FileBasedDriver"
    assert "lifecycle" not in container(taxi, "CsvExampleGen")
    assert "cachingOptions" not in tasks(taxi)["CsvExampleGen"]
    assert taxi.read_paths == {"CsvExampleGen": ["/mnt/trips"]}
    assert container(taxi, "StatisticsGen")["args"][-1] == "--direct_num_workers=1"
    assert not taxi.warnings  # all its paths are mounted
    assert len(taxi.text) < 1.5 * 40_000


def test_nothing_of_this_machine_is_in_it(taxi: Any) -> None:
    assert str(Path(__file__).parents[2]) not in taxi.text


def test_a_packaged_pipeline(tmp_path: Path) -> None:
    block = {"image": "registry.example.com/team/items:7", "nodes": {"ModelTrainer": {"memory": "8Gi"}}}
    pipeline = create_pipeline(
        "s3://bucket/photos", ROOT, data_splits=["train", "validation"], kubernetes=block
    )
    package = compile_pipeline(pipeline, root=ROOT)
    assert not package.warnings
    trainer = container(package, "ModelTrainer")
    assert trainer["resources"] == {"memoryLimit": 8.589934592}
    assert trainer["image"] == "registry.example.com/team/items:7"
    assert (
        facts(package, "ImageExampleGen")["driver"] == "mlplatform.components.image_example_gen.driver.Driver"
    )
    # It compares with what is pushed when it runs, of which the cluster's cache knows nothing.
    assert "cachingOptions" not in tasks(package)["ModelValidator"]
    assert "cachingOptions" in tasks(package)["ModelTrainer"]
    package.write(tmp_path / "package.yaml")
    assert (tmp_path / "package.yaml").read_text() == package.text


def test_options_become_spec_and_platform_document(compile_: Compile) -> None:
    block = {
        "cpu": "500m", "env": {"A": "1"}, "labels": {"team": "ml"}, "volumes": {"data": "/mnt/data"},
        "secrets": {"s3": {"env": {"AWS_ACCESS_KEY_ID": "accesskey"}, "path": "/etc/s3"}},
        "config_maps": {"settings": {"env": {"MODE": "mode"}}}, "image_pull_secrets": ["registry"],
        "nodes": {
            "use_numbers": {
                "image": "team/gpu:1", "gpu": 2, "retries": 3, "retry_wait_s": 30, "timeout_s": 600, "cache": False,
                "node_selector": {"pool": "gpu"}, "env": {"B": "2"}, "ephemeral_storage": {"size": "20Gi"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "affinity": [{"labels": [{"key": "zone", "values": ["a", "b"]}], "weight": 10}],
            }
        },
    }  # fmt: skip
    package = compile_(kubernetes=block)
    made = container(package, "use-numbers")
    assert made["image"] == "team/gpu:1"
    assert made["env"] == [
        {"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "TMPDIR", "value": "/scratch"},
    ]  # fmt: skip
    assert made["resources"] == {"cpuLimit": 0.5, "accelerator": {"type": "nvidia.com/gpu", "count": "2"}}
    assert container(package, "measure-data")["resources"] == {"cpuLimit": 0.5}
    task = tasks(package)["use-numbers"]
    assert task["retryPolicy"] == {
        "maxRetryCount": 3, "backoffDuration": "30s", "backoffFactor": 2.0, "backoffMaxDuration": "3600s",
    }  # fmt: skip
    assert "cachingOptions" not in task
    entries = package.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(entries) == {f"{name}_executor" for name in tasks(package)} - {"curated-schema_executor"}
    entry = entries["use-numbers_executor"]
    constant = {"runtimeValue": {"constant": "s3"}}
    assert entry["secretAsEnv"] == [
        {
            "secretName": "s3", "secretNameParameter": constant, "optional": False,
            "keyToEnv": [{"secretKey": "accesskey", "envVar": "AWS_ACCESS_KEY_ID"}],
        }
    ]  # fmt: skip
    assert entry["secretAsVolume"][0]["mountPath"] == "/etc/s3"
    assert entry["configMapAsEnv"][0]["keyToEnv"] == [{"configMapKey": "mode", "envVar": "MODE"}]
    assert entry["pvcMount"][0]["mountPath"] == "/mnt/data"
    assert entry["imagePullSecret"][0]["secretName"] == "registry"
    assert entry["emptyDirMounts"] == [
        {"volumeName": "scratch", "mountPath": "/scratch", "sizeLimit": "20Gi"}
    ]
    assert entry["activeDeadlineSeconds"] == "600"
    assert entry["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert entry["tolerations"][0]["operator"] == "Exists"
    assert entry["nodeAffinity"] == [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}], "weight": 10}
    ]
    assert entry["podMetadata"] == {"labels": {"team": "ml"}}
    assert "nodeSelector" not in entries["measure-data_executor"]


def test_options_of_nodes_that_are_not_there(every_kind: Any) -> None:
    pipeline = every_kind.create_pipeline(ROOT)
    with pytest.raises(ConfigError, match="unknown node 'Trainer'; the nodes are curated_schema"):
        with_options(pipeline, {"nodes": {"Trainer": {"gpu": 1}}})
    with pytest.raises(ConfigError, match="unknown node 'Trainer'"):
        compile_pipeline(pipeline, root=ROOT, options=KubernetesOptions(nodes={"Trainer": {"gpu": 1}}))


def make(*components: Any, name: str = "small") -> Any:
    return tfx.dsl.Pipeline(pipeline_name=name, pipeline_root=ROOT, components=list(components))


def importer(name: str, uri: Any = "s3://b/x") -> Any:
    kind = tfx.types.standard_artifacts.Schema
    return tfx.dsl.Importer(source_uri=uri, artifact_type=kind).with_id(name)


def trainer(**arguments: Any) -> Any:
    examples = tfx.components.CsvExampleGen(input_base="gs://bucket/trips")
    done = tfx.components.Trainer(
        examples=examples.outputs["examples"], train_args=tfx.proto.TrainArgs(num_steps=1),
        eval_args=tfx.proto.EvalArgs(num_steps=1), **arguments,
    )  # fmt: skip
    return make(examples, done)


def infra_validator() -> Any:
    model = tfx.dsl.Importer(source_uri="s3://b/m", artifact_type=tfx.types.standard_artifacts.Model)
    spec = tfx.proto.ServingSpec(tensorflow_serving=tfx.proto.TensorFlowServing(tags=["latest"]))
    return make(model, tfx.components.InfraValidator(model=model.outputs["result"], serving_spec=spec))


def by_a_function(every_kind: Any) -> Any:
    strategy = every_kind.tfx.dsl.experimental.LatestArtifactStrategy

    class Own(strategy):  # type: ignore[misc, valid-type]
        pass

    return every_kind.create_pipeline(ROOT, strategy=Own)


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (lambda e: make(importer("a_b"), importer("a-b")), "'a-b' and 'a_b' would both be the task 'a-b'"),
        (lambda e: make(importer("tfx-dag")), "a node is called 'tfx-dag'"),
        (lambda e: make(importer("x" * 122)), "a name of 122 characters"),
        (lambda e: make(importer("9lives")), "begins with a letter"),
        (lambda e: make(importer("x"), name="Taxi"), "illegal"),
        (lambda e: make(importer("x", "/mnt/schema")), "it can from s3://"),
        (lambda e: make(tfx.components.CsvExampleGen(input_base="gs://b/x").with_platform_config(object())), "has a platform_config"),
        (lambda e: infra_validator(), "InfraValidator"),
        (lambda e: by_a_function(e), "which no ledger can answer"),
        (lambda e: trainer(module_file="/nowhere/trainer.py"), "there is no such file"),
        (lambda e: trainer(run_fn="m.f", custom_config={"x": "y" * 120_000}), "bytes together"),
        (
            lambda e: make(
                *(importer(n, RuntimeParameter(name="uri", ptype=str, default=n)) for n in ("a", "b"))
            ),
            "'uri' has more than one type or default",
        ),
    ],
)  # fmt: skip
def test_what_cannot_run_there(made: Callable[[Any], Any], problem: str, every_kind: Any) -> None:
    with pytest.raises((CompileError, PackageError)) as raised:
        compile_pipeline(made(every_kind), root=ROOT)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_parameters_that_are_not_its_own(compile_: Compile) -> None:
    with pytest.raises(
        ParameterValueError, match="no runtime parameter treshold; its runtime parameters are"
    ):
        compile_(parameters={"treshold": "1"})
    with pytest.raises(ParameterValueError, match="threshold is 'high', not float"):
        compile_(parameters={"threshold": "high"})


def test_places_that_no_pod_sees_are_warned_of(every_kind: Any, tmp_path: Path) -> None:
    package = compile_pipeline(every_kind.create_pipeline(ROOT), root=tmp_path)
    assert package.warnings[0].startswith(f"the root {tmp_path} is a folder of this machine")
    options = {"volumes": {"data": str(tmp_path)}}
    assert not compile_pipeline(every_kind.create_pipeline(ROOT), root=tmp_path, options=options).warnings
