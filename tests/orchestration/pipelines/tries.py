"""A component whose attempts end as it is asked to."""

import os
import signal
from pathlib import Path

from steps import TooFewError, note
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import String


@component
def Try(trace: Parameter[str], ends: Parameter[str], out: OutputArtifact[String]):
    """End as the next of the comma-separated `ends` says; the last one holds for all further attempts."""
    tried = Path(trace, "tried")
    number = len(tried.read_text()) if tried.exists() else 0
    tried.write_text("x" * (number + 1))
    words = ends.split(",")
    end = words[min(number, len(words) - 1)]
    left = sorted(path.name for path in Path(out.uri).parent.iterdir() if path.name != Path(out.uri).name)
    note(trace, f"{end} {os.environ.get('MODE')} {left}")
    Path(out.uri).parent.joinpath("half").write_text("half-written")
    if end == "fail":
        raise ValueError("a value is wrong")
    if end == "gate":
        raise TooFewError(1, 2)
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    out.write("done")
