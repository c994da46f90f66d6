"""The server takes and refuses what that of Kubeflow Pipelines 2.17 took and refused.

`verdicts.json` holds the verdicts of its own code on the package in `stock.json` (as TFX 1.16 compiled it),
repaired so that it runs, and broken in one way at a time.
"""

import base64
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.testing.kubeflow import RefusedError, submit

HERE = Path(__file__).parent
STOCK = json.loads((HERE / "stock.json").read_text())
VERDICTS = json.loads((HERE / "verdicts.json").read_text())["verdicts"]
Spec = dict[str, Any]


def repaired(without: str = "") -> Spec:
    """The package with all repairs that it took to run, but for one."""
    spec = copy.deepcopy(STOCK["pipelineSpec"])
    executors, root = spec["deploymentSpec"]["executors"], spec["root"]
    if without != "defaults":
        about = root["inputDefinitions"]["parameters"]["train_args"]
        about.update(defaultValue='{"num_steps": 7}', isOptional=True)
    for executor in executors.values():
        if without != "resolver" and "resolver" in executor:
            query = json.dumps(executor.pop("resolver")["outputArtifactQueries"]).encode()
            arguments = [base64.b64encode(query).decode(), "{{$}}"]
            command = ["python", "-m", "x.resolve"]
            executor["container"] = {"image": "localhost/tfx:1", "command": command, "args": arguments}
    for name, task in root["dag"]["tasks"].items():
        task["taskInfo"] = {"name": name}
        if without != "lifecycle":
            container = executors[f"{name}_executor"].get("container", {})
            if container.pop("lifecycle", None):
                task.pop("cachingOptions", None)
    return spec


def tasks(spec: Spec) -> dict[str, Any]:
    return spec["root"]["dag"]["tasks"]  # type: ignore[no-any-return]


def rename(spec: Spec, old: str, new: str) -> None:
    tasks(spec)[new] = tasks(spec).pop(old)
    tasks(spec)[new]["taskInfo"]["name"] = new
    for task in tasks(spec).values():
        task["dependentTasks"] = [new if each == old else each for each in task.get("dependentTasks", [])]
        for given in task.get("inputs", {}).get("artifacts", {}).values():
            if given.get("taskOutputArtifact", {}).get("producerTask") == old:
                given["taskOutputArtifact"]["producerTask"] = new


def executor(spec: Spec, name: str = "SchemaGen") -> dict[str, Any]:
    return spec["deploymentSpec"]["executors"][f"{name}_executor"]["container"]  # type: ignore[no-any-return]


def source(spec: Spec) -> dict[str, Any]:
    return tasks(spec)["SchemaGen"]["inputs"]["artifacts"]["statistics"]["taskOutputArtifact"]  # type: ignore[no-any-return]


MUTATIONS: dict[str, Callable[[Spec], Any]] = {
    "underscore": lambda spec: rename(spec, "SchemaGen", "my_component"),
    "digit": lambda spec: rename(spec, "SchemaGen", "9lives"),
    "long121": lambda spec: rename(spec, "SchemaGen", "a" * 121),
    "long122": lambda spec: rename(spec, "SchemaGen", "a" * 122),
    "producer-missing": lambda spec: source(spec).update(producerTask="StatisticsGen_task"),
    "dependent-missing": lambda spec: tasks(spec)["SchemaGen"].update(dependentTasks=["nosuch"]),
    "outputkey-missing": lambda spec: source(spec).update(outputArtifactKey="nosuch"),
    "executor-unknown-field": lambda spec: executor(spec).update(bogus=1),
    "unknown-field": lambda spec: spec["root"].update(bogus=1),
    "resources": lambda spec: executor(spec).update(
        resources={
            "cpuLimit": 4.0,
            "memoryLimit": 16.0,
            "accelerator": {"type": "nvidia.com/gpu", "count": "1"},
        }
    ),
    "name-upper": lambda spec: spec["pipelineInfo"].update(name="Taxi_Pipeline"),
    "name-all-upper": lambda spec: spec["pipelineInfo"].update(name="TAXI"),
    "schema200": lambda spec: spec.update(schemaVersion="2.0.0"),
    "cycle": lambda spec: tasks(spec)["StatisticsGen"].setdefault("dependentTasks", []).append("SchemaGen"),
    "retry": lambda spec: tasks(spec)["Trainer"].update(
        retryPolicy={
            "maxRetryCount": 2,
            "backoffDuration": "30s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": "3600s",
        }
    ),
    "bad-cel": lambda spec: tasks(spec)["Pusher"].update(triggerPolicy={"condition": "this is not CEL (("}),
    "no-image": lambda spec: executor(spec).update(image=""),
    "executor-missing": lambda spec: spec["components"]["SchemaGen"].update(executorLabel="nosuch"),
    "component-missing": lambda spec: tasks(spec)["SchemaGen"]["componentRef"].update(name="nosuch"),
    "big": lambda spec: executor(spec)["args"].append("x" * 1_200_000),
}


