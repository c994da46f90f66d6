"""Lineage of whatever a person names: a run, a model version, a dataset version, or the key of a record."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from mlplatform.datasets import DatasetStore
from mlplatform.errors import MlplatformError, UsageError
from mlplatform.home import Home
from mlplatform.registry import ModelStore
from mlplatform.registry.errors import ModelNotFoundError, ModelVersionNotFoundError
from mlplatform.registry.lineage_graph import (
    CODE,
    DATASET,
    MODEL,
    RUN,
    Direction,
    LineageGraph,
    LineageNode,
)
from mlplatform.registry.model_ledger import ModelLedger

if TYPE_CHECKING:
    from mlplatform.datasets.blame import BlamedRecord

RECORD, FOLDER = "record", "folder"
_KINDS = (MODEL, DATASET, RUN, CODE, RECORD)


class NothingNamedError(UsageError):
    """Nothing under a root has a name that lineage was asked for."""

    def __init__(self, what: str, root: str, looked_for: str) -> None:
        super().__init__(what, root, looked_for)
        self.what, self.root, self.looked_for = what, root, looked_for

    def __str__(self) -> str:
        return (
            f"nothing under {self.root} is named {self.what!r}: it is not a {self.looked_for}. Name a run by "
            "its id, a version as NAME@VERSION, or a record by its key, with the kind in front where that is "
            "ambiguous, such as dataset:items@v3 or record:items/4711."
        )


def read_graph(home: Home) -> LineageGraph:
    """Return everything that the ledger of a root knows of what was made from what.

    Raises:
        LedgerAccessError: The ledger cannot be read.
    """
    return LineageGraph.read(ModelLedger(home.models))


def lineage(
    home: Home,
    what: str,
    direction: Direction = "both",
    *,
    hops: int | None = None,
    graph: LineageGraph | None = None,
) -> tuple[LineageNode, LineageGraph]:
    """Return what `what` names, and what it was made from or what was made from it.

    Args:
        home: The root.
        what: A run's id, the beginning of one or `latest`; `NAME@VERSION` of a model or a dataset; a record's
            key; or the id of a node, such as `record:items/4711`.
        direction: `up`: what it was made from; `down`: what was made from it.
        hops: At most this many edges away; None: all.
        graph: That of the root, where it was read already; not modified.

    Raises:
        NothingNamedError: There is no such thing.
        LedgerAccessError: The ledger cannot be read.
    """
    graph = graph if graph is not None else read_graph(home)
    named = _find(home, graph, what)
    if named.kind == RECORD:
        return named, _of_record(home, graph, named, direction, hops)
    part = graph.around(named.id, direction, hops)
    part.add(named)
    for node in list(part.nodes.values()):
        if node.kind == DATASET:
            _add_dataset_facts(home, part, node, is_up=direction != "down" and hops != 0)
    return named, part


def _find(home: Home, graph: LineageGraph, what: str) -> LineageNode:
    kind, separator, name = what.partition(":")
    is_kind = bool(separator) and kind in _KINDS
    name = name if is_kind else what
    tried: list[str] = []
    for each, find in _FINDERS.items():
        if is_kind and each != kind:
            continue
        tried.append(each)
        if (found := find(home, graph, name)) is not None:
            return found
    raise NothingNamedError(what, home.root, " or ".join(tried))


def _run(_: Home, graph: LineageGraph, name: str) -> LineageNode | None:
    if name == "latest":
        name = graph.last(RUN)
    meant = graph.names(RUN, name) if name else []
    exact = graph.node(f"{RUN}:{name}")
    return exact or (graph.node(f"{RUN}:{meant[0]}") if len(meant) == 1 else None)


def _model(home: Home, graph: LineageGraph, name: str) -> LineageNode | None:
    if known := graph.node(f"{MODEL}:{name}"):
        return known
    model, separator, version = name.partition("@")
    if not separator:
        return None
    try:
        number = ModelStore(home.models).version(model, version).version
    except (ModelNotFoundError, ModelVersionNotFoundError, UsageError):
        return None
    node = LineageNode(MODEL, f"{model}@{number}")
    return graph.node(node.id) or node


def _dataset(home: Home, graph: LineageGraph, name: str) -> LineageNode | None:
    dataset, separator, version = name.partition("@")
    if not separator:
        return None
    try:
        manifest = DatasetStore(home.datasets).show(dataset, version)
    except MlplatformError:  # no such dataset, or one whose store was deleted
        return graph.node(f"{DATASET}:{name}")
    node = LineageNode(DATASET, f"{dataset}@{manifest.version}")
    return graph.node(node.id) or node


def _code(_: Home, graph: LineageGraph, name: str) -> LineageNode | None:
    if not re.fullmatch("[0-9a-f]{7,64}([+]changes)?", name):
        return None
    meant = graph.names(CODE, name)
    exact = [each for each in meant if each == name]
    return graph.node(f"{CODE}:{(exact or meant)[0]}") if len(exact or meant) == 1 else None


def _record(home: Home, _: LineageGraph, name: str) -> LineageNode | None:
    store = DatasetStore(home.datasets)
    dataset, separator, key = name.partition("/")
    if separator and dataset in store.names() and store.blame(dataset, key).records:
        return LineageNode(RECORD, name)
    found = [each for each in store.names() if store.blame(each, name).records]
    return LineageNode(RECORD, f"{found[0]}/{name}") if len(found) == 1 else None


_FINDERS: dict[str, Callable[[Home, LineageGraph, str], LineageNode | None]] = {
    MODEL: _model,
    DATASET: _dataset,
    RUN: _run,
    CODE: _code,
    RECORD: _record,
}


def _of_record(
    home: Home, graph: LineageGraph, record: LineageNode, direction: Direction, hops: int | None
) -> LineageGraph:
    dataset, _, key = record.name.partition("/")
    blame = DatasetStore(home.datasets).blame(dataset, key)
    ids = [found.record for found in blame.records]
    labels = sorted({found.label for found in blame.records if found.label})
    record = LineageNode(RECORD, record.name, {"records": ids, "classes": labels})
    part = LineageGraph()
    part.add(record)
    if direction == "up" or hops == 0:
        return part
    for version, splits in _appearances(blame.records):
        node = LineageNode(DATASET, f"{dataset}@{version}")
        below = graph.around(node.id, "down", None if hops is None else hops - 1)
        for edge in below.edges:
            part.link(below.nodes[edge.source], below.nodes[edge.target], edge.how)
        part.link(record, below.nodes.get(node.id, node), f"in {', '.join(splits)}")
        _add_dataset_facts(home, part, node, is_up=False)
    return part


def _appearances(records: "Sequence[BlamedRecord]") -> Iterator[tuple[str, list[str]]]:
    splits: dict[str, set[str]] = {}
    for record in records:
        for one in record.appearances:
            splits.setdefault(one.version, set()).add(one.split)
    for version in sorted(splits, key=lambda name: int(name[1:])):
        yield version, sorted(splits[version])


def _add_dataset_facts(home: Home, part: LineageGraph, node: LineageNode, *, is_up: bool) -> None:
    """Add what the store has of a version; nothing where the version is of another store."""
    dataset, _, version = node.name.partition("@")
    try:
        manifest = DatasetStore(home.datasets).show(dataset, version)
    except MlplatformError:
        return
    if (known := node.facts.get("digest")) and known != manifest.digest:  # a store that was begun anew
        return
    splits = {name: split.records for name, split in manifest.splits.items()}
    facts = {"digest": manifest.digest, "records": splits, "created_at": manifest.created_at}
    part.add(LineageNode(DATASET, node.name, {**facts, "created_by": manifest.created_by}))
    if is_up and manifest.source:
        part.link(LineageNode(FOLDER, manifest.source), node, "committed")
