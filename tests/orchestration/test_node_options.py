"""What of the node options for clusters the local runner keeps to."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from mlplatform.errors import GateError
from mlplatform.orchestration.kubeflow.options import with_options
from mlplatform.orchestration.local import active_run
from mlplatform.orchestration.local.display import Lines
from mlplatform.orchestration.local.plan import LocalOptions

pytestmark = pytest.mark.e2e
Run = Callable[..., tuple[Any, str]]


@pytest.fixture
def run(runner: Any, pipeline: Any, trace: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs one node with options; it returns the node's record and what was shown."""

    def run(ends: str, **options: Any) -> tuple[Any, str]:
        import tries

        shown = io.StringIO()
        monkeypatch.setattr(runner, "_display", Lines(shown))
        node = tries.Try(trace=str(trace), ends=ends).with_id("a")
        try:
            runner.run(with_options(pipeline(node), {"nodes": {"a": options}}))
        except Exception as error:  # noqa: BLE001 - who asks looks at the record
            shown.write(f"{error}\n")
        return runner.record.node("a"), shown.getvalue()

    return run


def test_failed_attempts_are_made_again(run: Run, calls: Any, store: Any) -> None:
    """Whatever ended them; what they left is not there any more, and ML Metadata has one execution."""
    node, shown = run("fail,kill,well", retries=2, env={"MODE": "fast"})
    assert (node.state, node.error) == ("done", "")
    assert node.why.endswith("(attempt 3 of 3)")
    assert calls() == ["fail fast []", "kill fast []", "well fast []"]
    assert "  a: attempt 1 of 3 failed: ValueError: a value is wrong; the next in 0 s\n" in shown
    assert "  a: attempt 2 of 3 failed: its process was killed (signal 9" in shown
    from ml_metadata.proto import metadata_store_pb2

    (execution,) = store().get_executions()
    assert execution.last_known_state == metadata_store_pb2.Execution.COMPLETE


def test_the_last_failure_is_the_nodes(run: Run, calls: Any) -> None:
    node, shown = run("fail,kill", retries=1)
    assert (node.state, len(calls())) == ("failed", 2)
    assert node.why.startswith("its process was killed")
    assert "attempt 2" not in shown


def test_what_a_gate_refuses_is_not_tried_again(runner: Any, pipeline: Any, trace: Any, calls: Any) -> None:
    import tries

    node = tries.Try(trace=str(trace), ends="gate").with_id("a")
    with pytest.raises(GateError, match="found 1, needed 2"):
        runner.run(with_options(pipeline(node), {"retries": 5}))
    assert len(calls()) == 1


def test_an_attempt_that_takes_too_long_is_ended(
    run: Run, calls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that ignores SIGTERM."""
    monkeypatch.setattr(active_run, "STOP_GRACE_S", 0.1)
    node, shown = run("hang,well", timeout_s=2, retries=1)
    assert node.state == "done"
    assert "attempt 1 of 2 failed: it took longer than 2 s, its timeout_s, and was ended" in shown
    assert [line.split()[0] for line in calls()] == ["hang", "well"]


def test_more_memory_than_on_the_cluster_is_reported(run: Run) -> None:
    node, shown = run("well", memory="16Mi")
    assert node.state == "done"
    assert "MB of memory; on a cluster it may use 16 MB, its option memory, and would be ended" in shown


def test_cache_and_variables(run: Run, calls: Any) -> None:
    """The options are part of what may have changed since the last run."""
    assert run("well")[0].state == "done"
    assert run("well")[0].state == "cached"
    assert run("well", cache=False)[0].state == "done"
    assert run("well", env={"MODE": "fast"})[0].state == "done"  # the node reads it
    assert run("well", env={"MODE": "fast"})[0].state == "cached"
    assert len(calls()) == 3


def test_waits_grow_up_to_the_longest() -> None:
    options = LocalOptions(retries=9, retry_wait_s=10, retry_factor=3, retry_max_wait_s=60)
    assert [options.wait_after(attempts) for attempts in (1, 2, 3)] == [10, 30, 60]
