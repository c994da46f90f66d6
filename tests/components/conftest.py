"""Photos of colours, and pipelines as Kubeflow gets them, for the tests of components.

Beam runs in this process as in the local runner's nodes. As it is it runs under the stock runner, which some
of the tests start.
"""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

_FILE = Path(__file__).parents[1] / "vision" / "colour_photos.py"


@pytest.fixture(scope="session", autouse=True)
def _beam_is_quick(beam_of_nodes: None) -> None:
    """A third of the time."""


@pytest.fixture(scope="session")
def colours() -> ModuleType:
    """The module `colour_photos`."""
    spec = importlib.util.spec_from_file_location("colour_photos", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def compile_for_kubeflow() -> Callable[[Any], dict[str, Any]]:
    """Compile a pipeline as TFX does for Kubeflow Pipelines; returns its specification.

    Names of pipelines have no '_' there.
    """

    def compile_(pipeline: Any) -> dict[str, Any]:
        from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as kubeflow

        pipeline.pipeline_info.pipeline_name = pipeline.pipeline_info.pipeline_name.replace("_", "-")
        config = kubeflow.KubeflowV2DagRunnerConfig(default_image="image", use_pipeline_spec_2_1=True)
        job = kubeflow.KubeflowV2DagRunner(config=config).run(pipeline, write_out=False)
        specification: dict[str, Any] = job["pipelineSpec"]
        return specification

    return compile_


@pytest.fixture(scope="session")
def quick_probes(warm_processes: Any) -> Iterator[None]:
    """Let the processes that the serving check starts begin in a moment, from here on.

    They are real ones where a test says so, and in runs that begin with a command of its own.
    """
    with pytest.MonkeyPatch.context() as patch:
        quick = SimpleNamespace(Popen=warm_processes.Popen, NoSuchProcess=psutil.NoSuchProcess)
        patch.setattr("mlplatform.components.model_validator.serving_check.psutil", quick)
        yield


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A backbone of next to nothing, named by blocks; which blocks the default one has, other tests show."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((32, 32, 3)),
        keras.layers.Rescaling(1 / 127.5, offset=-1.0),
        keras.layers.Conv2D(8, 4, 4, activation="relu", name="block1_conv"),
        keras.layers.Conv2D(16, 4, 4, activation="relu", name="block2_conv"),
        keras.layers.Flatten(),
    ]
    file = tmp_path_factory.mktemp("network") / "network.keras"
    keras.Sequential(layers).save(file)
    return str(file)
