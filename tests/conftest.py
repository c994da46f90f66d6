"""What holds for every test."""

import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from mlplatform.orchestration.local import LocalRunner

# What the studies marked `soak` draw from: the same text gives the same kills, inputs and moments.
SOAK_SEED = os.environ.get("SOAK_SEED", "0")


def pytest_report_header() -> str:
    """Print what repeats a study that failed."""
    return f"soak studies: SOAK_SEED={SOAK_SEED}"


@pytest.fixture(scope="session")
def soak_seed() -> int:
    """The seed of the long studies, a whole number from the environment's SOAK_SEED (any text; default 0)."""
    return random.Random(SOAK_SEED).randrange(1 << 30)


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator["LocalRunner"]:
    """A runner whose processes stay warm: TFX is imported once for all tests that run pipelines with it."""
    from mlplatform.orchestration.local import LocalRunner

    runner = LocalRunner(tmp_path_factory.mktemp("home"), parallelism=2)
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def beam_of_nodes() -> None:
    """Let Beam run in this process as it does in the local runner's nodes: in a third of the time.

    Beam as it is runs under the stock runner, in processes of its own.
    """
    from mlplatform.orchestration.local.patches import beam_in_process

    beam_in_process.prepare()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Start each test, and the fixtures made for it, from the same random numbers.

    Keras 3 seeds the weights of new layers from `random`: a network that a test makes is the same every time.
    """
    random.seed(0)
    np.random.seed(0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the files, and leave the minutes-long studies out unless they are asked for by name (`-m soak`).

    Parallel workers take whole files in this order: those that take long come first, so that no worker is
    left with one of them at the end.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    e2e = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: (item.path not in slow, item.path not in e2e))
    if "soak" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of an S3 server in this process; other processes reach it by the environment."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files = fsspec.get_filesystem_class("s3")
        files.clear_instance_cache()  # its clients keep the server that they first had
        files().makedirs("bucket", exist_ok=True)  # the servers of one process share what they hold
        try:
            yield "s3://bucket"
        finally:
            server.stop()
            files.clear_instance_cache()
