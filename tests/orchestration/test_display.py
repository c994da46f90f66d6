"""The live table, on a terminal."""

import os
import pty
import time

from mlplatform.orchestration.local.channel import Progress
from mlplatform.orchestration.local.display import Lines, LiveTable, display_for
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
        display.progressed(make, Progress("Beam", 10, None, "records", 1.0, "", is_finished=False))
        display.tick()
        time.sleep(0.5)
        make.state, make.why = "failed", "ValueError: [bold]x[/] is wrong"
        display.changed(make)
        run.state = "failed"
        display.ended(run)
        os.set_blocking(ours, False)
        screen = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "the[0]pipeline" in screen
    assert "Make[1]" in screen
    assert "Beam: 10 records, 10/s" in screen
    last = screen[screen.rindex("Make[1]") :]
    assert "failed" in last
    assert "ValueError: [bold]x[/] is wrong" in last
    assert "waiting" in last


def test_everything_else_gets_lines(tmp_path):
    with (tmp_path / "screen").open("w") as stream:
        assert isinstance(display_for(stream), Lines)
