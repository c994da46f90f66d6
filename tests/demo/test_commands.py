"""`mlplatform demo serve` and `demo page` as processes of their own, each with its model server."""

import json
import os
import queue
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from mlplatform.cli.demo import demo
from mlplatform.demo.errors import WithdrawnVersionError
from mlplatform.demo.facts import read_facts
from mlplatform.home import Home
from mlplatform.registry import ModelStore

REPOSITORY = Path(__file__).parents[2]
_IN_A_PROCESS = """
import sys
from mlplatform.cli.main import cli
try:
    cli(sys.argv[1:])
finally:
    print("TENSORFLOW", "tensorflow" in sys.modules, flush=True)
"""


def commands(page: str) -> list[list[str]]:
    text = (REPOSITORY / page).read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def start(home: Home, words: list[str]) -> tuple["subprocess.Popen[str]", "queue.SimpleQueue[str]"]:
    """Start a command; its lines come out of the queue."""
    process = subprocess.Popen(
        [sys.executable, "-c", _IN_A_PROCESS, *words, "--root", home.root],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    return process, lines


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_commands_of_the_page_work_without_tensorflow_in_the_web_process(
    home: Home, colours: ModuleType, tmp_path: Path
) -> None:
    words = commands("docs/how-to/show-a-model.md")
    assert words[0][:3] == ["mlplatform", "demo", "serve"]
    serve = ["demo", "colour", "--port", "0"]  # the short form of the page's first command
    process, lines = start(home, serve)
    try:
        found = ""
        while not found.startswith("http://"):
            found = lines.get(timeout=300)
            assert found, "it ended"
        address, servers = found.strip(), children(process.pid)
        assert len(servers) == 1
        with urllib.request.urlopen(f"{address}?format=json", timeout=60) as response:
            page = json.load(response)
        assert (page["name"], page["beside"]["name"]) == ("colour@2", "colour@1")
        photo = tmp_path / "photo.jpg"
        photo.write_bytes(colours.encode("green", 3))
        # What the page's `curl` sends, to this port.
        curl = next(line for line in words if line[0] == "curl")
        assert curl[1:4] == ["-s", "-F", f"photo=@{photo.name}"]
        target = curl[4].replace("localhost:8090/", address)
        head = f'--b\r\nContent-Disposition: form-data; name="photo"; filename="{photo.name}"\r\n\r\n'
        request = urllib.request.Request(
            target,
            head.encode() + photo.read_bytes() + b"\r\n--b--\r\n",
            {"Content-Type": "multipart/form-data; boundary=b"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answered = json.load(response)
        assert answered["results"][0]["answers"][0]["classes"][0]["name"] == "green"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        rest = ""
        while line := lines.get(timeout=60):
            rest += line
        assert rest == "TENSORFLOW False\n"
        assert not is_running(servers[0])
    finally:
        process.kill()
        process.wait()


def test_the_model_server_ends_with_a_killed_demo(home: Home) -> None:
    process, lines = start(home, ["demo", "serve", "columns", "--port", "0"])
    assert lines.get(timeout=60).startswith("loading columns@1")
    while not (servers := children(process.pid)):
        assert process.poll() is None, "it ended"
    server = os.pidfd_open(servers[0])
    process.kill()
    process.wait()
    select.select([server], [], [])  # readable when the server has ended
    os.close(server)


def test_page_writes_the_file(home: Home, tmp_path: Path, mlplatform: Callable[..., Any]) -> None:
    words = next(w for w in commands("docs/how-to/show-a-model.md") if w[1:3] == ["demo", "page"])
    words = [tmp_path / w if w.endswith(".html") else w.replace("item_category", "fare") for w in words]
    done = mlplatform(*words[1:], "--root", home.root, "--json")
    assert done.code == 0, done.err
    made = json.loads(done.out)
    assert made["name"] == "fare@1"
    assert made["records"] == 60, "all that were held out"
    assert (tmp_path / "item_category.html").stat().st_size == made["bytes"]


def test_a_name_that_is_no_subcommand_is_a_model() -> None:
    assert isinstance(demo, click.Group)
    for words, command, rest in (
        (["hats"], "serve", ["hats"]),
        (["hats@3", "--port", "0"], "serve", ["hats@3", "--port", "0"]),
        (["serve", "photos"], "serve", ["photos"]),
        (["photos", "out"], "photos", ["out"]),
        (["page", "x", "-o", "f"], "page", ["x", "-o", "f"]),
    ):
        name, _, left = demo.resolve_command(click.Context(demo), list(words))
        assert (name, left) == (command, rest)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "nothing"),
        (["colour@9"], "9"),
        (["serve", "colour", "--host", "0.0.0.0"], "name the hosts"),
        (["page", "colour@9", "-o", "x.html"], "9"),
    ],
)
def test_what_is_not_there_is_one_line(home: Home, words: list[str], said: str, command: Any) -> None:
    done = command("demo", *words, "--root", home.root)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_withdrawn_version_is_refused(own_home: Home) -> None:
    ModelStore(own_home.models).rollback("colour", why="wrong")
    with pytest.raises(WithdrawnVersionError, match="colour@2 is withdrawn"):
        read_facts(own_home, "colour@2")
    assert read_facts(own_home, "colour").version == 1
