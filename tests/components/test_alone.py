"""Each executor alone, as Kubeflow starts it: its own process, another user, artifacts in object storage.

No driver runs, there is no ML Metadata and no context of a run, the code is read-only, the working directory
is empty, HOME is not set, and nothing but the object storage can be reached.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.registry import ModelStore
from mlplatform.registry.ledger import Ledger

pytestmark = pytest.mark.slow

NOBODY = 65534
RUN = "run-1"
# The nodes of the trip, and further ones, with what has to run before each.
TRIP = [
    "ImageExampleGen",
    "DatasetVersioner",
    "DataValidator",
    "ModelTrainer",
    "ModelValidator",
    "ServingPusher",
]
FURTHER = {
    "DatasetImporter": TRIP[:2],
    "BatchPredictor": [*TRIP[:5], "DatasetImporter"],
    "IndexBuilder": [*TRIP[:3], "Embedder"],
}
NO_NETWORK = "http://127.0.0.1:9"  # the port "discard", where nothing listens


@dataclass(frozen=True)
class Pod:
    """A container that has ended: its exit status, what it printed, and its outputs by name."""

    status: int
    log: str
    outputs: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def root(s3: str, colours: ModuleType) -> str:
    """A root in a bucket, with nine photos to train on and three to validate with."""
    files = fsspec.filesystem("s3")
    for colour in colours.COLOURS:
        for number in range(4):
            split = "validation" if number == 3 else "train"
            photo = colours.encode(colour, number, side=32)
            files.pipe_file(f"{s3}/photos/{split}/{colour}/{number}.jpg", photo)
    return f"{s3}/root"


def pipeline(s3: str, root: str) -> Any:
    from tfx.orchestration.data_types import RuntimeParameter
    from tfx.orchestration.pipeline import Pipeline

    from mlplatform.components import (
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

    ingest = ImageExampleGen(
        RuntimeParameter(name="data", ptype=str),
        splits=["train", "validation"],
        reports_dir=f"{root}/reports",
    )
    version = DatasetVersioner(
        examples=ingest.outputs["examples"], dataset="items", store=f"{root}/datasets", key=["item_id"]
    )
    gate = DataValidator(
        examples=version.outputs["examples"],
        dataset=version.outputs["dataset"],
        reports_dir=f"{root}/reports",
        policy={"too_few_examples": "ignore"},
        id_feature="path",
    )
    trainer = ModelTrainer(
        examples=version.outputs["examples"],
        schema=gate.outputs["schema"],
        dataset=version.outputs["dataset"],
        run_fn="mlplatform.training.image_classifier:train",
        hyperparameters={"backbone": "scratch", "image_size": 32, "epochs": 1, "batch_size": 3},
        eval_splits=["validation"],
        work_dir=f"{root}/work",
    )
    model_gate = ModelValidator(
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        examples=version.outputs["examples"],
        eval_splits=["validation"],
        budget={"p99_latency_ms": 60_000, "load_time_s": 600, "peak_memory_mb": 10_000, "time_limit_s": 600},
        models_dir=f"{root}/models",
        model_name="items",
        reports_dir=f"{root}/reports",
    )
    pusher = ServingPusher(
        model=trainer.outputs["model"],
        blessing=model_gate.outputs["blessing"],
        infra_blessing=model_gate.outputs["infra_blessing"],
        evaluation=model_gate.outputs["evaluation"],
        dataset=version.outputs["dataset"],
        models_dir=f"{root}/models",
        model_name="items",
    )
    imported = DatasetImporter(dataset="items", store=f"{root}/datasets")
    predictor = BatchPredictor(
        model=trainer.outputs["model"],
        examples=imported.outputs["examples"],
        splits=["validation"],
        signature="image_bytes",
        blessing=model_gate.outputs["blessing"],
    )
    embedder = ModelTrainer(
        examples=version.outputs["examples"],
        schema=gate.outputs["schema"],
        run_fn="mlplatform.training.image_embedding:train",
        hyperparameters={"image_size": 32, "epochs": 1, "batch_size": 3, "dimensions": 4},
        eval_splits=["validation"],
        work_dir=f"{root}/work",
    ).with_id("Embedder")
    index = IndexBuilder(
        model=embedder.outputs["model"],
        examples=version.outputs["examples"],
        dataset=version.outputs["dataset"],
        query_splits=["validation"],
        models_dir=f"{root}/models",
        model_name="search",
        work_dir=f"{root}/work/embeddings",
        reports_dir=f"{root}/reports",
    )
    further = [imported, predictor, embedder, index]
    return Pipeline(
        pipeline_name="alone",
        pipeline_root=f"{root}/pipelines",
        components=[ingest, version, gate, trainer, model_gate, pusher, *further],
    )


def executor_input(
    specification: dict[str, Any], node: str, parameters: dict[str, Any], done: dict[str, Pod], place: str
) -> dict[str, Any]:
    """Return what Kubeflow's launcher hands to the container of a node; its outputs go below `place`.

    It leaves the type of an input artifact empty; an entry point for open-source Kubeflow puts it back, as is
    done here.
    """
    task = specification["root"]["dag"]["tasks"][node]
    component = specification["components"][task["componentRef"]["name"]]
    values, inputs = {}, {}
    for name, given in task["inputs"].get("parameters", {}).items():
        run_parameter = given.get("componentInputParameter")
        values[name] = parameters[run_parameter] if run_parameter else given["runtimeValue"]["constant"]
    for name, given in task["inputs"].get("artifacts", {}).items():
        of = given["taskOutputArtifact"]
        made = done[of["producerTask"]].outputs[of["outputArtifactKey"]]
        kind = component["inputDefinitions"]["artifacts"][name]["artifactType"]
        inputs[name] = {"artifacts": [{"name": f"{len(inputs) + 1}", "type": kind, **made}]}
    outputs = {
        name: {"artifacts": [{"name": name, "uri": f"{place}/{node}/{name}", "type": about["artifactType"]}]}
        for name, about in component["outputDefinitions"]["artifacts"].items()
    }
    return {
        "inputs": {"parameterValues": values, "artifacts": inputs},
        "outputs": {"artifacts": outputs, "outputFile": ""},
    }


def run_pod(
    command: list[str], given: dict[str, Any], folder: Path, start: Callable[..., "subprocess.Popen[bytes]"]
) -> Pod:
    """Run a container's command as another user, who owns nothing but an empty folder and a temporary one."""
    for place in (folder, folder / "empty", folder / "tmp"):
        place.mkdir(parents=True)
        os.chown(place, NOBODY if is_root() else -1, -1)
    output_file = folder / "tmp" / "output_metadata.json"
    given["outputs"]["outputFile"] = str(output_file)
    arguments = [json.dumps(given) if word == "{{$}}" else word for word in command]
    environment = {
        name: value for name, value in os.environ.items() if name.startswith("AWS_") or name == "PATH"
    }
    with (folder / "log").open("wb") as log:
        process = start(
            arguments[1:],
            cwd=folder / "empty",
            env={
                **environment,
                **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), NO_NETWORK),
                "no_proxy": "127.0.0.1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "KFP_RUN_ID": RUN,
                "TMPDIR": str(folder / "tmp"),
            },
            stdout=log,
            stderr=log,
        )
        status = process.wait()
    said = (folder / "log").read_text()
    if status:
        return Pod(status, said, {})
    found = json.loads(output_file.read_text())["artifacts"]
    outputs = {
        name: {"uri": some["artifacts"][0]["uri"], "metadata": some["artifacts"][0].get("metadata", {})}
        for name, some in found.items()
    }
    return Pod(0, said, outputs)


