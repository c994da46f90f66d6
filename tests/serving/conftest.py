"""Models and servers for the tests of the model server."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def _running() -> Any:
    file = Path(__file__).with_name("running.py")
    spec = importlib.util.spec_from_file_location("serving_running", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def running() -> Any:
    """The module that starts servers as processes."""
    return _running()


@pytest.fixture(scope="session")
def models(running: Any) -> Path:
    """Folder of all test models; not to be changed."""
    return running.model_folder()


@pytest.fixture
def hold(tmp_path: Path, running: Any) -> Iterator[Callable[[], Any]]:
    """Make requests that compute until they are let go, which all are at the end."""
    made: list[Any] = []

    def hold() -> Any:
        made.append(running.Held(tmp_path / f"held-{len(made)}"))
        return made[-1]

    yield hold
    for one in made:
        one.let_go()


@pytest.fixture
def base_path(tmp_path: Path, models: Path) -> Path:
    """A base path with version 1: half plus two."""
    base = tmp_path / "half"
    shutil.copytree(models / "half_plus_two" / "00000123", base / "1")
    return base


@pytest.fixture
def push(models: Path) -> Callable[..., None]:
    """Put a version of half_plus_two (or another model) under a base path, in one step."""

    def push(base: Path, version: int, model: str = "half_plus_three/1") -> None:
        partial = base / f".{version}"
        shutil.copytree(models / model, partial)
        partial.rename(base / str(version))

    return push


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Start servers in this process; they are stopped at the end."""
    from mlplatform.serving import ModelServer

    started: list[Any] = []

    def serve(**settings: Any) -> Any:
        quick = {
            "port": 0,
            "rest_api_port": 0,
            "file_system_poll_wait_seconds": 0.1,
            "lame_duck_s": 0.0,
            "drain_s": 5.0,
        }
        server = ModelServer(**{**quick, **settings})
        started.append(server)
        server.start()
        return server

    yield serve
    for server in started:
        server.stop()


@pytest.fixture
def client() -> Iterator[Callable[..., Any]]:
    """Connect to a server of this process."""
    from mlplatform.serving import Client

    opened: list[Any] = []

    def client(server: Any, *, over: str = "grpc", **options: Any) -> Any:
        port = server.grpc_port if over == "grpc" else server.rest_port
        address = f"127.0.0.1:{port}" if over == "grpc" else f"http://127.0.0.1:{port}"
        opened.append(Client(address, **options))
        return opened[-1]

    yield client
    for one in opened:
        one.close()
