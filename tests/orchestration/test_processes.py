"""The fork server and its jobs: what they see, and that nothing of them is left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mlplatform.orchestration.local.processes.failures import Failure
from mlplatform.orchestration.local.processes.fork_server import Exited, Preloaded, Started
from mlplatform.orchestration.local.processes.node_process import ForkServerEndedError, JobMessage, Processes

pytestmark = pytest.mark.e2e


@pytest.fixture
def processes(tmp_path):
    processes = Processes(tmp_path / "server.log")
    yield processes
    processes.stop()


def next_event(processes, kind, timeout_s=60.0):
    """Return the first message of a kind; the others are dropped."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for message in processes.events(0.1):
            if isinstance(message, kind):
                return message
    pytest.fail(f"no {kind.__name__} was received")


def result_of(processes, target, tmp_path, **arguments):
    processes.start(target, tmp_path / "job.log", **arguments)
    message = next_event(processes, JobMessage)
    next_event(processes, Exited)
    return message.content


def helpers(pids: Path, count: int = 1) -> list[psutil.Process]:
    """Return the processes that jobs started, when there are so many."""
    deadline = time.monotonic() + 60
    while not pids.exists() or len(pids.read_text().split()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [psutil.Process(int(pid)) for pid in pids.read_text().split() if psutil.pid_exists(int(pid))]


def are_gone(processes: list[psutil.Process]) -> bool:
    _, left = psutil.wait_procs(processes, timeout=60)
    alive = [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.kill()
    return not alive


class TestNothingIsLeft:
    @pytest.mark.parametrize("session", [False, True])
    def test_of_a_job_that_ended(self, processes, tmp_path, session):
        processes.start("jobs:start_helper", tmp_path / "log", pids=str(tmp_path / "pids"), session=session)
        found = helpers(tmp_path / "pids")
        next_event(processes, Exited)
        assert are_gone(found)

    @pytest.mark.parametrize("session", [False, True])
    def test_of_a_job_that_was_killed(self, processes, tmp_path, session):
        arguments = {"pids": str(tmp_path / "pids"), "then": "wait", "session": session}
        processes.start("jobs:start_helper", tmp_path / "log", **arguments)
        pid = next_event(processes, Started).pid
        found = helpers(tmp_path / "pids")
        os.kill(pid, signal.SIGKILL)
        assert are_gone(found)

    def test_of_a_fork_server_that_was_killed(self, processes, tmp_path):
        processes.start("jobs:start_helper", tmp_path / "log", pids=str(tmp_path / "pids"), then="wait")
        pid = next_event(processes, Started).pid
        found = [psutil.Process(pid), *helpers(tmp_path / "pids")]
        os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
        with pytest.raises(ForkServerEndedError):
            next_event(processes, Exited)
        assert are_gone(found)

    def test_of_runners_processes_that_stop_while_a_message_is_unread(self, processes, tmp_path):
        for _ in range(2):
            processes.start("jobs:start_helper", tmp_path / "log", pids=str(tmp_path / "pids"), then="wait")
        found = helpers(tmp_path / "pids", 2)
        processes.stop()
        assert are_gone(found)
        assert "Traceback" not in (tmp_path / "server.log").read_text()

    @pytest.mark.parametrize("is_importing", [False, True])
    def test_of_a_runner_that_was_killed(self, tmp_path, pipelines, is_importing):
        script = f"""
import sys, time
sys.path.insert(0, {str(pipelines)!r})
from pathlib import Path
from mlplatform.orchestration.local.processes.node_process import Processes
folder = Path({str(tmp_path)!r})
processes = Processes(folder / "server.log")
processes.start("jobs:start_helper", folder / "log", pids=str(folder / "pids"), then="wait", session=True)
while not (folder / "pids").exists():
    for message in processes.events(0.1):
        pass
if {is_importing}:
    processes.preload("jobs:take_long", started=str(folder / "importing"))
    while not (folder / "importing").exists():
        for message in processes.events(0.1):
            pass
print("ready", flush=True)
time.sleep(600)
"""
        runner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"ready\n"
        found = [*psutil.Process(runner.pid).children(recursive=True), *helpers(tmp_path / "pids")]
        runner.kill()
        runner.wait()
        assert are_gone(found)  # also while the fork server is busy with an import, of ten minutes

    def test_of_a_job_whose_start_was_not_heard_of(self, processes, tmp_path):
        processes.start("jobs:write_later", tmp_path / "log", file=str(tmp_path / "written"))
        processes.end_jobs()
        time.sleep(2)
        assert not (tmp_path / "written").exists()
        assert result_of(processes, "jobs:place_of", tmp_path, module="jobs").endswith("jobs.py")


class TestSurroundings:
    def test_a_job_has_the_folder_and_the_variables_that_its_caller_has_now(
        self, processes, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("OF_THIS_TEST", "now")
        monkeypatch.chdir(tmp_path)
        folder, variable, path = result_of(processes, "jobs:surroundings", tmp_path, name="OF_THIS_TEST")
        assert (folder, variable) == (str(tmp_path), "now")
        assert path == sys.path
        monkeypatch.delenv("OF_THIS_TEST")
        assert result_of(processes, "jobs:surroundings", tmp_path, name="OF_THIS_TEST")[1] is None

    @pytest.mark.parametrize(
        ("level", "logged"), [(None, ["error"]), ("0", ["information", "warning", "error"])]
    )
    def test_tensorflow_logs_errors_alone_unless_the_user_says_otherwise(
        self, tmp_path, monkeypatch, level, logged
    ):
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
        if level is not None:
            monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
        processes = Processes(tmp_path / "server.log")
        # What keys of results are made of is what the user set, and no more.
        assert result_of(processes, "jobs:log_with_tensorflow", tmp_path) == level
        processes.stop()
        log = (tmp_path / "job.log").read_text()
        assert ("cpu_feature_guard" in log) == (level is not None)  # logged when it is imported
        lines = [line for line in log.splitlines() if "message: " in line]
        if lines:  # newer releases of TensorFlow do not export the function that logs
            assert [line.split()[-1] for line in lines] == logged

    @pytest.mark.parametrize(("given", "found"), [(None, "true"), ("false", "false")])
    def test_gpus_give_memory_as_it_is_needed_unless_the_user_says_otherwise(
        self, tmp_path, monkeypatch, given, found
    ):
        name = "TF_FORCE_GPU_ALLOW_GROWTH"
        monkeypatch.delenv(name, raising=False)
        if given is not None:
            monkeypatch.setenv(name, given)
        processes = Processes(tmp_path / "server.log")
        assert result_of(processes, "jobs:variable_of_c", tmp_path, name=name) == found
        assert result_of(processes, "jobs:surroundings", tmp_path, name=name)[1] == given
        processes.stop()

    def test_what_a_module_adds_to_the_import_path_stays(self, processes, tmp_path, monkeypatch):
        processes.preload("jobs:add_to_path", entry="/added/here")
        assert next_event(processes, Preloaded).failure is None
        for entry in ("/of/the/caller", "/and/another"):
            assert "/added/here" in result_of(processes, "jobs:surroundings", tmp_path, name="X")[2]
            monkeypatch.syspath_prepend(entry)
            assert entry in result_of(processes, "jobs:surroundings", tmp_path, name="X")[2]

    def test_a_module_is_the_one_that_the_caller_would_import(self, tmp_path, monkeypatch):
        (tmp_path / "wheel.py").write_text("")  # wheel is installed too
        (tmp_path / "psutil.py").write_text("raise RuntimeError('not on the import path')")
        monkeypatch.chdir(tmp_path)  # only the working folder: no import path
        processes = Processes(tmp_path / "log")
        assert "site-packages" in result_of(processes, "jobs:place_of", tmp_path, module="wheel")
        processes.stop()
        (tmp_path / "psutil.py").unlink()
        monkeypatch.syspath_prepend(str(tmp_path))
        processes = Processes(tmp_path / "log")
        assert result_of(processes, "jobs:place_of", tmp_path, module="wheel") == str(tmp_path / "wheel.py")
        processes.stop()


def test_arguments_of_any_size(processes, tmp_path):
    labels = [f"category {number}" for number in range(100_000)]
    assert result_of(processes, "json:dumps", tmp_path, obj=labels) == json.dumps(labels)


class TestFailures:
    @pytest.mark.parametrize(
        ("code", "message"), [(0, "sys.exit(0)"), (None, "sys.exit()"), ("no", "sys.exit('no')")]
    )
    def test_a_job_that_leaves_has_failed(self, processes, tmp_path, code, message):
        failure = result_of(processes, "jobs:leave", tmp_path, code=code)
        assert isinstance(failure, Failure)
        assert failure.message == f"it called {message}"
        assert failure.exception() is None

    def test_a_long_failure_of_an_import_is_told(self, processes):
        processes.preload("jobs:fail_at_length")
        preloaded = next_event(processes, Preloaded)
        assert preloaded.failure.type == "ValueError"


@pytest.mark.e2e
def test_nodes_get_the_keras_of_their_caller(tmp_path):
    """Importing TFX sets `TF_USE_LEGACY_KERAS` when TensorFlow has already chosen Keras 3."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "import tfx.v1 as tfx\n"
        "import tensorflow as tf\n"
        "from tfx.orchestration import metadata\n"
        "from mlplatform.orchestration.local import LocalRunner\n"
        "@tfx.dsl.components.component\n"
        "def Keras(out: tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.String]):\n"
        "    out.write(tf.keras.__version__)\n"
        "if __name__ == '__main__':\n"
        "    root = sys.argv[1]\n"
        "    database = metadata.sqlite_metadata_connection_config(f'{root}/m.sqlite')\n"
        "    record = LocalRunner(root).run(tfx.dsl.Pipeline('p', f'{root}/a', components=[Keras()],\n"
        "        metadata_connection_config=database))\n"
        "    [made] = record.node('Keras').outputs['out']\n"
        "    print(tf.keras.__version__, open(made.uri).read())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, env=environment, check=False
    )
    callers, nodes = done.stdout.split()
    assert nodes == callers, done.stderr
