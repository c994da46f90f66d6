"""The live table, on a terminal."""

import contextlib
import os
import pty
import select

from mlplatform.orchestration.local.display import Lines, LiveTable, display_for
from mlplatform.orchestration.local.processes.channel import ProgressUpdate
from mlplatform.orchestration.local.records import NodeRecord, RunRecord


def test_a_terminal_gets_a_table_that_follows_the_run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        display = display_for(terminal)
        assert isinstance(display, LiveTable)
        run = RunRecord(
            "the-id", "the[0]pipeline", nodes=[NodeRecord("Make[1]", "Make"), NodeRecord("Next", "N")]
        )
        make = run.nodes[0]
        display.started(run)
        make.state = "running"
        display.changed(make)
        display.progressed(make, ProgressUpdate("Beam", 10, None, "records", 1.0, "", is_finished=False))
        display.tick()
        screen = _read(ours, until="Beam: 10 records, 10/s")
        make.state, make.why = "failed", "ValueError: [bold]x[/] is wrong"
        display.changed(make)
        run.state = "failed"
        display.ended(run)
    screen += _read(ours)
    os.close(ours)
    assert "the[0]pipeline" in screen
    assert "Make[1]" in screen
    assert "Beam: 10 records, 10/s" in screen
    last = screen[screen.rindex("Make[1]") :]
    assert "failed" in last
    assert "ValueError: [bold]x[/] is wrong" in last
    assert "waiting" in last


def _read(terminal: int, until: str | None = None) -> str:
    """Return what comes from a terminal, in pieces, until a text or until its other side is closed (EIO)."""
    screen = b""
    with contextlib.suppress(OSError):
        while until is None or until.encode() not in screen:
            if not select.select([terminal], [], [], 20)[0]:
                break
            screen += os.read(terminal, 100_000)
    return screen.decode(errors="replace")


def test_everything_else_gets_lines(tmp_path):
    with (tmp_path / "screen").open("w") as stream:
        assert isinstance(display_for(stream), Lines)