def secret(name: str) -> dict[str, Any]:
    return {"secretName": name, "secretNameParameter": {"runtimeValue": {"constant": name}}}


PLATFORMS = {
    "k8s-good": {
        "Trainer_executor": {
            "nodeSelector": {"labels": {"pool": "gpu"}},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "secretAsEnv": [
                {
                    **secret("s3"),
                    "optional": False,
                    "keyToEnv": [{"secretKey": "accesskey", "envVar": "AWS_ACCESS_KEY_ID"}],
                }
            ],
            "pvcMount": [
                {
                    "constant": "data-pvc",
                    "pvcNameParameter": {"runtimeValue": {"constant": "data-pvc"}},
                    "mountPath": "/mnt/data",
                }
            ],
            "imagePullSecret": [secret("reg")],
            "imagePullPolicy": "IfNotPresent",
            "emptyDirMounts": [
                {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "2Gi"}
            ],
            "activeDeadlineSeconds": "3600",
            "podMetadata": {"labels": {"team": "ml"}},
        }
    },
    "k8s-unknown-field": {"Trainer_executor": {"nodeSelektor": {"labels": {"pool": "gpu"}}}},
    "k8s-unknown-executor": {"Trayner_executor": {"nodeSelector": {"labels": {"pool": "gpu"}}}},
    "k8s-wrong-type": {"Trainer_executor": {"nodeSelector": "gpu"}},
}


def package(name: str) -> str:
    if name == "wrapper":
        return json.dumps(STOCK)
    if name == "stock":
        return json.dumps(STOCK["pipelineSpec"])
    spec = repaired(name.removeprefix("without-"))
    MUTATIONS.get(name, lambda _: None)(spec)
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": PLATFORMS.get(name, {})}}}}
    return f"{json.dumps(spec)}\n---\n{json.dumps(platform)}\n"  # JSON is YAML, and quicker written


def without_places(message: str) -> str:
    """A message without what differs with the order of tasks, or of a parser's reading."""
    message = re.sub(r"\(line \d+:\d+\): |syntax error ", "", message)
    return re.sub(r"a{10,}", "a...", re.sub(r"tasks\[\d+\]", "tasks[]", message))


@pytest.mark.parametrize("name", VERDICTS)
def test_verdict(name: str) -> None:
    verdict = VERDICTS[name]
    if verdict["accepted"]:
        submit(package(name))
        return
    with pytest.raises(RefusedError) as refused:
        submit(package(name))
    assert refused.value.stage == verdict["stage"]
    assert without_places(refused.value.message) == without_places(verdict["message"])


def test_the_repaired_package_is_taken_with_or_without_a_value() -> None:
    text = package("without-nothing")
    assert submit(text).name == submit(text, {"train_args": "{}"}).name == "taxi"


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"train_args": 3}, "train_args requires type string"),
        ({"learning_rate": 0.1}, "parameter learning_rate provided is not required by pipeline"),
    ],
)
def test_parameters_of_the_run(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(RefusedError, match=problem):
        submit(package("without-nothing"), parameters)


def test_what_is_no_yaml_is_refused() -> None:
    with pytest.raises(RefusedError, match="unable to decode yaml document"):
        submit("{a: [1\n---\nb: }")
