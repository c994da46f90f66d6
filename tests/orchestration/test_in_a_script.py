"""A pipeline object that a script runs: nothing is imported twice, nothing of the script leaks into nodes."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mlplatform.orchestration.local import LocalRunner
from mlplatform.orchestration.local.processes.fork_server import can_fork_this_process

PARTS = """
import os
import sys
import time
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import String

RATE = 1

@component
def Sleep(file: Parameter[str], out: OutputArtifact[String]):
    with open(file, "w") as pids:
        pids.write(f"{os.getpid()} {os.getppid()}\\n")
    time.sleep(600)

@component
def Rate(number: Parameter[int], out: OutputArtifact[String]):
    print("printed by the node")
    main = getattr(sys.modules["__main__"], "__file__", "-")
    out.write(f"{RATE} {os.getppid()} {main}")
"""
SCRIPT = """
import datetime, json, pathlib, signal, sys
import parts
import psutil
from mlplatform.orchestration.local import LocalRunner
from mlplatform.orchestration.local.cache import surroundings
from mlplatform.orchestration.local.processes.fork_server import can_fork_this_process
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline

class OneHour(datetime.datetime):  # the test may run over the full hour, with which what is remembered ends
    now = classmethod(lambda cls, tz=None: cls(2026, 1, 1, 12, tzinfo=tz))

surroundings.datetime = OneHour
root = sys.argv[1]
parts.RATE = 5  # of the script alone

def pipeline(component):
    return Pipeline(
        pipeline_name="rates",
        pipeline_root=root + "/artifacts",
        components=[component],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(root + "/metadata.sqlite"),
    )

def run(runner):
    record = runner.run(pipeline(parts.Rate(number=1)))
    [artifact] = record.node("Rate").outputs["out"]
    return record.node("Rate").state, pathlib.Path(artifact.uri).read_text().split()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    sys.stdout.write("held back until the end\\n")
    is_safe = can_fork_this_process()
    first = LocalRunner(root)
    state, (rate, server, main) = run(first)
    is_fork = psutil.Process(int(server)).cmdline() == psutil.Process().cmdline()
    loaded = set(sys.modules)
    again, _ = run(LocalRunner(root))
    imported = sorted({name.partition(".")[0] for name in set(sys.modules) - loaded})
    processes = len(psutil.Process().children(recursive=True))  # the fork server, and no other
    print(json.dumps([state, rate, main, is_fork, is_safe, again, imported, processes]), flush=True)
    for way in ("interrupted", "killed"):
        try:
            first.run(pipeline(parts.Sleep(file=root + "/" + way)))
        except KeyboardInterrupt:
            print(first.record.state, flush=True)
"""


def pids_in(file: Path) -> list[psutil.Process]:
    """Return the processes of the sleeping node and of its fork server, once it sleeps."""
    while not (file.exists() and file.read_text().endswith("\n")):
        time.sleep(0.05)
    return [psutil.Process(int(pid)) for pid in file.read_text().split()]


def have_ended(processes: list[psutil.Process]) -> bool:
    """Return whether processes end within a minute; one that init has not taken note of has ended, too."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not any(map(is_alive, processes)):
            return True
        time.sleep(0.05)
    return False


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.e2e
def test_nodes_are_forked_from_the_script_and_end_with_it(tmp_path):
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "script.py").write_text(SCRIPT)
    root = tmp_path / "root"
    script = subprocess.Popen(
        [sys.executable, "script.py", str(root)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert script.stdout.readline() == "held back until the end\n"  # once, and nothing of the node's
    state, rate, main, is_fork, is_safe, again, imported, processes = json.loads(script.stdout.readline())
    assert (state, rate, main) == ("done", "1", "-")
    # The libraries of one stack start threads when they are imported, the other's do not.
    assert is_fork == is_safe
    assert (again, processes) == ("cached", 1)
    assert not {"tfx", "tensorflow", "apache_beam"} & set(imported)
    [log] = root.glob("runs/*/logs/Rate.log")
    assert "printed by the node" in log.read_text()

    node, server = pids_in(root / "interrupted")
    script.send_signal(signal.SIGINT)
    assert script.stdout.readline() == "cancelled\n"
    assert have_ended([node])
    node, same_server = pids_in(root / "killed")
    assert same_server == server
    script.kill()
    script.communicate(timeout=60)
    assert have_ended([node, server])
    assert LocalRunner(root).status().state == "interrupted"


def test_a_process_with_a_further_thread_is_not_forked():
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert not can_fork_this_process()
    finally:
        over.set()
        thread.join()


def test_a_process_whose_libraries_compute_in_threads_is_not_forked():
    code = (
        "import threading, sys\n"
        "from mlplatform.orchestration.local.processes.fork_server import can_fork_this_process as can\n"
        "print(can())\n"
        "import _thread, threading\n"
        "lock = _thread.allocate_lock(); lock.acquire()\n"
        "_thread.start_new_thread(lock.acquire, ())  # a thread that Python does not list, as OpenMP's\n"
        "print(can())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