def is_root() -> bool:
    return os.getuid() == 0


def as_nobody() -> list[str]:
    """Return the command that runs another as a user who may read everything, and write nowhere."""
    if not is_root():
        return []
    # A Python that lies below root's home is to be read, too.
    reads = "dac_read_search"
    return [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        f"--inh-caps=+{reads}",
        f"--ambient-caps=+{reads}",
        f"--bounding-set=-all,+{reads}",
    ]


@pytest.fixture(scope="module")
def run_nodes(
    s3: str,
    root: str,
    compile_for_kubeflow: Callable[[Any], dict[str, Any]],
    warm_processes: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[list[str]], dict[str, Pod]]:
    """Run nodes container by container, each once, until one fails; return those that ran so far.

    The process of the first one is started as Kubeflow does, from nothing; the others start in a moment.
    """

    def start(arguments: list[str], **how: Any) -> "subprocess.Popen[bytes]":
        if not done:
            return subprocess.Popen([*as_nobody(), sys.executable, *arguments], **how)
        return warm_processes.Popen([sys.executable, *arguments], user=NOBODY if is_root() else None, **how)

    specification = compile_for_kubeflow(pipeline(s3, root))
    folder = tmp_path_factory.mktemp("pods")
    for parent in (folder, *folder.parents):  # pytest's own are for their owner alone
        if parent.owner() != "root" or parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    done: dict[str, Pod] = {}

    def run(nodes: list[str]) -> dict[str, Pod]:
        for node in nodes:
            if any(pod.status for pod in done.values()):
                break
            if node in done:
                continue
            container = specification["deploymentSpec"]["executors"][f"{node}_executor"]["container"]
            given = executor_input(
                specification, node, {"data": f"{s3}/photos"}, done, f"{root}/pipelines/{RUN}"
            )
            command = [*container["command"], *container["args"]]
            done[node] = run_pod(command, given, folder / node, start)
        return done

    return run


