"""A pipeline object that a script runs: nothing is imported twice, nothing of the script leaks into nodes."""

import json
import subprocess
import sys
import threading

import pytest

from mlplatform.orchestration.local.processes.fork_server import can_fork_this_process

PARTS = """
import os
import sys
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import String

RATE = 1

@component
def Rate(number: Parameter[int], out: OutputArtifact[String]):
    print("printed by the node")
    main = getattr(sys.modules["__main__"], "__file__", "-")
    out.write(f"{RATE} {os.getppid()} {main}")
"""
SCRIPT = """
import json, pathlib, sys
import parts
import psutil
from mlplatform.orchestration.local import LocalRunner
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline

root = sys.argv[1]
parts.RATE = 5  # of the script alone

def run(runner):
    made = Pipeline(
        pipeline_name="rates",
        pipeline_root=root + "/artifacts",
        components=[parts.Rate(number=1)],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(root + "/metadata.sqlite"),
    )
    record = runner.run(made)
    [artifact] = record.node("Rate").outputs["out"]
    return record.node("Rate").state, pathlib.Path(artifact.uri).read_text().split()

if __name__ == "__main__":
    sys.stdout.write("held back until the end\\n")
    first = LocalRunner(root)
    state, (rate, server, main) = run(first)
    is_fork = psutil.Process(int(server)).cmdline() == psutil.Process().cmdline()
    first.close()
    loaded = set(sys.modules)
    again, _ = run(LocalRunner(root))
    imported = sorted({name.partition(".")[0] for name in set(sys.modules) - loaded})
    processes = len(psutil.Process().children(recursive=True))
    print(json.dumps([state, rate, main, is_fork, again, imported, processes]))
"""


@pytest.mark.e2e
def test_nodes_are_forked_from_the_script_and_an_unchanged_run_starts_nothing(tmp_path):
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", str(tmp_path / "root")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()  # each once, and nothing of the node's
    assert first == "held back until the end"
    state, rate, main, is_fork, again, imported, processes = json.loads(second)
    assert (state, rate, main, is_fork) == ("done", "1", "-", True)
    assert (again, processes) == ("cached", 0)
    assert not {"tfx", "tensorflow", "apache_beam"} & set(imported)
    [log] = (tmp_path / "root").glob("runs/*/logs/Rate.log")
    assert "printed by the node" in log.read_text()


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
