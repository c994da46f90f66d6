"""Every manifest of the examples, as the real API server takes it: its dry run does all but store."""

import json
import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
KSERVE = "github.com/kserve/kserve@v0.15.2"
FLINK_OPERATOR = "org.apache.flink:flink-kubernetes-operator-api:1.10.0"
# Kinds that operators define, and the fixtures that have the API server know them.
DEFINED_BY = {"InferenceService": "kserve", "FlinkDeployment": "flink_operator"}


def documents(file: Path) -> list[dict[str, Any]]:
    found = [document for document in yaml.safe_load_all(file.read_text("utf-8")) if document]
    return [document for document in found if {"apiVersion", "kind"} <= set(document)]


MANIFESTS = [file for file in sorted(EXAMPLES.rglob("*.yaml")) if documents(file)]


def dry_run(api_server: Any, document: Any) -> None:
    api_server.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", input=yaml.safe_dump(document)
    )


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_the_server_accepts(api_server: Any, file: Path, request: pytest.FixtureRequest) -> None:
    for document in documents(file):
        if document["kind"] in DEFINED_BY:
            request.getfixturevalue(DEFINED_BY[document["kind"]])
        if namespace := document["metadata"].get("namespace"):
            api_server.apply(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
                namespace=namespace,
            )
        dry_run(api_server, document)


def test_the_server_refuses_what_is_broken(api_server: Any) -> None:
    """The dry run is a check: without it the tests above would say nothing."""
    (deployment,) = (
        document
        for document in documents(EXAMPLES / "serving-kubernetes/mlplatform-serving.yaml")
        if document["kind"] == "Deployment"
    )
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["grpc"]["port"] = 0
    with pytest.raises(AssertionError, match="must be between 1 and 65535"):
        dry_run(api_server, deployment)
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 60
    with pytest.raises(AssertionError, match="unknown field"):
        dry_run(api_server, deployment)


@pytest.fixture
def kserve(api_server: Any) -> None:
    """KServe's own definition of InferenceService, out of its Go module."""
    done = subprocess.run(
        ["go", "mod", "download", "-json", KSERVE],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOFLAGS": "-mod=mod"},
    )
    if done.returncode:
        pytest.skip(f"KServe's module cannot be had: {done.stderr[-300:]}")
    folder = Path(json.loads(done.stdout)["Dir"]) / "config/crd/full"
    define(api_server, (folder / "serving.kserve.io_inferenceservices.yaml").read_text("utf-8"))


@pytest.fixture
def flink_operator(api_server: Any, tmp_path: Path) -> None:
    """The Flink Kubernetes Operator's own definition of FlinkDeployment, out of its jar at Maven Central."""
    if shutil.which("mvn") is None:
        pytest.skip("the Flink Kubernetes Operator's definitions cannot be had: mvn is not on the PATH")
    command = ["mvn", "-B", "-q", "dependency:copy", f"-Dartifact={FLINK_OPERATOR}"]
    command += [f"-DoutputDirectory={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    if done.returncode:
        pytest.skip(f"the Flink Kubernetes Operator's definitions cannot be had: {done.stdout[-300:]}")
    (jar,) = tmp_path.glob("*.jar")
    with zipfile.ZipFile(jar) as files:
        text = files.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml").decode()
    define(api_server, text)


def define(api_server: Any, text: str) -> None:
    """Have the API server know a kind, and wait until it does."""
    definition = yaml.safe_load(text)
    api_server.kubectl("apply", "--server-side", "-f", "-", input=text)
    group, name = definition["spec"]["group"], definition["metadata"]["name"]
    listed = ("api-resources", f"--api-group={group}", "--cached=false", "--output=name")
    deadline = time.monotonic() + 60
    while name not in api_server.kubectl(*listed):
        assert time.monotonic() < deadline, "the definition is not served"
        time.sleep(0.2)
