"""The driver hands to tasks what that of Kubeflow Pipelines 2.17 handed to them in a real run.

`recorded_executor_inputs.json` holds what the eight tasks of the package in `stock.json` got, repaired so
that it runs; their containers were stubs that gave every output the same metadata.
"""

import copy
import json
import posixpath
from pathlib import Path
from typing import Any

import pytest

from mlplatform.testing.kubeflow.conditions import ConditionError, evaluate
from mlplatform.testing.kubeflow.driver import (
    Outputs,
    Scope,
    StoredArtifact,
    cache_key,
    task_inputs,
    task_outputs,
    with_placeholders,
)
from mlplatform.testing.kubeflow.errors import DriverError

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "recorded_executor_inputs.json").read_text())
SPEC = json.loads((HERE / "stock.json").read_text())["pipelineSpec"]
TASKS = SPEC["root"]["dag"]["tasks"]
RUN = "1dfdb79a-82b4-435f-b53b-a1b8b341726b"


def component(task: str) -> dict[str, Any]:
    return SPEC["components"][TASKS[task]["componentRef"]["name"]]  # type: ignore[no-any-return]


def artifacts_of_the_run() -> dict[str, StoredArtifact]:
    """What tasks made, by URI, as those that read it got it."""
    return {
        each["uri"]: StoredArtifact(each["name"], each["uri"], each["metadata"])
        for given in RECORDED.values()
        for some in given["inputs"].get("artifacts", {}).values()
        for each in some["artifacts"]
    }


@pytest.fixture(scope="module")
def scope() -> Scope:
    made = artifacts_of_the_run()
    scope = Scope(RUN, {"train_args": '{"num_steps": 7}'})
    for task, given in RECORDED.items():
        uris = {key: some["artifacts"][0]["uri"] for key, some in given["outputs"]["artifacts"].items()}
        scope.outputs[task] = Outputs({key: made[uri] for key, uri in uris.items() if uri in made})
    return scope


@pytest.mark.parametrize("task", RECORDED)
def test_what_a_task_gets(task: str, scope: Scope) -> None:
    recorded = RECORDED[task]
    assert task_inputs(task, TASKS[task], component(task), scope) == recorded["inputs"]
    log = recorded["outputs"]["artifacts"]["executor-logs"]["artifacts"][0]["uri"]
    outputs = task_outputs(component(task), posixpath.dirname(log), publish_logs=True, root=Path("/"))
    assert outputs == recorded["outputs"]


def test_a_log_is_an_output_only_where_the_cluster_says_so() -> None:
    outputs = task_outputs(component("Pusher"), "s3://b/p/r/Pusher/u", publish_logs=False, root=Path("/"))
    assert list(outputs["artifacts"]) == ["pushed_model"]


def test_an_output_that_does_not_exist_fails_the_task_that_wants_it(scope: Scope) -> None:
    task = copy.deepcopy(TASKS["SchemaGen"])
    task["inputs"]["artifacts"]["statistics"]["taskOutputArtifact"]["outputArtifactKey"] = "nosuch"
    with pytest.raises(DriverError, match='cannot find output artifact key "nosuch"'):
        task_inputs("SchemaGen", task, component("SchemaGen"), scope)


def test_a_parameter_of_the_run_that_its_dag_does_not_get(scope: Scope) -> None:
    with pytest.raises(DriverError, match="parent DAG does not have input parameter train_args"):
        task_inputs("Trainer", TASKS["Trainer"], component("Trainer"), Scope(RUN, {}, scope.outputs))


@pytest.mark.parametrize(
    ("kind", "value", "given"),
    [
        ("STRING", 7.0, "7"),
        ("STRING", {"a": 1}, '{"a":1}'),
        ("NUMBER_INTEGER", 7.0, 7.0),
        ("STRUCT", {"a": 1}, {"a": 1}),
    ],
)
def test_values_are_what_the_component_declares(kind: str, value: Any, given: Any) -> None:
    task = {"inputs": {"parameters": {"x": {"runtimeValue": {"constant": value}}}}}
    declares = {"inputDefinitions": {"parameters": {"x": {"parameterType": kind}}}}
    assert task_inputs("t", task, declares, Scope(RUN, {}))["parameterValues"] == {"x": given}


