"""Broken packages and option blocks are refused with one line; where the real server refuses, so do we."""
# ruff: noqa: E501 - one broken thing a line

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.config_file import ConfigError
from mlplatform.orchestration.kubeflow.checks import check_package
from mlplatform.orchestration.kubeflow.errors import PackageError
from mlplatform.orchestration.kubeflow.options import parse_options

VERDICTS = json.loads((Path(__file__).parent / "simulator" / "verdicts.json").read_text())["verdicts"]
Spec = dict[str, Any]
Change = Callable[[Spec, Spec], object]


def tasks(spec: Spec) -> Spec:
    return spec["root"]["dag"]["tasks"]


def container(spec: Spec, node: str = "SchemaGen") -> Spec:
    return spec["deploymentSpec"]["executors"][f"{node}_executor"]["container"]


def entry(platform: Spec, node: str = "Trainer") -> Spec:
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return executors.setdefault(f"{node}_executor", {})


def statistics(spec: Spec) -> Spec:
    return tasks(spec)["SchemaGen"]["inputs"]["artifacts"]["statistics"]["taskOutputArtifact"]


def rename(spec: Spec, new: str) -> None:
    """Call the task SchemaGen otherwise, everywhere."""
    tasks(spec)[new] = tasks(spec).pop("SchemaGen")
    tasks(spec)[new]["taskInfo"]["name"] = new
    for task in tasks(spec).values():
        task["dependentTasks"] = [new if n == "SchemaGen" else n for n in task.get("dependentTasks", [])]
        for given in task.get("inputs", {}).get("artifacts", {}).values():
            if given["taskOutputArtifact"]["producerTask"] == "SchemaGen":
                given["taskOutputArtifact"]["producerTask"] = new


def put(holder: Spec, **values: Any) -> None:
    holder.update(values)


def importer(spec: Spec, uri: str = "s3://b/x", **metadata: Any) -> None:
    about = {"artifactUri": {"constant": uri}, "typeSchema": {"instanceSchema": "title: tfx.Schema\n"}}
    spec["deploymentSpec"]["executors"]["SchemaGen_executor"] = {"importer": {**about, "metadata": metadata}}


def resolver(spec: Spec) -> None:
    queries = {"outputArtifactQueries": {"model": {"filter": 'schema_title="tfx.Model"'}}}
    spec["deploymentSpec"]["executors"]["latest-blessed-model_executor"] = {"resolver": queries}


