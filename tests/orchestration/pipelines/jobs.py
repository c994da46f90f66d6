"""Jobs for the tests of the fork server."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path


def start_helper(pids: str, *, then: str = "end", session: bool = False) -> None:
    """Start a process that would outlive this one, write down its id, and end in one way or another."""
    helper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=session
    )
    with Path(pids).open("a") as file:
        file.write(f"{helper.pid}\n")
    if then == "wait":
        time.sleep(600)


def surroundings(name: str) -> tuple[str, str | None, list[str]]:
    return str(Path.cwd()), os.environ.get(name), sys.path


def place_of(module: str) -> str:
    return str(__import__(module).__file__)


def leave(code: object) -> None:
    sys.exit(code)


def write_later(file: str) -> None:
    time.sleep(1)
    Path(file).write_text("was not ended")


def fail_at_length() -> None:
    raise ValueError("x" * 500_000)


def take_long(started: str) -> None:
    Path(started).touch()
    threading.Event().wait()  # until it is ended


def add_to_path(entry: str) -> None:
    sys.path.append(entry)


def variable_of_c(name: str) -> str:
    """Return a variable as libraries written in C read it; empty where there is none."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    return (getenv(name.encode()) or b"").decode()


def log_with_tensorflow() -> str | None:
    """Have TensorFlow's C++ code log; return the variable that its level comes from.

    It says something of the processor when it is imported; older releases can be asked to log further lines.
    """
    import tensorflow as tf

    [library] = Path(tf.__file__).parent.glob("libtensorflow_cc.so.?")
    log = getattr(ctypes.CDLL(str(library)), "TF_Log", lambda *_: None)
    for level, text in enumerate((b"said: information", b"said: warning", b"said: error")):
        log(level, text)
    return os.environ.get("TF_CPP_MIN_LOG_LEVEL")
