"""The fork server: a process that imports what nodes need, once, and forks a warm child for each job.

Started by `processes.py` with its end of a socket. Children are forked from
its only thread; it never computes, so no thread of TensorFlow or gRPC exists where it forks, and it says so
(`unsafe_threads`) where a module that it imported broke this.

When the runner dies, the fork server ends all that it started and ends itself; when the fork server dies, the
kernel kills the children. What a node started and left behind comes to the fork server, which ends it.
"""

import contextlib
import ctypes
import gc
import importlib
import linecache
import os
import pickle
import selectors
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Collection
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, TextIO

import psutil

from mlplatform.fingerprints.libraries import is_ours, is_user_file
from mlplatform.machine import affinity_cores
from mlplatform.orchestration.local.processes.deferred import defer_imports
from mlplatform.orchestration.local.processes.failures import describe_failure

MAX_MESSAGE_BYTES = 1 << 17
# Building Beam graphs and tracing TensorFlow functions allocate millions of objects that live on: with the
# usual thresholds (700, 10, 10), Transform spends an eighth of its time looking for garbage among them.
CHILD_GC_THRESHOLDS = (100_000, 50, 100)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_RUNNER_THREAD_ENDED = signal.SIGRTMIN  # the kernel's word for the thread that started the fork server
ENDING = (signal.SIGTERM, _RUNNER_THREAD_ENDED)
# For TensorFlow in nodes, unless the user says otherwise: it logs errors alone (it warns of GPUs that nobody
# has), and leaves memory of a GPU to the other nodes.
_FOR_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
# How TensorFlow, gRPC and CUDA name their threads (the kernel cuts names at 15 characters).
_UNSAFE_THREAD_NAMES = (
    "tf_", "grpc", "event_engine", "default-executo", "resolver-execut", "timer_manager", "cuda",
)  # fmt: skip

is_fork_server = False  # whether this process imports for others
_left: list[object] = []  # what a forked server took over and keeps, so that nothing of it is closed


@dataclass(frozen=True)
class Preload:
    """Import modules (or call `module:function`) in the fork server, so that children have them.

    Attributes:
        targets: `module`, or `module:function` with the keyword arguments in `arguments`.
        sys_path: The runner's import path.
        log: File that everything printed meanwhile goes to.
    """

    targets: tuple[str, ...]
    arguments: dict[str, Any]
    sys_path: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class Start:
    """Fork a child that calls `module:function` and sends the result through its channel.

    Attributes:
        job: Number of the job.
        target: `module:function`.
        arguments: Its keyword arguments.
        log: File that everything printed goes to.
        sys_path: The caller's import path.
        folder: The caller's working folder.
        environment: The caller's environment variables that changed since the fork server started; None:
            removed.
    """

    job: int
    target: str
    arguments: dict[str, Any]
    log: str
    sys_path: tuple[str, ...]
    folder: str
    environment: dict[str, str | None]


@dataclass(frozen=True)
class Preloaded:
    """The preloading is done; `failure` is None where it worked."""

    failure: Any
    unsafe_threads: tuple[str, ...]


@dataclass(frozen=True)
class Started:
    """A child was forked."""

    job: int
    pid: int


@dataclass(frozen=True)
class Exited:
    """A child ended; `status` as `os.waitstatus_to_exitcode` gives it, negative for a signal."""

    job: int
    status: int
    peak_memory_kb: int
    cpu_s: float


def call(target: str, arguments: dict[str, Any]) -> Any:
    """Import `module` and, where the target is `module:function`, call it."""
    module, _, function = target.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, function)(**arguments) if function else None


def unsafe_threads() -> tuple[str, ...]:
    """Return the names of this process's threads that must not exist where it forks."""
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    names += [name for name in _thread_names() if name.startswith(_UNSAFE_THREAD_NAMES)]
    return tuple(sorted(names))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that happens."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of what this process's descendants leave behind when they end."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