# What the real server said of packages broken so is in verdicts.json, under the same names.
KNOWN: dict[str, tuple[Change, str]] = {
    "bad-cel": (lambda s, p: put(tasks(s)["Pusher"], triggerPolicy={"condition": "this is not CEL (("}), "cannot be evaluated"),
    "big": (lambda s, p: container(s)["args"].append("x" * 1_200_000), "one of a container is at most"),
    "component-missing": (lambda s, p: put(tasks(s)["SchemaGen"]["componentRef"], name="nosuch"), "'nosuch', which is not there"),
    "cycle": (lambda s, p: tasks(s)["StatisticsGen"]["dependentTasks"].append("SchemaGen"), "wait for each other"),
    "dependent-missing": (lambda s, p: put(tasks(s)["SchemaGen"], dependentTasks=["nosuch"]), "waits for 'nosuch'"),
    "digit": (lambda s, p: rename(s, "9lives"), "begins with a letter"),
    "executor-missing": (lambda s, p: put(s["components"]["SchemaGen"], executorLabel="nosuch"), "names the executor 'nosuch'"),
    "executor-unknown-field": (lambda s, p: put(container(s), bogus=1), 'no field named "bogus"'),
    "k8s-unknown-executor": (lambda s, p: put(entry(p, "Trayner"), nodeSelector={"labels": {"pool": "gpu"}}), "has the executor 'Trayner_executor'"),
    "k8s-unknown-field": (lambda s, p: put(entry(p), nodeSelektor={"labels": {"pool": "gpu"}}), "has no field 'nodeSelektor'"),
    "k8s-wrong-type": (lambda s, p: put(entry(p), nodeSelector="gpu"), "nodeSelector is 'gpu', not a mapping"),
    "long122": (lambda s, p: rename(s, "a" * 122), "a name of 122 characters"),
    "name-all-upper": (lambda s, p: put(s["pipelineInfo"], name="TAXI"), "'TAXI' is not of lower case"),
    "name-upper": (lambda s, p: put(s["pipelineInfo"], name="Taxi_Pipeline"), "'Taxi_Pipeline' is not of lower case"),
    "no-image": (lambda s, p: put(container(s), image=""), "give it the name of one"),
    "outputkey-missing": (lambda s, p: put(statistics(s), outputArtifactKey="nosuch"), "is the output 'nosuch' of 'StatisticsGen'"),
    "producer-missing": (lambda s, p: put(statistics(s), producerTask="StatisticsGen_task"), "'StatisticsGen_task', which is not there"),
    "schema200": (lambda s, p: put(s, schemaVersion="2.0.0"), "takes 2.1.0 alone"),
    "underscore": (lambda s, p: rename(s, "my_component"), "letters, digits and '-'"),
    "unknown-field": (lambda s, p: put(s["root"], bogus=1), 'no field named "bogus"'),
    "without-resolver": (lambda s, p: resolver(s), "neither a container nor an importer"),
    "wrapper": (lambda s, p: put(s, pipelineSpec={}), "a job of Vertex AI"),
}  # fmt: skip
# What the server takes and what works.
GOOD: dict[str, Change] = {
    "long121": lambda s, p: rename(s, "a" * 121),
    "resources": lambda s, p: put(container(s), resources={"cpuLimit": 4.0, "memoryLimit": 16.0}),
    "retry": lambda s, p: put(
        tasks(s)["Trainer"], retryPolicy={"maxRetryCount": 2, "backoffDuration": "30s"}
    ),
    "k8s-good": lambda s, p: put(
        entry(p),
        nodeSelector={"labels": {"pool": "gpu"}},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        activeDeadlineSeconds="3600",
        imagePullPolicy="IfNotPresent",
        podMetadata={"labels": {"team": "ml"}},
    ),
}
OTHERS: dict[str, tuple[Change, str]] = {
    "no task": (lambda s, p: put(s["root"]["dag"], tasks={}), "it has no task"),
    "not a mapping": (lambda s, p: put(s, root="dag"), "not a pipeline spec"),
    "number that JSON lacks": (lambda s, p: put(tasks(s)["SchemaGen"]["inputs"]["parameters"]["infer_feature_shape"]["runtimeValue"], constant=float("nan")), "JSON does not have"),
    "constant of another type": (lambda s, p: put(tasks(s)["SchemaGen"]["inputs"]["parameters"]["infer_feature_shape"]["runtimeValue"], constant="yes"), "not a NUMBER_INTEGER"),
    "fraction for an integer": (lambda s, p: put(tasks(s)["SchemaGen"]["inputs"]["parameters"]["infer_feature_shape"]["runtimeValue"], constant=0.5), "not a NUMBER_INTEGER"),
    "needed input missing": (lambda s, p: tasks(s)["SchemaGen"]["inputs"]["artifacts"].clear(), "is not given 'statistics'"),
    "input that is not taken": (lambda s, p: put(tasks(s)["SchemaGen"]["inputs"]["parameters"], more={"runtimeValue": {"constant": "x"}}), "is given 'more'"),
    "parameter that is not declared": (lambda s, p: put(tasks(s)["SchemaGen"]["inputs"]["parameters"], exclude_splits={"componentInputParameter": "splits"}), "'splits', which is not declared"),
    "default of another type": (lambda s, p: put(s["root"], inputDefinitions={"parameters": {"n": {"parameterType": "NUMBER_INTEGER", "defaultValue": "many", "isOptional": True}}}), "the default of parameter 'n'"),
    "optional without default": (lambda s, p: put(s["root"], inputDefinitions={"parameters": {"n": {"parameterType": "STRING", "isOptional": True}}}), "is optional and has no default"),
    "task with another name inside": (lambda s, p: put(tasks(s)["SchemaGen"]["taskInfo"], name="Schema"), "calls itself 'Schema'"),
    "final status of a task not waited for": (lambda s, p: put(tasks(s)["SchemaGen"]["inputs"]["parameters"], exclude_splits={"taskFinalStatus": {"producerTask": "Pusher"}}), "does not wait for"),
    "follows nothing": (lambda s, p: put(tasks(s)["CsvExampleGen"], triggerPolicy={"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}), "waits for none"),
    "condition on an unknown input": (lambda s, p: put(tasks(s)["Pusher"], triggerPolicy={"condition": "inputs.artifacts['gone'].artifacts[0].metadata['ok'] == 1.0"}), "which the task is not given"),
    "condition on something else": (lambda s, p: put(tasks(s)["Pusher"], triggerPolicy={"condition": "environment == 'test'"}), "can read inputs alone"),
    "condition with a statement": (lambda s, p: put(tasks(s)["Pusher"], triggerPolicy={"condition": "inputs = 1"}), "cannot be evaluated"),
    "iterator over artifacts": (lambda s, p: put(tasks(s)["Pusher"], artifactIterator={"itemInput": "x"}), "has not implemented"),
    "too many attempts": (lambda s, p: put(tasks(s)["Trainer"], retryPolicy={"maxRetryCount": 1000}), "1000 times more"),
    "no command": (lambda s, p: put(container(s), command=[], args=[]), "has no command"),
    "image with a space": (lambda s, p: put(container(s), image="my image"), "the image 'my image'"),
    "lifecycle": (lambda s, p: put(container(s), lifecycle={"preCacheCheck": {"command": ["x"]}}), "never calls"),
    "no processors": (lambda s, p: put(container(s), resources={"cpuLimit": 0.0}), "is not above 0"),
    "less than no memory": (lambda s, p: put(container(s), resources={"memoryLimit": -1.0}), "is not above 0"),
    "variable with a dash": (lambda s, p: put(container(s), env=[{"name": "A-B", "value": ""}]), "is not the name of one"),
    "variable twice": (lambda s, p: put(container(s), env=[{"name": "A", "value": ""}] * 2), "'A' more than once"),
    "values over one argument": (lambda s, p: put(tasks(s)["Evaluator"]["inputs"]["parameters"]["eval_config"]["runtimeValue"], constant="x" * 120_000), "bytes together"),
    "workflow over 1 MiB": (lambda s, p: [container(s)["args"].append("x" * 120_000) for _ in range(9)], "the workflow would be about"),
    "import of a path": (lambda s, p: importer(s, "/mnt/schema"), "imports '/mnt/schema'"),
    "import by HTTP": (lambda s, p: importer(s, "http://host/schema"), "it can from s3://"),
    "import with an empty value": (lambda s, p: importer(s, owner=None), "gives 'owner' no value"),
    "import on a condition": (lambda s, p: (importer(s), put(tasks(s)["SchemaGen"], triggerPolicy={"condition": "inputs.artifacts['statistics'].artifacts[0].uri == ''"})), "move it out of the Cond"),
    "mount at a relative path": (lambda s, p: put(entry(p), pvcMount=[{"constant": "data", "mountPath": "data"}]), "not an absolute path"),
    "mount over the launcher": (lambda s, p: put(entry(p), pvcMount=[{"constant": "data", "mountPath": "/s3"}]), "the launcher's own"),
    "two mounts at a path": (lambda s, p: put(entry(p), pvcMount=[{"constant": c, "mountPath": "/mnt/x"} for c in ("a", "b")]), "more than one thing is mounted"),
    "deadline in words": (lambda s, p: put(entry(p), activeDeadlineSeconds="1h"), "not a whole number"),
    "unknown pull policy": (lambda s, p: put(entry(p), imagePullPolicy="Sometimes"), "not one of Always"),
    "tolerations not a list": (lambda s, p: put(entry(p), tolerations={"key": "x"}), "not a list"),
    "another platform": (lambda s, p: put(p["platforms"], nomad={}), "has no field 'nomad'"),
}  # fmt: skip
NODE = "kubernetes.nodes"
OPTIONS: dict[str, tuple[Any, str]] = {
    "unknown key": ({"memry": "4Gi"}, "did you mean 'memory'?"),
    "unknown key of a node": ({"nodes": {"Trainer": {"gpus": 1}}}, "did you mean 'nodes.Trainer.gpu'?"),
    "memory without unit": ({"memory": "4"}, "bytes have units"),
    "memory with another unit": ({"memory": "4 GB"}, "not a quantity of Kubernetes"),
    "negative memory": ({"memory": "-4Gi"}, "not a quantity of Kubernetes"),
    "more memory than there is": ({"memory": "900Ti"}, "16Mi to 64Ti"),
    "no processor": ({"cpu": 0}, "0.001 to 1024 processors"),
    "a million processors": ({"cpu": 1_000_000}, "0.001 to 1024 processors"),
    "half a gpu": ({"gpu": 0.5}, "gpu is 0.5"),
    "a gpu in words": ({"gpu": "one"}, "gpu is 'one'"),
    "gpu type without a domain": ({"gpu": 1, "gpu_type": "gpu"}, "DOMAIN/NAME"),
    "image in capitals": ({"image": "Registry/TEAM/Image:1"}, "not the name of an image"),
    "image with a space": ({"image": "team image"}, "not the name of an image"),
    "secret that is not a name": ({"secrets": {"My Secret": {"path": "/etc/x"}}}, "name of an object of Kubernetes"),
    "secret used for nothing": ({"secrets": {"s3": {}}}, "it is used for nothing"),
    "secret for a wrong variable": ({"secrets": {"s3": {"env": {"AWS-KEY": "key"}}}}, "name of an environment variable"),
    "secret with a wrong key": ({"secrets": {"s3": {"env": {"KEY": "a/b"}}}}, "it is not a key"),
    "config map that is not a name": ({"config_maps": {"_x": {"path": "/etc/x"}}}, "name of an object of Kubernetes"),
    "volume at a relative path": ({"volumes": {"data": "data"}}, "absolute path to mount at"),
    "volume at the root": ({"volumes": {"data": "/"}}, "absolute path to mount at"),
    "volume over the launcher's folder": ({"volumes": {"data": "/s3/x"}}, "keeps artifacts"),
    "two volumes at a path": ({"volumes": {"a": "/mnt", "b": "/mnt/"}}, "more than one thing is mounted at /mnt"),
    "two volumes, one of a node": ({"volumes": {"a": "/mnt"}, "nodes": {"T": {"volumes": {"b": "/mnt"}}}}, "more than one thing is mounted at /mnt"),
    "variable that is not a name": ({"env": {"1A": "x"}}, "name of an environment variable"),
    "variable twice": ({"env": {"A": "x"}, "secrets": {"s": {"env": {"A": "k"}}}}, "A is set more than once"),
    "value with a zero byte": ({"env": {"A": "x\0y"}}, "env.A"),
    "value that is not text": ({"env": {"A": [1]}}, "env.A"),
    "selector that is not a label": ({"node_selector": {"pool!": "gpu"}}, "not the key of a label"),
    "label value too long": ({"labels": {"team": "x" * 64}}, "not the value of a label"),
    "toleration with a value": ({"tolerations": [{"key": "k", "operator": "Exists", "value": "v"}]}, "takes no value"),
    "toleration of all with Equal": ({"tolerations": [{"value": "v"}]}, "needs a key"),
    "toleration of an unknown effect": ({"tolerations": [{"key": "k", "effect": "Never"}]}, "effect"),
    "toleration for a time": ({"tolerations": [{"key": "k", "toleration_seconds": 5}]}, "needs effect NoExecute"),
    "affinity without labels": ({"affinity": [{"labels": []}]}, "affinity.0.labels"),
    "affinity without values": ({"affinity": [{"labels": [{"key": "zone"}]}]}, "operator In needs values"),
    "affinity greater than a word": ({"affinity": [{"labels": [{"key": "n", "operator": "Gt", "values": ["x"]}]}]}, "one whole number"),
    "weight too large": ({"affinity": [{"weight": 1000, "labels": [{"key": "n", "operator": "Exists"}]}]}, "weight"),
    "negative retries": ({"retries": -1}, "retries is -1"),
    "wait over an hour": ({"retries": 1, "retry_wait_s": 7200}, "retry_wait_s is 7200"),
    "timeout of nothing": ({"timeout_s": 0}, "timeout_s is 0"),
    "scratch without size": ({"ephemeral_storage": {"path": "/tmp/x"}}, "size' is missing"),
    "scratch of a byte": ({"ephemeral_storage": {"size": "1"}}, "16Mi to 64Ti"),
    "service account that is not a name": ({"service_account": "Team Account"}, "name of an object of Kubernetes"),
    "service account of a node": ({"nodes": {"Trainer": {"service_account": "x"}}}, "a run has one service account"),
    "pull secret that is not a name": ({"image_pull_secrets": ["A B"]}, "name of an object of Kubernetes"),
    "pull policy": ({"image_pull_policy": "Sometimes"}, "image_pull_policy"),
    "cache in words": ({"cache": "perhaps"}, "cache is 'perhaps'"),
}  # fmt: skip


def refusal(spec: Any, platform: Any) -> str:
    with pytest.raises(PackageError) as raised:
        check_package(spec, platform)
    return str(raised.value)


def test_the_package_itself_passes(documents: tuple[Spec, Spec]) -> None:
    check_package(*documents)


@pytest.mark.parametrize("name", [*KNOWN, *OTHERS])
def test_a_broken_package_is_refused(name: str, documents: tuple[Spec, Spec]) -> None:
    change, problem = (KNOWN | OTHERS)[name]
    change(*documents)
    text = refusal(*documents)
    assert problem in text
    assert "\n" not in text
    assert len(text) < 2000


@pytest.mark.parametrize("name", GOOD)
def test_what_works_passes(name: str, documents: tuple[Spec, Spec]) -> None:
    GOOD[name](*documents)
    check_package(*documents)


def test_whatever_the_real_server_refuses_is_refused_here() -> None:
    refused_there = {name for name, verdict in VERDICTS.items() if not verdict["accepted"]}
    # Of unrepaired packages: the compiler writes the defaults, and there is nothing else wrong with them.
    assert refused_there - {"stock", "without-defaults"} <= set(KNOWN)
    assert set(GOOD) == {"long121", "resources", "retry", "k8s-good"}
    assert set(GOOD) <= {name for name, verdict in VERDICTS.items() if verdict["accepted"]}
    assert set(KNOWN) | set(GOOD) | {"stock", "without-defaults"} == set(VERDICTS)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_broken_block_of_options_is_refused(name: str) -> None:
    block, problem = OPTIONS[name]
    with pytest.raises(ConfigError) as raised:
        parse_options(copy.deepcopy(block))
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_everything_wrong_is_named_at_once(documents: tuple[Spec, Spec]) -> None:
    for name in ("no-image", "schema200", "k8s-unknown-field"):
        KNOWN[name][0](*documents)
    text = refusal(*documents)
    assert all(KNOWN[name][1] in text for name in ("no-image", "schema200", "k8s-unknown-field"))


@pytest.mark.parametrize("thing", [None, [], "text", 3, {}, {"pipelineInfo": []}, {"root": {"dag": []}}])
def test_what_is_no_package_at_all(thing: Any) -> None:
    assert refusal(thing, None)
