"""The page that the runner writes of every run in which something ran."""

import logging
import re
from pathlib import Path

import pytest

from mlplatform.home import Home
from mlplatform.orchestration.local.records import NodeRecord, RunFolder, RunRecord
from mlplatform.orchestration.local.run_events import RunEvents
from mlplatform.registry.events import VERDICT, run_stream
from mlplatform.registry.ledger import Ledger
from mlplatform.reports.graphs import Box, draw_graph
from mlplatform.reports.kept import keep_report, kept_reports


def ended_run(home: Home, state: str = "done", **about: str) -> RunFolder:
    """Write a run of two nodes as the runner does, with a gate that keeps its report."""
    folder = RunFolder(home.runs / "20260101T000000.000-0000")
    folder.create()
    nodes = [NodeRecord("Make", "M", state), NodeRecord("Gate", "G", state, upstream=["Make"])]  # type: ignore[arg-type]
    record = RunRecord(folder.run_id, "p", nodes=nodes, **about)  # type: ignore[arg-type]
    written = RunEvents(home, folder)
    written.run_started(record)
    for node in nodes:
        written.node_finished(node)
    if state != "cached":
        place = keep_report(
            home.reports,
            "Gate",
            lambda made: (made / "report.html").write_text("<h1>No</h1>"),
            run=folder.run_id,
        )
        facts = {"node": "Gate", "gate": "G", "is_accepted": False, "reasons": ["too <dark>"]}
        Ledger(home.ledger).append(run_stream(folder.run_id), VERDICT, **facts, path=f"{place}/report.html")
    record.state = "done" if state == "cached" else state  # type: ignore[assignment]
    folder.write(record)
    folder.release()
    written.run_finished(record)
    assert written.close() == ""
    return folder


@pytest.mark.parametrize("place", ["local", "memory://run_page/root"])
def test_the_page_stands_beside_the_reports(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlplatform.storage import open_storage

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = Home.at(tmp_path / "root" if place == "local" else place)
    run = ended_run(home, "failed").run_id
    page = open_storage(home.reports).read(f"{run}/run.html").decode()
    assert "too &lt;dark&gt;" in page
    assert "<svg" in page
    # The one link that leads out of it leads to the gate's report, wherever the folder is moved to.
    assert re.findall(r'(?:src|href)="((?!#|data:)[^"]*)"', page) == ["Gate/report.html"]
    assert open_storage(home.reports).size(f"{run}/Gate/report.html") > 0
    assert [report.gate for report in kept_reports(home.reports)] == ["Gate"]


def test_where_nothing_ran_there_is_no_page(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    ended_run(home, "cached")
    assert not Path(home.reports).exists()


def test_a_page_that_cannot_be_written_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home.at(tmp_path)
    (Path(home.reports) / "20260101T000000.000-0000" / "run.html").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        ended_run(home)
    assert "the page of run 20260101T000000.000-0000 is not written" in caplog.text
    kinds = [e.kind for e in Ledger(home.ledger).events("runs/20260101T000000.000-0000")]
    assert kinds[-1] == "run.finished"


def test_graphs_of_any_shape_are_drawn() -> None:
    boxes = [Box(name, name) for name in "abcd"]
    circle = draw_graph(boxes, [("a", "b"), ("b", "c"), ("c", "a"), ("d", "d"), ("x", "a")], label="<l>")
    assert circle.count('class="box') == 4
    assert circle.count('class="edge"') == 3
    assert "&lt;l&gt;" in circle
    assert "<svg" in draw_graph([], [], label="nothing")
    # A node stands right of all that it was made from.
    drawn = draw_graph(boxes, [("d", "a"), ("a", "b")], label="")
    columns = {name: int(x) for x, name in re.findall(r'translate\((\d+) \d+\)"><title>(\w)', drawn)}
    assert columns["d"] < columns["a"] < columns["b"]
