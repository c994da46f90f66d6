"""Processes that start in a moment: forks of one that has imported TFX and TensorFlow, and computed nothing.

A fork server of the local runner imports TFX when it starts, which takes longer than most tests' pipelines.
`WarmStart` starts a process that has done so (this file, as a program) and forks each fork server from it;
all that follows is the fork server's own code. Trainings that are to be killed, model servers, the processes
that look whether a model is safe to serve, and scripts are started so, too. That such processes start by
themselves is for the tests that start real ones.
"""

import contextlib
import ctypes
import gc
import logging
import os
import pickle
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import psutil

from mlplatform.orchestration.local.processes.node_process import seen_environment

_MESSAGE_BYTES = 1 << 18
_REAP_EVERY_S = 0.05
# Of the kernel's headers prctl.h and capability.h.
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 4, 8, 47, 2
_CAP_DAC_READ_SEARCH = 2


class WarmStart:
    """A process with TFX in it; `subprocess` stands in for the module of that name."""

    def __init__(self, folder: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
        ends = [theirs.fileno(), ours.fileno()]
        with open(f"{folder}/log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, *map(str, ends)],
                pass_fds=ends,
                stdout=log,
                stderr=log,
                env=seen_environment(),
            )
        theirs.close()
        self._asking = Asking(ours)
        self.subprocess = SimpleNamespace(
            Popen=self._asking.fork, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
        )

    def stop(self) -> None:
        """End the process; what was forked from it goes on."""
        self._process.terminate()
        self._process.wait(timeout=60)
        self._asking.close()


class Asking:
    """The end of the socket that forks are asked for with; what was forked has it, too."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self.close = control.close

    def fork(
        self,
        command: Sequence[str],
        *,
        stdout: IO[Any],
        stderr: IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        pass_fds: Sequence[int] = (),
        user: int | None = None,
        **_: Any,
    ) -> "Forked":
        """Do what `Popen([python, ...], ...)` does.

        Args:
            command: The interpreter, then `-c` and code, `-m` and a module, or a script; then arguments.
            stdout: A file.
            stderr: Another one; None: the same.
            pass_fds: At most one, which is the last argument.
            user: Number of a user and group, who may read everything; None: the caller's.
        """
        mine, theirs = socket.socketpair()
        words = [str(word) for word in command[1 : len(command) - len(pass_fds)]]
        surroundings = (dict(env or seen_environment()), str(cwd or Path.cwd()), user or os.getuid())
        request = pickle.dumps((words, *surroundings))
        outputs = [stdout.fileno(), (stderr or stdout).fileno()]
        socket.send_fds(self._control, [request], [*outputs, theirs.fileno(), *pass_fds])
        theirs.close()
        return Forked(mine)


class Forked:
    """The part of `Popen` that the runner uses."""

    def __init__(self, reports: socket.socket) -> None:
        self._reports = reports
        self.pid = int(reports.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        if self.returncode is None and _is_readable(self._reports, 0):
            self.returncode = int(self._reports.recv(32) or b"-9")
            self._reports.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status when it has ended."""
        if self.returncode is None and not _is_readable(self._reports, timeout):
            raise subprocess.TimeoutExpired("a fork server", timeout or 0.0)
        return self.poll() or 0

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def memory_info(self) -> Any:
        """What `psutil.Popen` gives."""
        return psutil.Process(self.pid).memory_info()

    def send_signal(self, number: int) -> None:
        """Send a signal, where the process has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _is_readable(channel: socket.socket, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else 1000 * timeout_s))


def main() -> None:
    """Import what every node needs; then fork whenever it is asked for."""
    from mlplatform.orchestration.local.processes.deferred import defer_imports
    from mlplatform.orchestration.local.processes.fork_server import CHILD_GC_THRESHOLDS, die_with_parent

    del sys.path[0]  # the folder of tests, whose names are not to be found
    gc.disable()
    defer_imports()
    import mlplatform.components.model_trainer.train
    import mlplatform.components.model_validator.probe
    import mlplatform.orchestration.local.compiling
    import mlplatform.orchestration.local.node
    import mlplatform.serving.server
    import mlplatform.training.image_classifier  # noqa: F401
    from mlplatform.components.model_validator import serving_check

    gc.enable()
    gc.set_threshold(*CHILD_GC_THRESHOLDS)
    gc.collect()
    gc.freeze()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    die_with_parent()
    control, asking = (socket.socket(fileno=int(word)) for word in sys.argv[1:])
    # What nodes start to look whether a model is safe to serve.
    serving_check.psutil = SimpleNamespace(Popen=Asking(asking).fork, NoSuchProcess=psutil.NoSuchProcess)
    children: dict[int, int] = {}  # process -> where its status goes
    while True:
        if _is_readable(control, _REAP_EVERY_S if children else None):
            request, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 4)
            output, errors, reports, *passed = descriptors
            pid = os.fork()
            if pid == 0:
                _become(*pickle.loads(request), output, errors, passed)
            children[pid] = reports
            os.write(reports, b"%d" % pid)
            for descriptor in (output, errors, *passed):
                os.close(descriptor)
        for pid in list(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with contextlib.suppress(BrokenPipeError):
                    os.write(children[pid], b"%d" % os.waitstatus_to_exitcode(status))
                os.close(children.pop(pid))


def _become(
    words: list[str],
    environment: dict[str, str],
    folder: str,
    user: int,
    output: int,
    errors: int,
    passed: list[int],
) -> None:
    """Be the process that `python` starts with these words, and with what was passed as further ones."""
    status = 1
    try:
        os.setsid()
        if user != os.getuid():
            _become_user(user)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None  # the environment says where
        sys.path += [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
        _run(words, [str(descriptor) for descriptor in passed])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - printed as Python does
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _become_user(user: int) -> None:
    """Be another user, who may read everything, and write nowhere; so may what this process starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    mask = 1 << _CAP_DAC_READ_SEARCH
    version_3_of_this_process = (ctypes.c_uint32 * 2)(0x20080522, 0)
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if libc.capset(version_3_of_this_process, effective_permitted_inheritable):
        raise OSError(ctypes.get_errno(), "capset")
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 1)


def _run(words: list[str], more: list[str]) -> None:
    first, *rest = words
    if first in ("-c", "-m"):
        what, *arguments = rest
        sys.argv = [first, *arguments, *more]
        if first == "-c":
            exec(what, {"__name__": "__main__"})
        else:
            logging.root.handlers.clear()  # importing Beam logs something, which makes one
            runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest, *more]
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main()