@pytest.fixture(scope="module")
def pods(run_nodes: Callable[[list[str]], dict[str, Pod]]) -> dict[str, Pod]:
    """The trip, container by container."""
    return dict(run_nodes(TRIP))


@pytest.mark.parametrize("node", TRIP)
def test_executor(node: str, pods: dict[str, Pod]) -> None:
    check(node, pods)


@pytest.mark.soak
@pytest.mark.parametrize("node", FURTHER)
def test_executor_of_a_further_component(node: str, run_nodes: Callable[[list[str]], dict[str, Pod]]) -> None:
    check(node, run_nodes([*FURTHER[node], node]))


def test_every_component_is_here() -> None:
    import mlplatform.components

    # An Approval waits for a person: tests/components/approval.
    assert {*TRIP, *FURTHER} == set(mlplatform.components.__all__) - {"Approval"}


def check(node: str, pods: dict[str, Pod]) -> None:
    """See that a node ended well and that all of its outputs lie in the bucket."""
    if node not in pods:
        pytest.skip("a node before it failed")
    assert pods[node].status == 0, pods[node].log[-6000:]
    files = fsspec.filesystem("s3")
    files.invalidate_cache()
    for output in pods[node].outputs.values():
        assert output["uri"].startswith("s3://")
        assert files.find(output["uri"]), output


def test_what_they_left_tells_the_whole_way(root: str, pods: dict[str, Pod]) -> None:
    if "ServingPusher" not in pods:
        pytest.skip("a node failed")
    store = DatasetStore(f"{root}/datasets")
    uses = {(use.kind, use.name) for use in store.uses("items")}
    assert ("data_gate", "accepted") in uses
    assert ("push", "items@1") in uses
    (version,) = ModelStore(f"{root}/models").versions("items")
    assert version.push is not None
    assert (version.push.dataset, version.push.run) == ("items@v1", RUN)
    events = Ledger(f"{root}/ledger").events(f"runs/{RUN}")
    kinds = [(event.kind, event.get("node")) for event in events]
    assert kinds == [
        ("verdict", "ImageExampleGen"),
        ("report", "ImageExampleGen"),
        ("dataset.used", "DatasetVersioner"),
        ("verdict", "DataValidator"),
        ("report", "DataValidator"),
        ("dataset.used", "ModelTrainer"),
        ("verdict", "ModelValidator"),
        ("report", "ModelValidator"),
    ]
    assert not fsspec.filesystem("s3").find(f"{root}/work")  # the training is done