def test_a_value_of_another_type_fails_the_task() -> None:
    task = {"inputs": {"parameters": {"x": {"runtimeValue": {"constant": "seven"}}}}}
    declares = {"inputDefinitions": {"parameters": {"x": {"parameterType": "NUMBER_INTEGER"}}}}
    with pytest.raises(DriverError, match="expect NUMBER_INTEGER"):
        task_inputs("t", task, declares, Scope(RUN, {}))


def test_the_key_of_the_cache_sees_inputs_arguments_and_environment(scope: Scope) -> None:
    inputs = task_inputs("SchemaGen", TASKS["SchemaGen"], component("SchemaGen"), scope)
    container = SPEC["deploymentSpec"]["executors"]["SchemaGen_executor"]["container"]
    key = cache_key(inputs, component("SchemaGen"), container)
    assert key == cache_key(copy.deepcopy(inputs), component("SchemaGen"), dict(container))
    other = copy.deepcopy(inputs)
    other["artifacts"]["statistics"]["artifacts"][0]["name"] = "17"
    assert key != cache_key(other, component("SchemaGen"), container)
    other = copy.deepcopy(inputs)
    other["artifacts"]["statistics"]["artifacts"][0]["uri"] = "s3://elsewhere"  # its id alone counts
    assert key == cache_key(other, component("SchemaGen"), container)
    assert key != cache_key(inputs, component("SchemaGen"), {**container, "args": ["--more"]})
    assert key != cache_key(inputs, component("SchemaGen"), {**container, "env": [{"name": "A"}]})


def test_placeholders_of_a_container_of_its_own() -> None:
    given = {
        "inputs": {
            "parameterValues": {"steps": 7.0},
            "artifacts": {"model": {"artifacts": [{"uri": "s3://b/k/model"}]}},
        },
        "outputs": {"artifacts": {"out": {"artifacts": [{"uri": "s3://b/k/out"}]}}},
    }
    words = [
        "{{$.inputs.parameters['steps']}} from {{$.inputs.artifacts['model'].path}}",
        "{{$.outputs.artifacts['out'].uri}}",
        "{{$}}",
    ]
    steps, out, everything = with_placeholders(words, given, Path("/"))
    assert (steps, out) == ("7 from /s3/b/k/model", "s3://b/k/out")
    assert json.loads(everything) == given


GIVEN = {
    "inputs": {
        "artifacts": {"_a.out": {"artifacts": [{"uri": "s3://b/k", "metadata": {"ok": 1, "name": "x && y"}}]}}
    }
}
OK = "inputs.artifacts['_a.out'].artifacts[0].metadata['ok']"
NAME = "inputs.artifacts['_a.out'].artifacts[0].metadata['name']"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (f"({OK} == 1.0)", True),
        (f"!(({OK} == 1.0))", False),
        (f"({OK} > 0.0) && ({OK} < 1.0)", False),
        (f"(({OK} < 1.0) || ({NAME} == 'x && y'))", True),
        ("inputs.artifacts['_a.out'].artifacts[0].uri == ('s3://' + 'b/k')", True),
    ],
)
def test_condition(condition: str, holds: bool) -> None:
    assert evaluate(condition, GIVEN) is holds


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("this is not CEL ((", "Syntax error"),
        (f"{OK} == '1'", "no such overload"),
        ("inputs.artifacts['nosuch'].uri == ''", "no such key: nosuch"),
        (OK, "not a truth value"),
        ("__import__('os')", "not supported"),
    ],
)
def test_condition_that_cannot_be_evaluated(condition: str, problem: str) -> None:
    with pytest.raises(ConditionError, match=problem):
        evaluate(condition, GIVEN)
