"""Which run and node an executor is, and what it writes into the ledger of its root."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mlplatform.home import Home
from mlplatform.registry import events
from mlplatform.registry.ledger import Ledger
from mlplatform.storage.urls import absolute, name, parent

# What names the run where TFX's context does not: a runner of ours that starts containers, and the names
# under which Kubeflow's documentation passes a pod's run on.
_VARIABLES = ("MLPLATFORM_RUN_ID", "KFP_RUN_ID", "KFP_RUN_NAME")
# The folders of a root that components are given.
_OF_A_ROOT = frozenset({"datasets", "models", "reports"})


def run_id(context: Any) -> str:
    """Return the id of the run; empty where nothing says it.

    Args:
        context: The executor's context, None where it has none.
    """
    known = getattr(context, "pipeline_run_id", None)
    return str(known or next((found for name in _VARIABLES if (found := os.environ.get(name))), ""))


def node_id(context: Any, default: str) -> str:
    """Return the id of the node in its pipeline; `default` where the executor does not know it."""
    node = getattr(context, "pipeline_node", None)
    return str(node.node_info.id) if node is not None else default


def note_verdict(
    folder: str,
    context: Any,
    gate: str,
    *,
    is_accepted: bool,
    reasons: Sequence[str],
    report: str = "",
    waivers: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write what a gate decided, and where its report lies, into the ledger.

    Args:
        folder: Folder of all reports or models. One that is not the `reports` or `models` of a root has no
            ledger.
        context: The executor's context.
        gate: Name of the component.
        is_accepted: The decision.
        reasons: Why not, a sentence each.
        report: The page; empty where there is none.
        waivers: Facts of the waivers that counted.
    """
    ledger, run = _ledger(folder), run_id(context)
    if ledger is None or not run:  # no stream to write to
        return
    node, stream = node_id(context, gate), events.run_stream(run)
    facts: dict[str, Any] = {"node": node, "gate": gate, "is_accepted": is_accepted, "reasons": list(reasons)}
    if waivers:
        facts["waivers"] = [dict(each) for each in waivers]
    ledger.append(stream, events.VERDICT, path=report, **facts)
    if report:
        ledger.append(stream, events.REPORT, node=node, path=report)


def note_dataset_used(facts: Mapping[str, Any], context: Any, component: str) -> None:
    """Write into the ledger that this run used a version of a dataset.

    Args:
        facts: Those of its `version.json`. A store that is not the `datasets` of a root has no ledger.
        context: The executor's context.
        component: Name of the component.
    """
    ledger, run = _ledger(facts["store"]), run_id(context)
    if ledger is None or not run:
        return
    events.dataset_used(
        ledger,
        run,
        f"{facts['dataset']}@{facts['version']}",
        digest=facts["digest"],
        node=node_id(context, component),
        splits={split: about["records"] for split, about in facts["splits"].items()},
    )


def home_of(folder: str) -> Home | None:
    """Return the root whose `datasets`, `models` or `reports` a folder is; None where it is none of them."""
    place = absolute(folder)
    return Home.at(parent(place)) if name(place) in _OF_A_ROOT else None


def _ledger(folder: str) -> Ledger | None:
    home = home_of(folder)
    return Ledger(home.ledger) if home is not None else None
