"""Everything that the ledger knows of what was made from what, as one graph that is followed both ways.

Nodes are products and what they were made with (dataset versions, model versions, runs, code), not the
executions in between: a result that a run took from an earlier one leads to the run that made it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mlplatform.registry import events
from mlplatform.registry.event import Event
from mlplatform.registry.history import History
from mlplatform.registry.model_events import PUSH, ModelEvent
from mlplatform.registry.model_ledger import ModelLedger

Direction = Literal["up", "down", "both"]
MODEL, DATASET, RUN, CODE = "model", "dataset", "run", "code"


@dataclass(frozen=True)
class LineageNode:
    """Something that was made, or that something was made with.

    Attributes:
        kind: `model`, `dataset`, `run`, `code`; callers may add kinds of their own.
        name: Its name: `NAME@VERSION`, a run's id, a commit.
        facts: What else is known of it.
    """

    kind: str
    name: str
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What identifies it among all nodes: `KIND:NAME`."""
        return f"{self.kind}:{self.name}"

    def as_json(self) -> dict[str, object]:
        """Return it as `mlplatform lineage --json` prints it."""
        return {"id": self.id, "kind": self.kind, "name": self.name, **self.facts}


@dataclass(frozen=True, order=True)
class LineageEdge:
    """That `target` was made from or with `source`.

    Attributes:
        source: Id of a node.
        target: Id of a node.
        how: In a word or two: `trained on`, `pushed`, ...
    """

    source: str
    target: str
    how: str

    def as_json(self) -> dict[str, str]:
        """Return it as `mlplatform lineage --json` prints it."""
        return {"from": self.source, "to": self.target, "how": self.how}


