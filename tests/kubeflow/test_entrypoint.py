"""The entry point of containers: what it makes of what Kubeflow hands over, and how it ends."""

import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mlplatform.orchestration.kubeflow.task import GivenArtifact, PodTask, parse_task
from mlplatform.registry.ledger import Ledger
from mlplatform.tfx_io.launcher_paths import LocalCopies, launcher_root

HERE = Path(__file__).parent / "simulator"
RECORDED = json.loads((HERE / "recorded_executor_inputs.json").read_text())
SPEC = json.loads((HERE / "stock.json").read_text())["pipelineSpec"]
RUN = "1dfdb79a-82b4-435f-b53b-a1b8b341726b"
UUID = "4c9f30bf-36e5-4abe-90f4-354d0af9b4b4"
EXECUTORS = """
import sys
from pathlib import Path
from tfx.dsl.components.base import base_executor
from mlplatform.errors import GateError, UsageError

HEAVY = {"tensorflow", "apache_beam", "tfx.components", "numpy", "pydantic", "yaml", "setuptools", "fsspec"}

class Executor(base_executor.BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties):
        print("LOADED", *sorted(HEAVY & sys.modules.keys()))
        print("MODULES", len(sys.modules))
        print(self._context.pipeline_run_id, self._context.pipeline_node.node_info.id)
        (model,) = output_dict["model"]
        Path(model.uri).mkdir()
        text = "".join((Path(one.uri) / "text").read_text() for one in input_dict["schema"])
        Path(model.uri, "text").write_text(text)
        model.set_int_custom_property("steps", exec_properties["steps"])
        model.set_string_custom_property("file", model.uri + "/text")

class Gate(base_executor.BaseExecutor):
    def Do(self, *_):
        raise GateError("the data is not good")

class Usage(base_executor.BaseExecutor):
    def Do(self, *_):
        raise UsageError("no such split")

class Needs(base_executor.BaseExecutor):
    def Do(self, input_dict, *_):
        input_dict["base"]
"""


def recorded_task(name: str) -> PodTask:
    """A task of the recorded run, with the arguments that our compiler writes."""
    component = SPEC["components"][SPEC["root"]["dag"]["tasks"][name]["componentRef"]["name"]]
    return parse_task(
        [
            *("--executor_class_path", "a.B"),
            *("--json_serialized_invocation_args", json.dumps(RECORDED[name])),
            *("--json_serialized_inputs_spec_args", json.dumps(component.get("inputDefinitions", {}))),
            *("--node", json.dumps({"id": name, "pipeline": "taxi", "root": "s3://mlpipeline"})),
            "--direct_num_workers=1",
        ]
    )


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_inputs_get_their_types_back(name: str) -> None:
    task = recorded_task(name)
    assert task.run == RUN
    assert task.beam_arguments == ("--direct_num_workers=1",)
    given = [one for some in (*task.inputs.values(), *task.outputs.values()) for one in some]
    assert given
    assert all(one.type.startswith("tfx.") for one in given)
    assert "executor-logs" not in task.outputs
    assert task.place.startswith(f"s3://mlpipeline/taxi/taxi/{RUN}/{name}/")
    assert not any(set(one.metadata) & {"display_name", "store_session_info"} for one in given)


def test_recorded_inputs_as_tfx_has_them() -> None:
    from tfx.types import artifact_utils, standard_artifacts

    from mlplatform.orchestration.kubeflow.tfx_artifacts import facts_of, tfx_artifacts

    task = recorded_task("Evaluator")
    (examples,) = tfx_artifacts(task.inputs, {})["examples"]
    assert isinstance(examples, standard_artifacts.Examples)
    assert artifact_utils.decode_split_names(examples.split_names) == ["train"]
    assert examples.span == 0
    assert examples.get_int_custom_property("blessed") == 1
    given = task.inputs["examples"][0]
    assert facts_of(examples, LocalCopies(None), {}) == {"uri": given.uri, "metadata": given.metadata}


