"""A run that ten people follow in the dashboard: they see it while it runs, and none of its writes fails."""

import asyncio
import json
import socket
import sqlite3
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

from mlplatform.home import Home
from mlplatform.orchestration.local import LocalRunner
from mlplatform.ui.access import access_for
from mlplatform.ui.server import Pages, UiServer, listen
from mlplatform.ui.site import Site

COUNT = 10
COMPLETE = 3
PAGES = ("/", "/runs", "/runs/{run}", "/runs/{run}/nodes/Hold", "/runs/{run}/logs/Hold?follow=1", "/lineage",
         "/lineage?what=run:{run}", "/gates", "/disk", "/models")  # fmt: skip


@contextmanager
def dashboard(home: Home) -> Iterator[str]:
    """A dashboard at a port; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    site = Site(home)
    server, loop = UiServer(Pages(site), access_for("127.0.0.1", port)), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(listen(server, listener), loop).result()
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    server.close()
    site.index.close()


class Followers:
    """Ten people who look at the pages of the run that is going on, again and again until it is over."""

    def __init__(self, address: str, go: Callable[[], object]) -> None:
        self._address, self._go = address, go
        self._everybody_saw_it = threading.Barrier(COUNT, action=go)
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(COUNT)
        self._looks = [self._pool.submit(self._follow, first) for first in range(COUNT)]

    def end(self) -> list[int]:
        """Return how many pages each has seen. Raises HTTPError: one was not given."""
        self._is_over.set()
        self._everybody_saw_it.abort()
        self._pool.shutdown()
        return [each.result() for each in self._looks]

    def _follow(self, first: int) -> int:
        looks, run = 0, ""
        try:
            while not run and not self._is_over.wait(0.5):
                run = self._run_that_holds()
            while looks < len(PAGES) or not self._is_over.wait(1):  # as often as a page looks again
                self._read(PAGES[(first + looks) % len(PAGES)].format(run=run))
                looks += 1
                if looks == len(PAGES):
                    self._everybody_saw_it.wait()
        except Exception:
            self._everybody_saw_it.abort()
            self._go()  # the run waits no longer
            raise
        return looks

    def _run_that_holds(self) -> str:
        for row in json.loads(self._read("/runs?format=json"))["runs"]:
            nodes = json.loads(self._read(f"/runs/{row['run_id']}?format=json"))["nodes"]
            if any((node["id"], node["state"]) == ("Hold", "running") for node in nodes):
                return str(row["run_id"])
        return ""

    def _read(self, page: str) -> bytes:
        with urllib.request.urlopen(self._address + page) as answer:
            return bytes(answer.read())


def test_ten_followers_of_a_run_fail_none_of_its_writes(tmp_path, pipeline, trace, warm_start):
    import steps
    from tfx.orchestration.metadata import sqlite_metadata_connection_config

    home = Home.at(tmp_path)
    hold = steps.Hold(trace=str(trace))
    texts = [steps.Make(trace=str(trace), text="a").with_id("Make")]
    for number in range(4):
        texts.append(steps.Upper(trace=str(trace), source=texts[-1].outputs["out"]).with_id(f"Upper{number}"))
    texts[1].add_upstream_node(hold)
    database = sqlite_metadata_connection_config(str(home.metadata_db))
    runner = LocalRunner(home.root, parallelism=2)
    with dashboard(home) as address:
        followers = Followers(address, (trace / "go").touch)
        try:
            record = runner.run(pipeline(hold, *texts, database=database))
        finally:
            runner.close()
            looks = followers.end()
    assert {node.state for node in record.nodes} == {"done"}
    assert min(looks) >= len(PAGES)
    with closing(sqlite3.connect(home.metadata_db)) as store:
        states = store.execute("SELECT last_known_state FROM Execution").fetchall()
    assert states == [(COMPLETE,)] * len(record.nodes)