class LineageGraph:
    """Nodes by their id, and edges along which things were made."""

    def __init__(self) -> None:
        self.nodes: dict[str, LineageNode] = {}
        self._edges: dict[str, dict[LineageEdge, None]] = defaultdict(dict)  # by each of their two ends

    @classmethod
    def of(
        cls, runs: Mapping[str, Iterable[Event]], models: Mapping[str, Sequence[ModelEvent]]
    ) -> "LineageGraph":
        """Return the graph of what happened.

        Args:
            runs: Events of each run, by its id.
            models: Events of each model, by its name.
        """
        graph = cls()
        for run, happened in runs.items():
            graph._add_run(run, happened)
        for model, happened_to_it in models.items():
            graph._add_model(model, happened_to_it)
        return graph

    @classmethod
    def read(cls, ledger: ModelLedger) -> "LineageGraph":
        """Return the graph of a root: reads the index of the runs, and the streams of the models.

        Raises:
            LedgerAccessError: The ledger cannot be read.
        """
        runs = ledger.ledger.overview("runs")
        return cls.of(
            {stream.partition("/")[2]: happened for stream, happened in runs.items()}, ledger.all_events()
        )

    @property
    def edges(self) -> list[LineageEdge]:
        """All edges, sorted."""
        return sorted({edge for found in self._edges.values() for edge in found})

    def add(self, node: LineageNode) -> LineageNode:
        """Add a node, or facts of one that is there."""
        known = self.nodes.get(node.id)
        if known is not None:
            node = LineageNode(node.kind, node.name, {**known.facts, **node.facts})
        self.nodes[node.id] = node
        return node

    def link(self, source: LineageNode, target: LineageNode, how: str) -> None:
        """Add an edge between two nodes, and the nodes."""
        edge = LineageEdge(self.add(source).id, self.add(target).id, how)
        self._edges[edge.source][edge] = self._edges[edge.target][edge] = None

    def node(self, node: str) -> LineageNode | None:
        """Return the node of an id; None where there is none."""
        return self.nodes.get(node)

    def names(self, kind: str, prefix: str = "", most: int = 2) -> list[str]:
        """Return the names of a kind that begin with a text, sorted, at most so many."""
        found = (node.name for node in self.nodes.values() if node.kind == kind)
        return sorted(name for name in found if name.startswith(prefix))[:most]

    def last(self, kind: str) -> str:
        """Return the last name of a kind in their order; empty where there is none."""
        return max((node.name for node in self.nodes.values() if node.kind == kind), default="")

    def edges_of(self, node: str) -> list[LineageEdge]:
        """Return the edges that begin or end at a node."""
        return list(self._edges.get(node, ()))

    def around(self, node: str, direction: Direction = "both", hops: int | None = None) -> "LineageGraph":
        """Return the part that a node was made from (`up`), that was made from it (`down`), or both.

        Args:
            node: Id of a node; one that is not known gives an empty graph.
            direction: Which way edges are followed; `both`: up alone, and down alone, from the node.
            hops: At most this many edges away; None: all.
        """
        part = LineageGraph()
        if node not in self.nodes:
            return part
        part.add(self.nodes[node])
        for way in ("up", "down") if direction == "both" else (direction,):
            self._follow(node, way, hops, part)
        return part

    def _follow(self, node: str, way: str, hops: int | None, part: "LineageGraph") -> None:
        met, at = {node}, [node]
        while at and hops != 0:
            hops = None if hops is None else hops - 1
            after = []
            for each in at:
                for edge in self._edges.get(each, ()):
                    here, there = (edge.target, edge.source) if way == "up" else (edge.source, edge.target)
                    if here != each:
                        continue
                    part.link(self.nodes[edge.source], self.nodes[edge.target], edge.how)
                    if there not in met:
                        met.add(there)
                        after.append(there)
            at = after

    def as_json(self) -> dict[str, object]:
        """Return it as `mlplatform lineage --json` prints it."""
        return {
            "nodes": [node.as_json() for node in self.nodes.values()],
            "edges": [edge.as_json() for edge in self.edges],
        }

    def _add_run(self, run: str, happened: Iterable[Event]) -> None:
        node = self.add(LineageNode(RUN, run))
        for event in happened:
            if event.kind == events.RUN_STARTED:
                self._add_start(node, event)
            elif event.kind == events.RUN_FINISHED:
                self.add(LineageNode(RUN, run, {"state": event.get("state", "")}))
                for maker in _texts(event.get("reused")):
                    if maker != run:
                        self.link(LineageNode(RUN, maker), node, "results reused")
            elif event.kind == events.DATASET_USED and (dataset := _text(event.get("dataset"))):
                facts = {"digest": digest} if (digest := _text(event.get("digest"))) else {}
                self.link(LineageNode(DATASET, dataset, facts), node, "used")

    def _add_start(self, run: LineageNode, event: Event) -> None:
        code = event.get("code")
        facts: Mapping[str, object] = code if isinstance(code, Mapping) else {}
        about = {"pipeline": event.get("pipeline", ""), "started_at": event.at, "by": event.by}
        about |= {"arguments": event.get("arguments", {}), "libraries": facts.get("libraries", {})}
        self.add(LineageNode(RUN, run.name, about))
        if commit := _text(facts.get("commit")):
            is_dirty = facts.get("is_dirty")
            name = f"{commit}+changes" if is_dirty is True else commit
            self.link(LineageNode(CODE, name, {"commit": commit, "is_dirty": is_dirty}), run, "ran")

    def _add_model(self, model: str, happened: Sequence[ModelEvent]) -> None:
        history = History.of(happened)
        labels = history.labels(history.digests.keys() - history.withdrawn.keys() - history.removed)
        for event in happened:
            if event["event"] != PUSH:
                continue
            version = int(str(event["version"]))
            facts = {"digest": event.get("digest", ""), "pushed_at": event.get("at", "")}
            facts |= {"pushed_by": event.get("by", ""), "metrics": event.get("metrics", {})}
            facts["labels"] = sorted(label for label, named in labels.items() if named == version)
            facts["is_withdrawn"] = version in history.withdrawn
            facts["is_removed"] = version in history.removed
            node = self.add(LineageNode(MODEL, f"{model}@{version}", facts))
            run, dataset = _text(event.get("run")), _text(event.get("dataset"))
            if run:
                self.link(LineageNode(RUN, run), node, "pushed")
            used = LineageNode(DATASET, dataset)
            # Where the run used it, the way by the run says the same, and more.
            if dataset and not any(edge.source == used.id for edge in self.edges_of(f"{RUN}:{run}")):
                self.link(used, node, "trained on")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
