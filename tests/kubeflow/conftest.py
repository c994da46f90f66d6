"""Packages of real pipelines, for the tests of compiling, checking and submitting."""

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PIPELINES = Path(__file__).parent / "pipelines"
ROOT = "s3://bucket/team"


@pytest.fixture(scope="session")
def every_kind() -> Iterator[Any]:
    """The module of a pipeline with every kind of node."""
    sys.path.insert(0, str(PIPELINES))
    import every_kind

    yield every_kind
    sys.path.remove(str(PIPELINES))


@pytest.fixture(scope="session")
def taxi() -> Any:
    """The taxi pipeline of stock components, compiled, with a volume for its data and its models."""
    from mlplatform.orchestration.kubeflow.compile import compile_pipeline
    from mlplatform.orchestration.local.reference import make_pipeline

    file = Path(__file__).parents[2] / "examples" / "taxi" / "pipeline.py"
    kubernetes = {"volumes": {"data": "/mnt"}, "nodes": {"Trainer": {"gpu": 1, "memory": "4Gi"}}}
    pipeline = make_pipeline(str(file), "/mnt/trips", "/mnt/root", {"kubernetes": kubernetes})
    return compile_pipeline(pipeline, root=ROOT)


@pytest.fixture
def documents(taxi: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two documents of the taxi package, to be changed."""
    return copy.deepcopy(dict(taxi.spec)), copy.deepcopy(dict(taxi.platform))


@pytest.fixture
def compile_(every_kind: Any) -> Callable[..., Any]:
    """Compile the pipeline with every kind of node."""
    from mlplatform.orchestration.kubeflow.compile import compile_pipeline

    def compile_it(handler: bool = False, kubernetes: Any = None, **options: Any) -> Any:
        make = every_kind.with_exit_handler if handler else every_kind.create_pipeline
        return compile_pipeline(make(ROOT, kubernetes=kubernetes), root=ROOT, **options)

    return compile_it
