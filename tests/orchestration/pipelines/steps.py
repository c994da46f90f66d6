"""Small components for the tests of the local runner; each call is a line in the file `trace`/calls."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Integer, String

from mlplatform.errors import GateError
from mlplatform.progress import report_line, track


class TooFewError(GateError):
    """A gate for tests."""

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(found, needed)
        self.found, self.needed = found, needed

    def __str__(self) -> str:
        return f"found {self.found}, needed {self.needed}"


def note(trace: str, text: str) -> None:
    with (Path(trace) / "calls").open("a") as file:
        file.write(f"{text}\n")


@component
def Make(trace: Parameter[str], text: Parameter[str], out: OutputArtifact[String]):
    note(trace, f"make {text}")
    out.write(text)


@component
def Upper(trace: Parameter[str], source: InputArtifact[String], out: OutputArtifact[String]):
    note(trace, f"upper {source.read()}")
    out.write(source.read().upper())


@component
def Join(
    trace: Parameter[str],
    left: InputArtifact[String],
    right: InputArtifact[String],
    out: OutputArtifact[String],
):
    note(trace, f"join {left.read()} {right.read()}")
    out.write(f"{left.read()}+{right.read()}")


@component
def Length(trace: Parameter[str], source: InputArtifact[String], out: OutputArtifact[Integer]):
    note(trace, f"length {source.read()}")
    out.write(len(source.read()))


@component
def Repeat(trace: Parameter[str], times: Parameter[int], out: OutputArtifact[String]):
    note(trace, f"repeat {times}")
    out.write("x" * times)


@component
def Show(trace: Parameter[str], source: InputArtifact[String]):
    note(trace, f"show {source.read()}")


@component
def Server(number: Parameter[int], out: OutputArtifact[String]):
    out.write(str(os.getppid()))


@component
def WarmStart(trace: Parameter[str], out: OutputArtifact[String], base: InputArtifact[String] = None):
    note(trace, f"start from {base.read() if base else 'nothing'}")
    out.write("trained")


@component
def Sleep(trace: Parameter[str], seconds: Parameter[float], out: OutputArtifact[String]):
    note(trace, f"start {time.time()}")
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # is to end with this node
    with track("sleep", total=10, unit="naps") as bar:
        for _ in range(10):
            time.sleep(seconds / 10)
            bar.advance()
    report_line("slept well")
    note(trace, f"end {time.time()}")
    out.write("slept")


@component
def Meet(trace: Parameter[str], count: Parameter[int], out: OutputArtifact[String]):
    """Waits until so many of them run at the same time."""
    note(trace, "start")
    while (Path(trace) / "calls").read_text().count("start") < count:
        time.sleep(0.02)
    note(trace, "end")
    out.write("met")


@component
def Hold(trace: Parameter[str], out: OutputArtifact[String]):
    """Waits for a file `go`."""
    while not (Path(trace) / "go").exists():
        time.sleep(0.02)
    out.write("held")


@component
def Fail(
    trace: Parameter[str], how: Parameter[str], source: InputArtifact[String], out: OutputArtifact[String]
):
    note(trace, f"fail {how}")
    (Path(out.uri).parent / "half").write_text("half-written")
    if how == "value":
        raise ValueError("a value is wrong")
    if how == "gate":
        raise TooFewError(1, 2)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(7)
    if how == "leave":
        sys.exit(0)
    if how == "stop":
        raise KeyboardInterrupt
    if how == "unpicklable":
        with open(os.devnull) as file:
            raise UnpicklableError(file)
    out.write(source.read())


class UnpicklableError(Exception):
    """Holds an open file, which cannot cross processes."""