class ForkServer:
    """Serves one runner, over one sequenced-packet socket.

    The runner's messages are pickled objects above, each in a file in memory whose descriptor is sent, since
    a socket takes no large message; with a `Start` comes the child's end of its channel. Answers are sent as
    they are.
    """

    def __init__(self, control: socket.socket) -> None:
        global is_fork_server
        is_fork_server = True
        self._control = control
        self._runner = os.getppid()
        self._jobs: dict[int, int] = {}  # pid -> job
        self._caller_path = tuple(sys.path)
        self._helpers: set[int] = set()  # started by an imported module, for all nodes
        adopt_orphans()
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(self._wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Importing takes seconds in which no socket is read: a signal from the kernel ends that as well.
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.signal(_RUNNER_THREAD_ENDED, lambda *_: self._end_if_alone())
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _RUNNER_THREAD_ENDED)
        self._end_if_alone()

    def serve(self) -> NoReturn:
        """Answer until the runner closes its end."""
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(self._wake_read, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is self._control:
                    if not self._answer():
                        self._end()
                else:
                    os.read(self._wake_read, 4096)
                    self._reap()

    def _answer(self) -> bool:
        try:
            payload, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
        except ConnectionResetError:  # the runner left with something unread
            return False
        if not payload:
            return False
        with open(descriptors[0], "rb") as content:
            message = pickle.load(content)
        if isinstance(message, Preload):
            self._send(self._preload(message))
        else:
            self._start(message, descriptors[1])
        return True

    def _preload(self, message: Preload) -> Preloaded:
        redirect_output(message.log)
        self._take_path(message.sys_path)
        gc.disable()  # imports make many objects and no garbage
        defer_imports()
        try:
            for target in message.targets:
                call(target, message.arguments if ":" in target else {})
        except BaseException as error:  # noqa: BLE001 - whatever a user's module raises is reported to the runner
            traceback.print_exception(error)
            failure = describe_failure(error)
            if len(failure.pickled) > MAX_MESSAGE_BYTES // 2:
                failure = replace(failure, pickled=b"")
            return Preloaded(failure, unsafe_threads())
        finally:
            gc.enable()
            self._helpers = {child.pid for child in psutil.Process().children()}
        gc.collect()
        gc.freeze()  # children share these pages; the collector must not touch them
        return Preloaded(None, unsafe_threads())

    def _take_path(self, caller_path: tuple[str, ...]) -> None:
        """Follow the caller's import path; what imported modules added to it here stays."""
        if caller_path != self._caller_path:
            added = [entry for entry in sys.path if entry not in self._caller_path]
            sys.path[:] = [*added, *caller_path]
            self._caller_path = caller_path

    def _start(self, message: Start, descriptor: int) -> None:
        server = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # Python drops what comes within a fork
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._become_child(server)
                self._take_path(message.sys_path)
                take_surroundings(message)
                status = run_job(message, Connection(descriptor))
            finally:
                os._exit(status)
        os.close(descriptor)
        with contextlib.suppress(OSError):  # the child does the same: whoever comes first, the group is there
            os.setpgid(pid, pid)
        self._jobs[pid] = message.job
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        self._send(Started(message.job, pid))

    def _become_child(self, server: int) -> None:
        die_with_parent()
        if os.getppid() != server:
            os._exit(1)
        global is_fork_server
        is_fork_server = False
        adopt_orphans()  # whatever comes to the fork server is then of a node that ended
        os.setpgid(0, 0)
        gc.set_threshold(*CHILD_GC_THRESHOLDS)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, _RUNNER_THREAD_ENDED):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        self._control.close()

    def _reap(self) -> None:
        has_node_ended = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            job = self._jobs.pop(pid, None)
            has_node_ended = True
            if job is not None:
                cpu_s = usage.ru_utime + usage.ru_stime
                self._send(Exited(job, os.waitstatus_to_exitcode(status), usage.ru_maxrss, cpu_s))
        if has_node_ended:
            self._kill(but=self._jobs.keys() | self._helpers)

    def _kill(self, but: Collection[int] = ()) -> None:
        """Kill this process's children: the nodes, and what nodes that ended left behind."""
        for child in psutil.Process().children():
            if child.pid not in but:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def _end_if_alone(self) -> None:
        if os.getppid() != self._runner:
            self._end()

    def _end(self) -> NoReturn:
        """End everything that was started here, and this process."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        with contextlib.suppress(ChildProcessError):
            while True:
                self._kill()
                os.wait()
        os._exit(0)

    def _send(self, message: object) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the next read says that it is gone
            self._control.send(pickle.dumps(message))


def take_surroundings(message: Start) -> None:
    """Give this process the working folder and the environment of the caller."""
    with contextlib.suppress(OSError):  # a folder that is gone is gone for the caller too
        os.chdir(message.folder)
    for name, value in message.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def run_job(message: Start, channel: Connection) -> int:
    """Do a job in this process: call its target, send its result or its failure, return the exit status."""
    redirect_output(message.log)
    from mlplatform.orchestration.local.processes.channel import send_event, use_channel

    use_channel(channel)
    try:
        result = call(message.target, message.arguments)
        send_event("result", result)
        return 0
    except BaseException as error:  # noqa: BLE001 - reported to the runner, which raises it
        traceback.print_exception(error)
        send_event("failure", describe_failure(error))
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def redirect_output(log: str) -> None:
    """Send everything that this process prints, from C++ too, to the end of a file; read nothing."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def set_up_tensorflow() -> None:
    """Set TensorFlow's variables for nodes, where the user has not.

    TensorFlow reads them from the C library. Python's own `os.environ` stays as the user made it, and with it
    all that depends on a variable: the user's code and the keys of results.
    """
    for name, value in _FOR_TENSORFLOW.items():
        if name not in os.environ:
            os.putenv(name, value)  # not os.environ: see above


