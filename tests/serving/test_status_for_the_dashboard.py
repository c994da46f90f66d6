"""The dashboard reads the states of a real server."""

from pathlib import Path
from typing import Any

from mlplatform.ui.servers import Servers


def test_what_a_server_serves(serve: Any, base_path: Path) -> None:
    server = serve(model_name="half", model_base_path=str(base_path))
    [served] = Servers([f"http://127.0.0.1:{server.rest_port}/"]).served("half")
    assert (served.available, served.versions, served.problem) == ([1], {1: "AVAILABLE"}, "")
    [unknown] = Servers([f"http://127.0.0.1:{server.rest_port}"]).served("other")
    assert unknown.problem == "it does not know the model"
