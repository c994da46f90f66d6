"""item_category on a real Kubernetes, each task a pod of the image that was built here."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mlplatform.orchestration.kubeflow.compile import compile_pipeline
from mlplatform.registry import ModelStore
from mlplatform.testing.kubeflow import Simulator

COLOURS = Path(__file__).parents[1] / "vision/colour_photos.py"
QUICK: dict[str, Any] = {
    "model": {"backbone": "scratch", "image_size": 32, "epochs": 2, "batch_size": 6, "augment": False},
    "thresholds": {"top_1": 0.0, "top_5": 0.0, "max_top_1_drop": 1.0},
    "budget": {"p99_latency_ms": 60_000, "load_time_s": 600, "peak_memory_mb": 10_000, "time_limit_s": 900},
    "policy": {"too_few_examples": "ignore"},
}


def put_photos(place: str) -> None:
    """Write three photos to train on and one to validate with, of each colour, below a URL."""
    spec = importlib.util.spec_from_file_location("colour_photos", COLOURS)
    assert spec is not None
    assert spec.loader is not None
    colours = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(colours)
    for colour in colours.COLOURS:
        for number in range(4):
            split = "validation" if number == 3 else "train"
            data = colours.encode(colour, number, side=32)
            fsspec.filesystem("s3").pipe_file(f"{place}/{split}/{colour}/{number}.jpg", data)


@pytest.fixture
def context(cluster: Any, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the namespace of the test be that of `$KUBECONFIG`."""
    file = tmp_path / "kubeconfig"
    file.write_text(Path(cluster.kubeconfig).read_text())
    monkeypatch.setenv("KUBECONFIG", str(file))
    cluster.kubectl("config", "set-context", "local", f"--namespace={namespace}", f"--kubeconfig={file}")


@pytest.mark.timeout(1800)
def test_from_photos_to_a_pushed_model(
    image: str,
    bucket: str,
    context: None,
    s3_environment: dict[str, str],
    tmp_path: Path,
    note: Callable[[str, float], None],
) -> None:
    from mlplatform.pipelines.item_category import create_pipeline

    put_photos(f"{bucket}/photos")
    root = f"{bucket}/team"
    pipeline = create_pipeline(f"{bucket}/photos", root, data_splits=["train", "validation"], **QUICK)
    options = {
        "image": image,
        "image_pull_policy": "Never",
        "memory": "4Gi",
        "labels": {"team": "items"},
        "secrets": {"bucket": {"env": {name: name for name in s3_environment}}},
    }
    package = compile_pipeline(pipeline, root=root, options=options)
    began = time.monotonic()
    with Simulator(f"{root}/pipelines", tmp_path / "disks", mode="pod") as cluster:
        run = cluster.run(package.text)
    assert run.state == "SUCCEEDED", run.failures()
    note(f"item_category in {len(run.tasks)} pods", time.monotonic() - began)
    (version,) = ModelStore(f"{root}/models").versions("item_category")
    assert version.push is not None
    assert (version.version, version.push.dataset, version.push.run) == (1, "items@v1", run.id)
    for name, task in run.tasks.items():
        assert f"{name}: mlplatform." in task.log  # what the entry point logs in each pod


@pytest.mark.timeout(300)
def test_a_pod_that_cannot_start(bucket: str, context: None, tmp_path: Path) -> None:
    """Its task fails with what Kubernetes says, and nothing waits for ever."""
    from mlplatform.pipelines.item_category import create_pipeline

    root = f"{bucket}/team"
    pipeline = create_pipeline(f"{bucket}/photos", root, data_splits=["train", "validation"], **QUICK)
    failures = []
    for options in (
        {"image": "localhost/none:1", "image_pull_policy": "Never"},
        {"image": "localhost/none:1", "image_pull_policy": "Never", "cpu": 500},
    ):
        package = compile_pipeline(pipeline, root=root, options=options)
        with Simulator(f"{root}/pipelines", tmp_path / "disks", mode="pod") as cluster:
            run = cluster.run(package.text)
        assert run.state == "FAILED"
        assert run.states()["ImageExampleGen"] == "FAILED"
        failures.append(run.tasks["ImageExampleGen"].why)
    assert "ErrImageNeverPull" in failures[0]
    assert "Insufficient cpu" in failures[1]
