"""The runner's side of the fork server: start it, give it jobs, hear what they say and how they end."""

import contextlib
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mlplatform.errors import MlplatformError
from mlplatform.orchestration.local.processes.fork_server import (
    MAX_MESSAGE_BYTES,
    Exited,
    Preload,
    Preloaded,
    Start,
    Started,
    serve_forked,
)

STOP_GRACE_S = 5.0
# With the caller's own import path from the first import on: a file in the working folder hides no module.
SERVER = (
    "import sys; sys.path[:] = {!r}; "
    "from mlplatform.orchestration.local.processes.fork_server import main; main()"
)


class ForkServerEndedError(MlplatformError):
    """The process that forks the nodes ended by itself."""

    def __init__(self, status: int | None, log: str) -> None:
        super().__init__(status, log)
        self.status, self.log = status, log

    def __str__(self) -> str:
        how = f"was killed by signal {-self.status}" if self.status and self.status < 0 else "ended"
        return f"the process that starts the nodes {how} (out of memory?); its log: {self.log}"


@dataclass(frozen=True)
class JobMessage:
    """A job sent something: `kind` is `result`, `failure`, `progress` or an event of the job's own."""

    job: int
    kind: str
    content: Any


@dataclass
class _NodeJob:
    channel: Connection
    pid: int | None = None
    exited: Exited | None = None
    is_closed: bool = False


ProcessEvent = JobMessage | Started | Exited | Preloaded


