"""The kinds of events in a ledger, and helpers to write those that several places write.

A kind is `WHAT.HAPPENED`. Each event has a time, an account and the id of its run; what else belongs to a
kind is said beside it. More kinds and more facts may come: readers skip what they do not know.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from mlplatform.registry.event import Event
from mlplatform.registry.ledger import Ledger

# In `runs/RUN_ID`, by whoever runs the pipeline.
RUN_STARTED = "run.started"  # pipeline, reference, arguments, options; code: commit, is_dirty, libraries
RUN_FINISHED = "run.finished"  # state, seconds, nodes, failed, metrics; reused: runs whose results were taken
NODE_STARTED = "node.started"  # node, type
NODE_FINISHED = "node.finished"  # node, state, why, seconds, cpu_s, inputs, outputs, error, made_in, ...

# In `runs/RUN_ID`, by the components.
VERDICT = "verdict"  # node, gate, is_accepted, reasons, path; waivers: that counted, if any
REPORT = "report"  # node, path
DATASET_USED = "dataset.used"  # node, dataset (NAME@VERSION), digest, splits
MODEL_TRAINED = "model.trained"  # node, digest of the model, dataset

NOTICE_SENT = "notice.sent"  # occasion, way
NOTICE_FAILED = "notice.failed"  # occasion, way, problem

# In `runs/RUN_ID`, by people.
RUN_TAGGED = "run.tagged"  # added, removed: tags
RUN_NOTED = "run.noted"  # note

# In `models/NAME`, by the model store.
MODEL_CLAIMED = "model.claimed"  # version: its number is taken, its files are being uploaded
MODEL_PUSHED = "model.pushed"  # version, digest, dataset, servers, metrics, why, source
MODEL_CONFIRMED = "model.confirmed"  # version, servers
MODEL_PROMOTED = "model.promoted"  # version, label, why
MODEL_ROLLED_BACK = "model.rolled_back"  # version, versions, labels, why
MODEL_REMOVED = "model.removed"  # version, why
MODEL_IMPORTED = "model.imported"  # events: the lines of a ledger.jsonl of release 0.1, as they were

# In `approvals/MODEL`, each about one digest of the model; see `mlplatform.registry.approvals`.
APPROVAL_WANTED = "approval.wanted"  # digest, node, dataset, approvers, expires_at
APPROVAL_GIVEN = "approval.given"  # digest, approver, why
APPROVAL_REFUSED = "approval.refused"  # digest, approver, why
APPROVAL_EXPIRED = "approval.expired"  # digest

# In `datasets/NAME`: notices alone; the versions themselves are the dataset store's.
DATASET_COMMITTED = "dataset.committed"  # version, digest, records
DATASET_FORGOTTEN = "dataset.forgotten"  # keys are never written


class ArtifactFacts(TypedDict):
    """An artifact that a node took or gave, in `inputs` and `outputs` of `node.finished`.

    Runners add `id`, and `properties`: what `mlplatform.registry.artifacts` finds artifacts by.
    """

    key: str
    type: str
    uri: str
    digest: str


def run_stream(run: str) -> str:
    """Return the stream of a run."""
    return f"runs/{run}"


def model_stream(name: str) -> str:
    """Return the stream of a model."""
    return f"models/{name}"


def approval_stream(model: str) -> str:
    """Return the stream of who agreed to which model."""
    return f"approvals/{model}"


def dataset_stream(name: str) -> str:
    """Return the stream of a dataset's notices."""
    return f"datasets/{name}"


def is_notified(happened: Sequence[Event], occasion: str) -> bool:
    """Say whether the events of a run show that people were notified of an occasion, as far as that went."""
    return any(e.kind in (NOTICE_SENT, NOTICE_FAILED) and e.get("occasion") == occasion for e in happened)


def node_finished(
    ledger: Ledger,
    run: str,
    node: str,
    *,
    state: str,
    why: str = "",
    seconds: float = 0.0,
    peak_memory_mb: float = 0.0,
    cpu_s: float = 0.0,
    inputs: Sequence[ArtifactFacts] = (),
    outputs: Sequence[ArtifactFacts] = (),
    error: str = "",
) -> Event:
    """Write that a node of a run is finished, well or not.

    Args:
        ledger: The ledger.
        run: The run's id.
        node: The node's id in the pipeline.
        state: `done`, `cached`, `failed`, `skipped` or `cancelled`.
        why: Why it ran, or why not, in one line.
        seconds: Wall time.
        peak_memory_mb: Peak memory of its process.
        cpu_s: Processor seconds of its process.
        inputs: Artifacts that it took.
        outputs: Artifacts that it gave.
        error: The cause of a failure, in a few lines.
    """
    return ledger.append(
        run_stream(run),
        NODE_FINISHED,
        node=node,
        state=state,
        why=why,
        seconds=seconds,
        peak_memory_mb=peak_memory_mb,
        cpu_s=cpu_s,
        inputs=list(inputs),
        outputs=list(outputs),
        error=error,
    )


def dataset_used(
    ledger: Ledger,
    run: str,
    dataset: str,
    *,
    digest: str,
    node: str = "",
    splits: Mapping[str, int] | None = None,
) -> Event:
    """Write that a run used a version of a dataset.

    Args:
        ledger: The ledger.
        run: The run's id.
        dataset: The version, `NAME@vN`.
        digest: The version's digest.
        node: Id of the node that used it.
        splits: Records of each split that was used.
    """
    splits = dict(splits or {})
    return ledger.append(
        run_stream(run), DATASET_USED, dataset=dataset, digest=digest, node=node, splits=splits
    )
