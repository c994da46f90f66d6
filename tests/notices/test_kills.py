"""No kill loses a notice: whoever dies, the next run in the root notifies, by real servers on loopback."""

import json
import random
import socketserver
import subprocess
import sys
from collections.abc import Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from mlplatform.home import Home
from mlplatform.orchestration.local.records import RunFolder
from mlplatform.registry.events import RUN_FINISHED, RUN_STARTED, run_stream
from mlplatform.registry.ledger import Ledger

KILLS = 20

# What the runner does in a run of one node. Its process kills itself before a step, which is whatever changes
# a file or a lock, or connects to a server; or before it connects for the Nth time.
PROGRAM = """
import os, signal, sys, threading
from mlplatform.home import Home
from mlplatform.orchestration.local import occasions
from mlplatform.orchestration.local.records import NodeRecord, RunFolder, RunRecord
from mlplatform.orchestration.local.run_events import RunEvents
from mlplatform.notices import send

root, run_id, state, at = *sys.argv[1:4], (sys.argv[4], int(sys.argv[5]))
seen, counting = {"step": -1, "connect": -1}, threading.RLock()

def is_step(event, arguments):
    if event == "open":
        return arguments[1] is None or any(letter in str(arguments[1]) for letter in "wax+")
    if event.startswith("os."):
        return event not in ("os.listdir", "os.scandir", "os.kill")
    return event in ("fcntl.flock", "socket.connect")

def count(event, arguments):
    if is_step(event, arguments):
        with counting:
            for name in ("step", "connect") if event == "socket.connect" else ("step",):
                seen[name] += 1
                if (name, seen[name]) == at:
                    os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
home = Home.at(root)
folder = RunFolder(home.runs / run_id)
folder.create()
written = RunEvents(home, folder)
node = NodeRecord("Train", "T")
record = RunRecord(run_id, "p", nodes=[node])
folder.write(record)
written.run_started(record)
written.finish_earlier_runs()
if state == "interrupted":
    os.kill(os.getpid(), signal.SIGKILL)
node.state, node.error = (state, "no memory" if state == "failed" else "")
written.node_finished(node)
record.state = state
folder.write(record)
written.run_finished(record)
problem = written.close()
folder.release()
print(seen["step"])
sys.exit(problem or 0)
"""


class Shop:
    """A root whose people are notified by webhook and by mail, and runs there in processes of their own."""

    def __init__(self, home: Home, hook: ThreadingHTTPServer, mail_server: socketserver.TCPServer) -> None:
        self.home, self._hook, self._mail_server = home, hook, mail_server
        self.runs: list[str] = []

    def run(self, state: str, counted: str = "step", killed_before: int = -1) -> subprocess.CompletedProcess:
        """Let a run end so; it may be killed before that."""
        self.runs.append(f"20260101T{len(self.runs):06}.000-0000")
        command = [sys.executable, "-c", PROGRAM, self.home.root, self.runs[-1], state]
        command += [counted, str(killed_before)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.home.root)
        assert done.returncode in (0, -9), done.stderr
        return done

    def notified(self, run: str) -> tuple[list[str], list[str]]:
        """Return what people got about a run: the occasions of posts, and the subjects of mails."""
        posted = [body["occasion"] for _, body in self._hook.posted if body["run"] == run]  # type: ignore[attr-defined]
        mails = [text for text in self._mail_server.mails if f"run {run}\n" in text.replace("\r", "")]  # type: ignore[attr-defined]
        lines = [line for text in mails for line in text.splitlines()]
        return posted, [line for line in lines if line.startswith("Subject: ")]

    def existing(self) -> list[tuple[str, str]]:
        """Return the runs that have a record, each with its state."""
        folders = [RunFolder(self.home.runs / run) for run in self.runs]
        return [(f.run_id, f.read().state) for f in folders if (f.path / "run.json").is_file()]

    def check(self) -> None:
        """See that nobody is owed a notice, and that the ledger knows the end of each run that it knows."""
        assert list((self.home.machine / "notices").iterdir()) == []
        for run in self.runs:
            kinds = [event.kind for event in Ledger(self.home.ledger).events(run_stream(run))]
            assert kinds.count(RUN_FINISHED) == kinds.count(RUN_STARTED)


@pytest.fixture
def shop(tmp_path: Path, hook: ThreadingHTTPServer, mail_server: socketserver.TCPServer) -> Shop:
    mail = {"server": "127.0.0.1", "port": mail_server.server_address[1], "sender": "a@b", "to": ["c@d"]}
    webhook = f"http://127.0.0.1:{hook.server_port}/hook"
    (tmp_path / "notices.yaml").write_text(json.dumps({"webhook": webhook, "mail": {**mail, "tls": "none"}}))
    return Shop(Home.at(tmp_path), hook, mail_server)


SUBJECTS = {"failed": "Subject: p failed", "recovered": "Subject: p works again"}


def got(occasion: str, posts: int = 1, mails: int = 1) -> tuple[list[str], list[str]]:
    return [occasion] * posts, [SUBJECTS[occasion]] * mails


def test_killed_before_and_between_the_ways_to_notify(shop: Shop) -> None:
    shop.run("failed", "connect", 0)
    assert shop.notified(shop.runs[0]) == ([], [])
    shop.run("failed", "connect", 1)  # while it does what the first one could not
    assert shop.notified(shop.runs[0]) == got("failed", mails=0)
    shop.run("failed", "connect", 5)  # after both of the first, both of the second, and its own post
    shop.run("interrupted")
    shop.run("done")
    assert dict(shop.existing())[shop.runs[3]] == "interrupted"
    assert shop.notified(shop.runs[0]) == got("failed", posts=2)
    assert shop.notified(shop.runs[1]) == got("failed")
    assert shop.notified(shop.runs[2]) == got("failed", posts=2)
    assert shop.notified(shop.runs[3]) == got("failed")
    assert shop.notified(shop.runs[4]) == got("recovered")
    shop.check()


def expected(states: Sequence[str]) -> list[str]:
    """Return what there is to know of runs that ended so, one after the other; empty for nothing."""
    bad = [state in ("failed", "interrupted") for state in states]
    before = [False, *bad[:-1]]
    return ["failed" if now else "recovered" if was else "" for was, now in zip(before, bad, strict=True)]


@pytest.mark.soak
def test_killed_again_and_again_at_any_step(shop: Shop, soak_seed: int) -> None:
    chance = random.Random(soak_seed)
    steps = int(shop.run("failed").stdout)
    states = ["failed", "done", "interrupted"]
    killed = [
        shop.run(chance.choice(states), "step", chance.randrange(steps)).returncode for _ in range(KILLS)
    ]
    assert killed.count(-9) > KILLS // 2  # those of which nobody is notified are shorter
    shop.run("done")
    existing = shop.existing()
    for (run, _), occasion in zip(existing, expected([state for _, state in existing]), strict=True):
        posts, mails = shop.notified(run)
        assert set(posts) == ({occasion} - {""}), (run, existing)
        assert set(mails) == ({SUBJECTS[occasion]} if occasion else set()), (run, existing)
    shop.check()
