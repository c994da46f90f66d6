"""A demo that is run again still shows what its results cost."""

from mlplatform.demo.trip import made_times
from mlplatform.orchestration.local.records import NodeRecord, RunRecord


def run(run_id: str, wall_s: float, *nodes: NodeRecord) -> RunRecord:
    return RunRecord(run_id, "p", wall_s=wall_s, state="done", nodes=list(nodes))


def test_times_are_those_of_the_run_that_made_each_result() -> None:
    first = run(
        "1", 60, NodeRecord("Gen", "G", "done", seconds=20), NodeRecord("Train", "T", "done", seconds=30)
    )
    other = RunRecord("2", "other", nodes=[NodeRecord("Gen", "G", "done", seconds=99)])
    edited = run("3", 40, NodeRecord("Gen", "G", "cached"), NodeRecord("Train", "T", "done", seconds=35))
    again = run("4", 0.2, NodeRecord("Gen", "G", "cached"), NodeRecord("Train", "T", "cached"))
    newest_first = [again, edited, other, first]
    assert made_times(again, newest_first) == ({"Gen": 20, "Train": 35}, 40)
    assert made_times(first, newest_first) == ({"Gen": 20, "Train": 30}, 60)
