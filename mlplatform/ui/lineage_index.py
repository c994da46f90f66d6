"""The lineage of runs in the table of runs, so that a page reads the part that it shows and no more."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mlplatform.registry.event import Event
from mlplatform.registry.lineage_graph import Direction, LineageEdge, LineageGraph, LineageNode
from mlplatform.registry.model_events import ModelEvent

TABLES = """
CREATE TABLE IF NOT EXISTS lineage_nodes (id TEXT PRIMARY KEY, kind TEXT, name TEXT, facts TEXT);
CREATE TABLE IF NOT EXISTS lineage_edges (
    source TEXT, target TEXT, how TEXT, PRIMARY KEY (source, target, how)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nodes_by_kind ON lineage_nodes (kind, name);
CREATE INDEX IF NOT EXISTS edges_by_target ON lineage_edges (target);
"""
_AT_ONCE = 500  # values of one query


def write_lineage(database: sqlite3.Connection, run: str, happened: Iterable[Event]) -> None:
    """Add what a run was made from and with, over what was known of it."""
    graph = LineageGraph.of({run: happened}, {})
    for node in graph.nodes.values():
        verb = "REPLACE" if node.facts else "IGNORE"
        values = (node.id, node.kind, node.name, json.dumps(node.facts, ensure_ascii=False, default=str))
        database.execute(
            f"INSERT OR {verb} INTO lineage_nodes VALUES (?, ?, ?, ?)", tuple(map(_storable, values))
        )
    database.executemany(
        "INSERT OR IGNORE INTO lineage_edges VALUES (?, ?, ?)",
        [tuple(map(_storable, (edge.source, edge.target, edge.how))) for edge in graph.edges],
    )


def unended_runs(database: sqlite3.Connection) -> list[str]:
    """Return the runs of which no event says how they ended."""
    query = "SELECT name FROM lineage_nodes WHERE kind = 'run' AND json_extract(facts, '$.state') IS NULL"
    return [name for (name,) in database.execute(query)]


class IndexedGraph(LineageGraph):
    """A lineage graph whose runs are in a table; the models are in memory. Threads may share it.

    Args:
        database: Where `TABLES` are.
        lock: Held while it is used.
        models: Events of each model, by its name.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        lock: threading.Lock,
        models: Mapping[str, Sequence[ModelEvent]],
    ) -> None:
        super().__init__()
        self._database, self._lock = database, lock
        for model, happened in models.items():
            self._add_model(model, happened)

    def node(self, node: str) -> LineageNode | None:
        return self._nodes([node]).get(node)

    def names(self, kind: str, prefix: str = "", most: int = 2) -> list[str]:
        query = "SELECT name FROM lineage_nodes WHERE kind = ? AND name >= ? ORDER BY name LIMIT ?"
        with self._lock:
            rows = self._database.execute(query, (kind, _storable(prefix), most)).fetchall()
        found = {name for (name,) in rows if name.startswith(prefix)}
        return sorted(found | set(super().names(kind, prefix, most)))[:most]

    def last(self, kind: str) -> str:
        query = "SELECT MAX(name) FROM lineage_nodes WHERE kind = ?"
        with self._lock:
            [(name,)] = self._database.execute(query, (kind,)).fetchall()
        return max(name or "", super().last(kind))

    def edges_of(self, node: str) -> list[LineageEdge]:
        both = [*self._edges_at([node], "source"), *self._edges_at([node], "target")]
        return list(dict.fromkeys([*super().edges_of(node), *both]))

    def around(self, node: str, direction: Direction = "both", hops: int | None = None) -> LineageGraph:
        near = LineageGraph()
        edges: dict[LineageEdge, None] = {}
        for way in ("up", "down") if direction == "both" else (direction,):
            edges |= dict.fromkeys(self._reached(node, way, hops))
        nodes = self._nodes({node, *(end for edge in edges for end in (edge.source, edge.target))})
        if node in nodes:
            near.add(nodes[node])
        for edge in edges:
            near.link(nodes[edge.source], nodes[edge.target], edge.how)
        return near.around(node, direction, hops)

    def _reached(self, node: str, way: str, hops: int | None) -> Iterator[LineageEdge]:
        met, at = {node}, [node]
        here, there = ("target", "source") if way == "up" else ("source", "target")
        while at and hops != 0:
            hops = None if hops is None else hops - 1
            found = self._edges_at(at, here)
            for each in at:
                found += [edge for edge in super().edges_of(each) if getattr(edge, here) == each]
            yield from found
            at = list(dict.fromkeys(end for edge in found if (end := getattr(edge, there)) not in met))
            met.update(at)

    def _edges_at(self, nodes: Sequence[str], end: str) -> list[LineageEdge]:
        rows = self._rows(f"SELECT source, target, how FROM lineage_edges WHERE {end} IN", nodes)
        return [LineageEdge(*row) for row in rows]

    def _nodes(self, nodes: Iterable[str]) -> dict[str, LineageNode]:
        """Return the nodes of some ids, with what both sides know of them."""
        wanted = list(nodes)
        rows = self._rows("SELECT id, kind, name, facts FROM lineage_nodes WHERE id IN", wanted)
        found = {each: LineageNode(kind, name, json.loads(facts)) for each, kind, name, facts in rows}
        for each in wanted:
            if (known := self.nodes.get(each)) is not None:
                facts = found[each].facts if each in found else {}
                found[each] = LineageNode(known.kind, known.name, {**facts, **known.facts})
        return found

    def _rows(self, query: str, values: Sequence[str]) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        with self._lock:
            for first in range(0, len(values), _AT_ONCE):
                some = [_storable(value) for value in values[first : first + _AT_ONCE]]
                marks = ", ".join("?" * len(some))
                found += self._database.execute(f"{query} ({marks})", some).fetchall()
        return found


def _storable(text: str) -> str:
    """Return a text without halves of characters, as JSON can hold them and SQLite cannot."""
    return text.encode("utf-8", "replace").decode()
