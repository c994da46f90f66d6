"""Every manifest of the examples, as the real API server takes it: its dry run does all but store."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
KSERVE = "github.com/kserve/kserve@v0.15.2"
# Kinds that operators define, and whose definitions no registry has that can be asked here.
UNDEFINED = {"FlinkDeployment"}


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
        if document["kind"] == "InferenceService":
            request.getfixturevalue("kserve")
        if namespace := document["metadata"].get("namespace"):
            api_server.apply(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
                namespace=namespace,
            )
        if document["kind"] not in UNDEFINED:
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
    api_server.kubectl("apply", "--server-side", "-f", folder / "serving.kserve.io_inferenceservices.yaml")
    listed = ("api-resources", "--api-group=serving.kserve.io", "--cached=false", "--output=name")
    deadline = time.monotonic() + 60
    while "inferenceservices.serving.kserve.io" not in api_server.kubectl(*listed):
        assert time.monotonic() < deadline, "the definition is not served"
        time.sleep(0.2)
