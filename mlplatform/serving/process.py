"""The server as a process: log, ready line, signals."""

import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, NoReturn


def serve_until_stopped(settings: Mapping[str, Any], *, log_level: str = "info") -> NoReturn:
    """Serve until SIGTERM or SIGINT; one line on stderr names the addresses when ready.

    SIGHUP has the configuration file read and the folders looked through at once, as servers do; the process
    goes on. Started with SIGHUP ignored (`nohup`), it stays ignored.

    Does not return: the process ends with 0.

    Args:
        settings: The fields of `ServerSettings`.
        log_level: `debug`, `info`, `warning` or `error`.

    Raises:
        MlplatformError: A setting is wrong, a model cannot be loaded, a port is taken.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)  # a traceback for each malformed message
    logging.getLogger("mlplatform").setLevel(log_level.upper())
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    is_ready = threading.Event()

    def hear(signals: int) -> None:
        while True:
            number = os.read(signals, 1)[0]
            asked.put(number)
            if number != signal.SIGHUP and not is_ready.is_set():
                _end()  # nobody is served yet; a load that is under way would go on for long

    threading.Thread(target=hear, args=[_signals()], name="signals", daemon=True).start()

    from mlplatform.serving.server import ModelServer
    from mlplatform.serving.settings import host_and_port
    from mlplatform.serving.threads import spare_collector

    server = ModelServer(**settings)
    spare_collector()
    server.start()
    is_ready.set()
    addresses = []
    if server.grpc_port >= 0:
        addresses.append(f"gRPC {host_and_port(server.settings.host, server.grpc_port)}")
    if server.settings.grpc_socket_path:
        addresses.append(f"unix:{server.settings.grpc_socket_path}")
    if server.rest_port >= 0:
        addresses.append(f"REST {host_and_port(server.settings.host, server.rest_port)}")
    serving = ", ".join(
        f"{name} ({', '.join(map(str, versions))})" for name, versions in server.manager.serving().items()
    )
    print(  # noqa: T201 - the ready line is a contract
        f"mlplatform serve: ready: {', '.join(addresses)}; serving: {serving or 'no model yet'}",
        file=sys.stderr,
        flush=True,
    )
    while asked.get() == signal.SIGHUP:
        # In a thread of its own: a load may take long, and a stop is not to wait for it.
        threading.Thread(target=server.reload, name="reload", daemon=True).start()
    server.stop()
    print("mlplatform serve: stopped", file=sys.stderr, flush=True)  # noqa: T201
    _end()


def _signals() -> int:
    """Return a pipe's end to which each signal's number is written, whichever thread the kernel gives it to.

    Handlers run in the main thread, which does not wake for a signal that another thread has taken.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    return reading


def _end() -> NoReturn:
    """End at once: Python would wait for threads that still load or compute what nobody waits for."""
    logging.shutdown()
    os._exit(0)