def can_fork_this_process() -> bool:
    """Say whether a fork of this process can be the fork server: it has computed nothing so far.

    Where a library has started threads (TensorFlow, gRPC, OpenMP), its locks and pools would be broken.
    """
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and not unsafe_threads() and not _unnamed_threads() - _threads_of_openblas()


def _unnamed_threads() -> int:
    """Return how many further threads have the name of the process, as those of OpenBLAS and OpenMP have."""
    names = _thread_names()
    return names.count(Path("/proc/self/comm").read_text().strip()) - 1


def _threads_of_openblas() -> int:
    """Return how many threads OpenBLAS starts when it is imported; it stops them itself for a fork."""
    mapped = {line.rpartition("/")[2] for line in Path("/proc/self/maps").read_text().splitlines()}
    libraries = [name for name in mapped if name.startswith("libopenblas")]
    limits = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
    given = [int(value) for name in limits if (value := os.environ.get(name, "")).isdigit() and int(value)]
    each = min([*given[:1], affinity_cores()])
    return len(libraries) * (each - 1)


def _thread_names() -> list[str]:
    """Return the names that the kernel knows this process's threads by."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            names.append((task / "comm").read_text().strip())
    return names


def serve_forked(control: socket.socket, log: str, environment: dict[str, str]) -> NoReturn:
    """Serve the runner from a fork of its own process, which has the libraries imported already.

    As in a process that was started afresh, the user's own modules are not there: nodes import them as they
    are when the nodes start, and no value that the caller's code left in them reaches a node unseen.
    """
    gc.freeze()  # what is garbage of the caller's stays his: his files are not closed, nor flushed, here
    os.setsid()  # a terminal's Ctrl-C is the runner's to handle
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    set_up_tensorflow()
    _left.extend((sys.stdin, sys.stdout, sys.stderr))
    redirect_output(log)
    sys.stdin, sys.stdout, sys.stderr = (_standard_stream(number) for number in range(3))
    _forget_modules_of_the_user()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    ForkServer(control).serve()


def _standard_stream(number: int) -> TextIO:
    """Return a stream as Python makes it at its start: a notebook or pytest puts others in its place."""
    stream = open(number, "w" if number else "r", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if number == 2:
        stream.reconfigure(line_buffering=True)
    return stream


def _forget_modules_of_the_user() -> None:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or name == "__main__":
            continue
        place = os.path.realpath(file)
        if is_user_file(place) and not is_ours(place):
            _left.append(sys.modules.pop(name))
    _left.append(sys.modules["__main__"])
    sys.modules["__main__"] = types.ModuleType("__main__")
    importlib.invalidate_caches()
    linecache.clearcache()


def main() -> None:
    """Serve the runner at the socket whose number is the first argument."""
    set_up_tensorflow()
    ForkServer(socket.socket(fileno=int(sys.argv[1]))).serve()