class _Fork:
    """A fork of this process, with what `Processes` uses of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        """Return how it ended, and wait for that.

        Raises:
            TimeoutExpired: It did not within `timeout` seconds.
        """
        if timeout is None:
            return self._wait(0)
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork server", timeout)
            time.sleep(0.005)
        return self._status

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self._status is None:
            try:
                pid, status = os.waitpid(self._pid, options)
            except ChildProcessError:  # the caller waits for all of its children
                self._status = 0
            else:
                self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._pid, number)


@dataclass
class Processes:
    """Warm child processes. Not thread-safe; used by one runner.

    Attributes:
        log: File for what the fork server itself prints, while it imports.
        is_forked: The fork server is a fork of this process, where that is safe, which spares the imports.
    """

    log: Path
    is_forked: bool = False
    _jobs: dict[int, _NodeJob] = field(default_factory=dict)
    _next_job: int = 0
    _is_stopped: bool = False
    _server: Any = None

    def __post_init__(self) -> None:
        self._environment = seen_environment()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server = self._fork(mine, theirs) if self.is_forked else self._start_afresh(theirs)
        theirs.close()
        self._control = mine
        self._selector = selectors.DefaultSelector()
        self._selector.register(mine, selectors.EVENT_READ, None)

    def _start_afresh(self, theirs: socket.socket) -> "subprocess.Popen[bytes]":
        with open(self.log, "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-c", SERVER.format(sys.path), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,  # a terminal's Ctrl-C is the runner's to handle
            )

    def _fork(self, mine: socket.socket, theirs: socket.socket) -> _Fork:
        for stream in (sys.stdout, sys.stderr):  # else what they hold is written twice
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the caller's handlers
        pid = os.fork()
        if pid == 0:
            try:
                mine.close()
                serve_forked(theirs, str(self.log), self._environment)
            finally:  # nothing of the caller's runs here
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _Fork(pid)

    def preload(self, *targets: str, **arguments: Any) -> None:
        """Import `module`s, or call `module:function` with `arguments`; `hear` yields a `Preloaded`."""
        self._send(Preload(targets, arguments, tuple(sys.path), str(self.log)))

    def start(
        self, target: str, log: Path, environment: Mapping[str, str] | None = None, **arguments: Any
    ) -> int:
        """Call `module:function` in a process of its own; return the job's number.

        Args:
            target: `module:function`.
            log: File for what it prints.
            environment: Variables that it has beside those of this process.
            **arguments: The function's arguments.
        """
        job, self._next_job = self._next_job, self._next_job + 1
        mine, theirs = socket.socketpair()
        self._jobs[job] = _NodeJob(Connection(mine.detach()))
        self._selector.register(self._jobs[job].channel, selectors.EVENT_READ, job)
        seen = {**seen_environment(), **(environment or {})}
        names = self._environment.keys() | seen.keys()
        changed = {n: seen.get(n) for n in names if self._environment.get(n) != seen.get(n)}
        message = Start(job, target, arguments, str(log), tuple(sys.path), _working_folder(), changed)
        self._send(message, theirs.fileno())
        theirs.close()
        return job

    def events(self, timeout_s: float) -> Iterator[ProcessEvent]:
        """Yield what happened, waiting at most `timeout_s` for the first of it.

        A job's `Exited` comes last, after all its messages.

        Raises:
            ForkServerEndedError: The fork server is gone, and its children with it.
        """
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                yield from self._control_events()
            else:
                yield from self._job_events(key.data)

    def is_alive(self) -> bool:
        """Say whether the fork server can still start jobs."""
        return not self._is_stopped and self._server.poll() is None

    def signal(self, number: int, job: int) -> None:
        """Send a signal to a running job, and to all that it started."""
        if job in self._jobs and self._jobs[job].exited is None:
            _signal_group(self._jobs[job].pid, number)

    def end_jobs(self) -> None:
        """End every running job: politely first, then for certain.

        A job that is still to be started, behind an import, ends with the fork server.
        """
        self._wait_while(lambda: any(job.pid is None for job in self._jobs.values()))
        if any(job.pid is None for job in self._jobs.values()):
            self.stop()
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            for job in self._running():
                _signal_group(job.pid, number)
            self._wait_while(lambda: bool(self._running()))
        for job in self._jobs.values():
            if not job.is_closed:
                self._selector.unregister(job.channel)
            job.channel.close()
        self._jobs.clear()

    def stop(self) -> None:
        """End every job and the fork server at once. Safe to call twice."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._selector.close()
        self._control.close()  # the fork server sees it and ends all that it started
        for job in self._jobs.values():
            job.channel.close()
        self._server.terminate()  # also while it imports
        try:
            self._server.wait(timeout=STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
            self._kill_groups()
        self._jobs.clear()

    def _running(self) -> list[_NodeJob]:
        return [job for job in self._jobs.values() if job.pid is not None and job.exited is None]

    def _wait_while(self, holds: Callable[[], bool]) -> None:
        """Hear, for a while at most, until something no longer holds."""
        deadline = time.monotonic() + STOP_GRACE_S
        with contextlib.suppress(ForkServerEndedError):
            while holds() and time.monotonic() < deadline:
                for _ in self.events(0.05):
                    pass

    def _kill_groups(self) -> None:
        """End what the nodes started: without the fork server, nobody else does."""
        for job in self._running():
            _signal_group(job.pid, signal.SIGKILL)

    def _gone(self) -> ForkServerEndedError:
        status = self._server.wait()
        self._kill_groups()
        return ForkServerEndedError(status, str(self.log))

    def _control_events(self) -> Iterator[ProcessEvent]:
        try:
            payload = self._control.recv(MAX_MESSAGE_BYTES)
        except ConnectionResetError:
            payload = b""
        if not payload:
            raise self._gone()
        message = pickle.loads(payload)
        job = self._jobs.get(message.job) if isinstance(message, Started | Exited) else None
        if isinstance(message, Preloaded):
            yield message
        elif job is not None and isinstance(message, Started):
            job.pid = message.pid
            yield message
        elif job is not None:
            job.exited = message
            yield from self._ended(message.job)

    def _job_events(self, number: int) -> Iterator[ProcessEvent]:
        job = self._jobs.get(number)
        if job is None:
            return
        try:
            kind, content = job.channel.recv()
        except (EOFError, OSError):
            self._selector.unregister(job.channel)
            job.is_closed = True
            yield from self._ended(number)
        else:
            yield JobMessage(number, kind, content)

    def _ended(self, number: int) -> Iterator[ProcessEvent]:
        job = self._jobs[number]
        if job.is_closed and job.exited is not None:
            job.channel.close()
            del self._jobs[number]
            yield job.exited

    def _send(self, message: object, *descriptors: int) -> None:
        with open(os.memfd_create("message"), "wb") as content:
            pickle.dump(message, content)
            content.seek(0)  # writes what is still buffered; the reader shares the position
            try:
                socket.send_fds(self._control, [b"1"], [content.fileno(), *descriptors])
            except (BrokenPipeError, ConnectionResetError) as error:
                raise self._gone() from error


def seen_environment() -> dict[str, str]:
    """Return this process's environment, as its TensorFlow saw it.

    Importing TFX sets `TF_USE_LEGACY_KERAS` after TensorFlow was imported and has chosen Keras 3: nodes that
    inherited the variable would get another Keras than their caller.
    """
    environment = dict(os.environ)
    if getattr(sys.modules.get("tensorflow"), "_tf_uses_legacy_keras", None) is False:
        environment.pop("TF_USE_LEGACY_KERAS", None)
    return environment


def _working_folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return "/"


def _signal_group(pid: int | None, number: int) -> None:
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
