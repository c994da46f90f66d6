"""Artifacts of earlier runs, found in the ledger."""

from pathlib import Path
from typing import Any

import pytest

from mlplatform.registry import events
from mlplatform.registry.artifacts import PastArtifact, PastRuns, Wanted
from mlplatform.registry.ledger import Ledger


def artifact(kind: str, uri: str, **properties: Any) -> dict[str, Any]:
    return {"key": kind.lower(), "type": kind, "uri": uri, "digest": "", "properties": properties}


class Runs:
    """Runs of pipelines, each written as a runner does it."""

    def __init__(self, place: Path) -> None:
        self.ledger = Ledger(place)
        self._count = 0

    def run(
        self,
        *nodes: tuple[str, list[dict[str, Any]], list[dict[str, Any]]],
        pipeline: str = "taxi",
        state: str = "done",
    ) -> str:
        """Write a run of nodes: name, inputs, outputs; return its id, which says nothing of its time."""
        self._count += 1
        run = f"{'zyxwvuts'[self._count]}-run"
        at = f"2026-01-{self._count:02}T00:00:00+00:00"
        self.ledger.append(f"runs/{run}", events.RUN_STARTED, pipeline=pipeline, at=at)
        for node, inputs, outputs in nodes:
            self.ledger.append(
                f"runs/{run}", events.NODE_FINISHED, node=node, state=state, inputs=inputs, outputs=outputs
            )
        return run


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "ledger")


def uris(found: list[PastArtifact]) -> list[str]:
    return [one.uri for one in found]


def test_latest(runs: Runs) -> None:
    runs.run(("Trainer", [], [artifact("Model", "/1")]))
    runs.run(("Trainer", [], [artifact("Model", "/2")]), ("Other", [], [artifact("Model", "/3")]))
    runs.run(("Trainer", [], [artifact("Model", "/9")]), pipeline="fare")
    runs.run(("Trainer", [], [artifact("Model", "/8")]), state="failed")
    now = runs.run(("Trainer", [], [artifact("Model", "/7")]))
    past = PastRuns(runs.ledger, "taxi", without=now)
    assert uris(past.latest(Wanted("Model"), 5)) == ["/3", "/2", "/1"]
    assert uris(past.latest(Wanted("Model", "Trainer"))) == ["/2"]
    assert past.latest(Wanted("Schema")) == []
    assert uris(PastRuns(runs.ledger, "taxi", only_urls=True).latest(Wanted("Model"))) == []


def test_latest_blessed_model(runs: Runs) -> None:
    past = PastRuns(runs.ledger, "taxi")
    assert past.latest_blessed_model() is None
    for name, blessed in (("/1", 1), ("/2", 0)):
        runs.run(
            ("Trainer", [], [artifact("Model", name, known=name)]),
            ("Evaluator", [], [artifact("ModelBlessing", f"{name}b", blessed=blessed, current_model=name)]),
        )
    found = past.latest_blessed_model()
    assert found is not None
    model, blessing = found
    assert (model.uri, model.properties, blessing.uri) == ("/1", {"known": "/1"}, "/1b")


def test_latest_pushed_model_that_was_not_rolled_back(runs: Runs) -> None:
    made = []
    for version in (1, 2):
        model = artifact("Model", f"/{version}")
        pushed = artifact("PushedModel", f"/p{version}")
        made.append(runs.run(("Trainer", [], [model]), ("Pusher", [model], [pushed])))
        runs.ledger.append(
            "models/taxi", events.MODEL_PUSHED, run=made[-1], version=version, digest=f"d{version}"
        )
    past = PastRuns(runs.ledger, "taxi")
    found = past.latest_pushed_model()
    assert found is not None
    assert found.uri == "/2"
    runs.ledger.append("models/taxi", events.MODEL_ROLLED_BACK, version=2, versions=[2], labels={}, why="")
    found = past.latest_pushed_model()
    assert found is not None
    assert found.uri == "/1"


def test_spans(runs: Runs) -> None:
    for span, version in ((1, 0), (2, 0), (3, 1), (3, 0), (7, None)):
        properties = {"span": span} if version is None else {"span": str(span), "version": version}
        runs.run(("Gen", [], [artifact("Examples", f"/{span}-{version}", **properties)]))
    past, wanted = PastRuns(runs.ledger, "taxi"), Wanted("Examples")
    last_five = past.spans(wanted, lambda span, highest: span > highest - 5)
    assert uris(last_five) == ["/7-None", "/3-1"]
    assert uris(past.spans(wanted, lambda span, _: 1 <= span <= 2)) == ["/2-0", "/1-0"]
    now = PastArtifact("Examples", "/now", {"span": 0, "custom:span": 8.0})
    assert uris(past.spans(wanted, lambda span, highest: span > highest - 2, [now])) == ["/now", "/7-None"]
