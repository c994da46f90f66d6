"""What differs between two runs."""

from dataclasses import dataclass, field
from typing import Any

from mlplatform.orchestration.local.cache.key_changes import changes_between
from mlplatform.orchestration.local.ledger_runs import KeptRun
from mlplatform.orchestration.local.records import NodeRecord
from mlplatform.orchestration.local.run_metrics import run_metrics


@dataclass(frozen=True)
class NodeComparison:
    """One node in two runs; a side where the node is missing is None.

    Attributes:
        id: The node's id.
        before: Its state and seconds in the first run.
        now: The same in the second.
        changes: Parts of its cache key that differ, as `part`, `before`, `now`.
        has_other_outputs: Its outputs differ in content.
    """

    id: str
    before: dict[str, Any] | None
    now: dict[str, Any] | None
    changes: list[dict[str, str]] = field(default_factory=list)
    has_other_outputs: bool = False


@dataclass(frozen=True)
class RunComparison:
    """Two runs.

    Attributes:
        before: The first run's id.
        now: The second run's id.
        arguments: What the pipeline was called with, where it differs: `part`, `before`, `now`.
        versions: Versions that differ.
        metrics: Figures of the evaluated model that differ.
        nodes: All nodes, in the order of the second run.
    """

    before: str
    now: str
    arguments: list[dict[str, str]]
    versions: list[dict[str, str]]
    metrics: list[dict[str, str]]
    nodes: list[NodeComparison]


def compare_runs(before: KeptRun, now: KeptRun) -> RunComparison:
    """Compare two runs, the earlier one first."""
    first, second = before.read(), now.read()
    old = {node.id: node for node in first.nodes}
    ids = [node.id for node in second.nodes] + [id_ for id_ in old if id_ not in {n.id for n in second.nodes}]
    new = {node.id: node for node in second.nodes}
    return RunComparison(
        before=first.run_id,
        now=second.run_id,
        arguments=changes_between(_flat(first.arguments), _flat(second.arguments)),
        versions=changes_between(first.versions, second.versions),
        metrics=changes_between(_texts(run_metrics(first)), _texts(run_metrics(second))),
        nodes=[_compare_node(id_, old.get(id_), new.get(id_), before, now) for id_ in ids],
    )


def _compare_node(
    id_: str, old: NodeRecord | None, new: NodeRecord | None, before: KeptRun, now: KeptRun
) -> NodeComparison:
    earlier, later = before.read_details(id_), now.read_details(id_)
    changes = changes_between(earlier.parts, later.parts) if earlier and later else []
    return NodeComparison(
        id_, _side(old), _side(new), changes, bool(old and new and _digests(old) != _digests(new))
    )


def _side(node: NodeRecord | None) -> dict[str, Any] | None:
    return {"state": node.state, "seconds": node.seconds} if node else None


def _digests(node: NodeRecord) -> dict[str, list[str]]:
    return {key: [artifact.digest for artifact in found] for key, found in node.outputs.items()}


def _texts(metrics: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.4g}" for name, value in metrics.items()}


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Return nested arguments as dotted names and texts."""
    if isinstance(value, dict):
        flat: dict[str, str] = {}
        for key, entry in value.items():
            flat |= _flat(entry, f"{name}.{key}" if name else str(key))
        return flat
    return {name: str(value)}