def test_integers_and_other_values_are_what_the_component_declares() -> None:
    parameters = recorded_task("CsvExampleGen").parameters
    assert (parameters["output_data_format"], type(parameters["output_data_format"])) == (6, int)
    values = {"n": 3.0, "share": 1, "on": 1, "sizes": "[1, 2]", "status": {"state": "FAILED"}}
    kinds = {"n": "NUMBER_INTEGER", "share": "NUMBER_DOUBLE", "on": "NUMBER_INTEGER", "sizes": "STRING"}
    task = parse_task(
        [
            *("--executor_class_path", "a.B"),
            *("--json_serialized_invocation_args", json.dumps({"inputs": {"parameterValues": values}})),
            "--json_serialized_inputs_spec_args",
            json.dumps({"parameters": {name: {"parameterType": kind} for name, kind in kinds.items()}}),
            *("--node", json.dumps({"is_function": True, "json": ["sizes"], "booleans": ["on"]})),
        ]
    )
    assert task.parameters == {
        "n": 3, "share": 1.0, "on": True, "sizes": [1, 2], "status": '{"state": "FAILED"}',
    }  # fmt: skip
    assert isinstance(task.parameters["n"], int)


def test_what_a_resolver_found_stands_for_all_of_it() -> None:
    every = [{"uri": f"s3://b/{n}", "name": str(n), "metadata": {"span": n}} for n in (2, 1)]
    resolved = {"uri": "s3://b/of-the-resolver", "metadata": {"span": 2, "resolved": json.dumps(every)}}
    nothing = {"uri": "s3://b/other", "metadata": {"unresolved": 1}}
    given = {"inputs": {"artifacts": {k: {"artifacts": [v]} for k, v in (("a", resolved), ("b", nothing))}}}
    types = {"artifacts": {"a": {"artifactType": {"instanceSchema": "title: tfx.Examples"}}}}
    task = parse_task(
        [
            *("--executor_class_path", "a.B"),
            *("--json_serialized_invocation_args", json.dumps(given)),
            *("--json_serialized_inputs_spec_args", json.dumps(types)),
        ]
    )
    assert task.inputs["a"] == [
        GivenArtifact("tfx.Examples", "s3://b/2", "2", {"span": 2}),
        GivenArtifact("tfx.Examples", "s3://b/1", "1", {"span": 1}),
    ]
    assert task.unresolved == ("b",)


@pytest.mark.parametrize("beside", [True, False])
def test_the_launchers_folders_are_found(tmp_path: Path, beside: bool) -> None:
    place = tmp_path / "s3" / "b" / "run" / "task"
    uris = ["s3://b/run/task/model"]
    output_file = place / "output_metadata.json" if beside else tmp_path / "elsewhere.json"
    assert launcher_root(str(output_file), uris) is None  # no launcher was here
    place.mkdir(parents=True)
    assert launcher_root(str(output_file), uris) == (tmp_path if beside else None)
    copies = LocalCopies(tmp_path)
    assert copies.localize(uris[0], must_exist=True) == uris[0]
    assert copies.localize(uris[0], must_exist=False) == str(place / "model")
    assert copies.uri_of(str(place / "model" / "x")) == "s3://b/run/task/model/x"


