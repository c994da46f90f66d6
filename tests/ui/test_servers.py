"""What servers serve, on the page of a model: by their own word, and by the ledger's."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlplatform.home import Home
from mlplatform.registry import ModelStore
from mlplatform.ui.server import Pages
from mlplatform.ui.servers import Servers
from mlplatform.ui.site import Site

STATUS = {"model_version_status": [{"version": "2", "state": "AVAILABLE"}, {"version": "1", "state": "END"}]}


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = self.server.answers.get(self.path, (404, b"{}"))  # type: ignore[attr-defined]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/v1/models/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[ThreadingHTTPServer]:
    """A server that answers what a test puts into `answers`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        server.answers = {}  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_the_page_of_a_model_says_what_serves_where_and_since_when(
    own_home: Home, answering: ThreadingHTTPServer
) -> None:
    answering.answers["/v1/models/item_category"] = (200, json.dumps(STATUS).encode())  # type: ignore[attr-defined]
    models = ModelStore(own_home.models)
    models.confirm("item_category", 1, ["10.0.0.7:8500"])
    site = Site(own_home, servers=[url(answering)])
    pages = Pages(site)
    asked, confirmed = json.loads(pages.answer("/models/item_category?format=json").body)["servers"]
    assert (asked["version"], asked["states"], asked["agrees"]) == (2, {"1": "END", "2": "AVAILABLE"}, True)
    assert asked["since"]
    assert (confirmed["server"], confirmed["version"], confirmed["agrees"]) == ("10.0.0.7:8500", 1, False)
    text = pages.answer("/models/item_category").body.decode()
    assert "not the newest that is to serve" in text
    models.rollback("item_category", why="bad")
    asked, _ = json.loads(pages.answer("/models/item_category?format=json").body)["servers"]
    assert (asked["version"], asked["agrees"]) == (2, False)
    site.index.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((404, b"{}"), "does not know the model"),
        ((500, b""), "it answers 500"),
        ((302, b""), "it answers 302"),
        ((200, b"<html>"), "something else"),
        ((200, b'{"model_version_status": 3}'), "something else"),
        ((200, b'{"model_version_status": [{"version": "x", "state": 1}]}'), "something else"),
    ],
)
def test_a_server_that_says_something_else(
    answering: ThreadingHTTPServer, answer: tuple[int, bytes], says: str
) -> None:
    answering.answers["/v1/models/m"] = answer  # type: ignore[attr-defined]
    [served] = Servers([url(answering)]).served("m")
    assert says in served.problem
    assert served.available == []


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    [served] = Servers([f"http://127.0.0.1:{port}"]).served("m")
    assert "does not answer" in served.problem
