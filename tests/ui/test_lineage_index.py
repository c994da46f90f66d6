"""Lineage read from the table of runs is what the whole graph in memory says, for random histories."""

import importlib.util
import random
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from mlplatform.registry.lineage_graph import LineageGraph
from mlplatform.ui.lineage_index import TABLES, IndexedGraph, unended_runs, write_lineage

_FILE = Path(__file__).parents[1] / "registry" / "test_lineage_graph.py"
_SPEC = importlib.util.spec_from_file_location("random_histories", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)


def test_random_histories_both_ways() -> None:
    for seed in range(200):
        runs, models, _ = _MODULE.random_history(seed)
        whole, chance = LineageGraph.of(runs, models), random.Random(seed)
        with closing(sqlite3.connect(":memory:")) as database:
            database.executescript(TABLES)
            # In any order, and once before the run had ended.
            for run in chance.sample(sorted(runs), len(runs)):
                write_lineage(database, run, runs[run][:-1])
                write_lineage(database, run, runs[run])
            indexed = IndexedGraph(database, threading.Lock(), models)
            for node, known in whole.nodes.items():
                assert indexed.node(node) == known
                assert set(indexed.edges_of(node)) == set(whole.edges_of(node))
                for direction in ("up", "down", "both"):
                    hops = chance.choice([None, 0, 1, 2])
                    expected = whole.around(node, direction, hops)  # type: ignore[arg-type]
                    found = indexed.around(node, direction, hops)  # type: ignore[arg-type]
                    assert (found.nodes, found.edges) == (expected.nodes, expected.edges), (seed, node)
            assert indexed.around("model:none@1").nodes == {}
            for kind in ("run", "code", "dataset", "model"):
                assert indexed.last(kind) == whole.last(kind)
                assert indexed.names(kind, "", 50) == whole.names(kind, "", 50)
                assert indexed.names(kind, "run-1") == whole.names(kind, "run-1")


def test_a_run_whose_end_is_not_known_is_looked_at_again() -> None:
    started = _MODULE.event("one", "run.started", pipeline="p")
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(TABLES)
        write_lineage(database, "one", [started])
        assert unended_runs(database) == ["one"]
        write_lineage(database, "one", [started, _MODULE.event("one", "run.finished", state="done")])
        assert unended_runs(database) == []