class Pod:
    """A container that has run an executor of the text above."""

    def __init__(self, folder: Path, executor: str, **metadata: Any) -> None:
        root, place = folder / "disk", f"s3/b/kfp/words/run-1/Words/{UUID}"
        (root / place).mkdir(parents=True)
        schema = root / "s3/b/kfp/words/run-1/Before/u2/schema"
        schema.mkdir(parents=True)
        (schema / "text").write_text("what is up")
        self.termination, self.output_file = folder / "termination-log", root / place / "output_metadata.json"
        self.termination.touch()
        self.root = folder / "root"
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as code:
            code.writestr("words_executors.py", EXECUTORS)
        uri = "s3://b/kfp/words/run-1"
        given = {
            "inputs": {
                "parameterValues": {"steps": 7.0},
                "artifacts": {
                    "schema": {"artifacts": [{"name": "3", "uri": f"{uri}/Before/u2/schema"}]},
                    "base": {"artifacts": [{"uri": f"{uri}/Base/u3/base", "metadata": {"unresolved": 1}}]},
                },
            },
            "outputs": {
                "artifacts": {
                    "model": {
                        "artifacts": [
                            {
                                "name": "model",
                                "uri": f"{uri}/Words/{UUID}/model",
                                "type": {"instanceSchema": "title: tfx.Model"},
                            }
                        ]
                    }
                },
                "outputFile": str(self.output_file),
            },
        }
        declared = {
            "artifacts": {"schema": {"artifactType": {"instanceSchema": "title: tfx.Schema"}}},
            "parameters": {"steps": {"parameterType": "NUMBER_INTEGER"}},
        }
        node = {
            "id": "Words",
            "pipeline": "words",
            "type": "words.Words",
            "root": str(self.root),
            "code": base64.b64encode(data.getvalue()).decode(),
        }
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mlplatform.orchestration.kubeflow.entrypoint"),
                *("--executor_class_path", f"words_executors.{executor}"),
                *("--json_serialized_invocation_args", json.dumps(given)),
                *("--json_serialized_inputs_spec_args", json.dumps(declared)),
                *("--node", json.dumps(node)),
            ],
            env={**os.environ, "MLPLATFORM_TERMINATION_LOG": str(self.termination)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.status, self.log = done.returncode, done.stdout
        self.model = root / place / "model"

    def node_finished(self) -> Any:
        """The event of its end."""
        return Ledger(self.root / "ledger").events("runs/run-1")[-1]


def imported_by_the_executor(folder: Path) -> int:
    """Return how many modules there are when only the executor was imported, as the entry point does it."""
    (folder / "words_executors.py").write_text(EXECUTORS)
    program = (
        "import sys; from mlplatform.orchestration.kubeflow import light_tfx; light_tfx.prepare(); "
        f"sys.path.insert(0, {str(folder)!r}); import words_executors; print(len(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_an_executor_that_needs_no_tensorflow_gets_none(tmp_path: Path) -> None:
    pod = Pod(tmp_path, "Executor")
    assert pod.status == 0, pod.log
    assert "LOADED\n" in pod.log  # where it runs
    assert int(pod.log.partition("MODULES ")[2].split()[0]) < 1.2 * imported_by_the_executor(tmp_path)
    assert "run-1 Words" in pod.log
    assert (pod.model / "text").read_text() == "what is up"
    (model,) = json.loads(pod.output_file.read_text())["artifacts"]["model"]["artifacts"]
    assert model["uri"] == f"s3://b/kfp/words/run-1/Words/{UUID}/model"
    assert model["metadata"]["steps"] == 7
    assert model["metadata"]["file"] == f"{model['uri']}/text"
    ended = pod.node_finished()
    assert (ended.get("node"), ended.get("state")) == ("Words", "done")
    assert ended.get("outputs")[0]["uri"] == model["uri"]
    assert "run-1 Words" in (pod.root / "runs" / "run-1" / "logs" / "Words.log").read_text()


@pytest.mark.parametrize(
    ("executor", "status", "text"),
    [
        ("Gate", 3, "the data is not good"),
        ("Usage", 2, "no such split"),
        ("Needs", 1, "Words has no base: the resolver before it found no artifact in earlier runs"),
    ],
)
def test_how_it_ends(tmp_path: Path, executor: str, status: int, text: str) -> None:
    pod = Pod(tmp_path, executor)
    assert pod.status == status, pod.log
    assert pod.termination.read_text().startswith(text)
    assert pod.node_finished().get("state") == "failed"
    assert pod.node_finished().get("error").startswith(text)
    assert not pod.output_file.exists()


def test_arguments_of_another_program(tmp_path: Path) -> None:
    from mlplatform.orchestration.kubeflow.entrypoint_errors import InvocationError

    with pytest.raises(InvocationError, match="neither an executor nor a resolver"):
        parse_task(["--json_serialized_invocation_args", "{}"])
    with pytest.raises(InvocationError, match="cannot be read"):
        parse_task(["--executor_class_path", "a.B", "--json_serialized_invocation_args", "{"])
