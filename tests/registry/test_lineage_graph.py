"""The lineage graph: right in both directions for random histories, against a search of the plain facts."""

import random
from collections.abc import Mapping

import pytest

from mlplatform.registry.event import Event
from mlplatform.registry.lineage_graph import LineageGraph

Facts = set[tuple[str, str]]  # (made from, made)


def event(run: str, kind: str, **facts: object) -> Event:
    return Event(f"runs/{run}", 1, kind, "2026-01-01T00:00:00+00:00", "me", run, facts)


def random_history(
    seed: int,
) -> tuple[dict[str, list[Event]], dict[str, list[dict[str, object]]], Facts]:
    """Return a history as the ledger holds it, and beside it what was made from what."""
    chance = random.Random(seed)
    runs: dict[str, list[Event]] = {}
    models: dict[str, list[dict[str, object]]] = {"a": [], "b": []}
    facts: Facts = set()
    for number in range(chance.randrange(1, 9)):
        run = f"run-{number}"
        runs[run] = []
        if chance.random() < 0.7:
            code = f"{chance.randrange(3):07x}"
            is_dirty = chance.random() < 0.3
            about = {"commit": code, "is_dirty": is_dirty, "libraries": {}}
            runs[run].append(event(run, "run.started", pipeline="p", code=about))
            facts.add((f"code:{code}+changes" if is_dirty else f"code:{code}", f"run:{run}"))
        for _ in range(chance.randrange(3)):
            dataset = f"d@v{chance.randrange(1, 5)}"
            runs[run].append(event(run, "dataset.used", dataset=dataset, digest="x"))
            facts.add((f"dataset:{dataset}", f"run:{run}"))
        reused = [f"run-{chance.randrange(number + 1)}" for _ in range(chance.randrange(3))]
        runs[run].append(event(run, "run.finished", state="done", reused=reused))
        facts |= {(f"run:{maker}", f"run:{run}") for maker in reused if maker != run}
        if chance.random() < 0.6:
            name = chance.choice("ab")
            version = len(models[name]) + 1
            pushed: dict[str, object] = {"event": "push", "version": version, "digest": f"{seed}-{number}"}
            made = f"model:{name}@{version}"
            if chance.random() < 0.8:
                pushed["run"] = run
                facts.add((f"run:{run}", made))
            if chance.random() < 0.5:
                pushed["dataset"] = f"d@v{chance.randrange(1, 5)}"
                facts.add((f"dataset:{pushed['dataset']}", made))
            models[name].append(pushed)
    return runs, models, facts


def reached(start: str, facts: Facts, *, up: bool) -> set[str]:
    """The closure, by trying every fact until nothing is added."""
    found = {start}
    while True:
        more = {(a if up else b) for a, b in facts if (b if up else a) in found} - found
        if not more:
            return found
        found |= more


def test_both_directions_of_a_thousand_random_histories() -> None:
    for seed in range(1000):
        runs, models, facts = random_history(seed)
        graph = LineageGraph.of(runs, models)
        for node in graph.nodes:
            up, down = graph.around(node, "up"), graph.around(node, "down")
            assert set(up.nodes) == reached(node, facts, up=True), (seed, node)
            assert set(down.nodes) == reached(node, facts, up=False), (seed, node)
            # No edge is made up, and every one leads along what was reached.
            for part in (up, down):
                assert {(edge.source, edge.target) for edge in part.edges} <= facts
            assert set(graph.around(node).nodes) == set(up.nodes) | set(down.nodes)


def test_steps_are_counted_from_the_node() -> None:
    runs = {
        "r1": [event("r1", "dataset.used", dataset="d@v1")],
        "r2": [event("r2", "run.finished", state="done", reused=["r1"])],
    }
    graph = LineageGraph.of(runs, {"m": [{"event": "push", "version": 1, "digest": "x", "run": "r2"}]})
    assert set(graph.around("model:m@1", "up", 1).nodes) == {"model:m@1", "run:r2"}
    assert set(graph.around("model:m@1", "up", 2).nodes) == {"model:m@1", "run:r2", "run:r1"}
    assert graph.around("model:m@2").nodes == {}


@pytest.mark.parametrize(
    "facts",
    [
        {"code": "text", "pipeline": 3},
        {"code": {"commit": ["x"], "is_dirty": "?"}},
        {"dataset": {"a": 1}},
        {"reused": "run-1"},
        {"reused": [None, {"x": 1}]},
    ],
)
def test_facts_of_another_form_are_no_edges(facts: Mapping[str, object]) -> None:
    runs = {"r": [event("r", kind, **facts) for kind in ("run.started", "run.finished", "dataset.used")]}
    assert LineageGraph.of(runs, {}).edges == []


def test_a_withdrawn_version_is_said_to_be() -> None:
    pushed = {"event": "push", "version": 1, "digest": "x", "at": "t", "by": "me"}
    back = {"event": "rollback", "version": 1, "versions": [1], "labels": {}}
    node = LineageGraph.of({}, {"m": [pushed, back]}).nodes["model:m@1"]
    assert node.facts["is_withdrawn"] is True
    assert node.as_json()["id"] == "model:m@1"
