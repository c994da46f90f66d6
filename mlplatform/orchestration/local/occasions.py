"""What people are notified of at the end of a run."""

from mlplatform.home import Home
from mlplatform.notices.send import Notice
from mlplatform.orchestration.local.records import RunRecord, run_folders
from mlplatform.registry.events import VERDICT, run_stream
from mlplatform.registry.ledger import Ledger

_RUNS_LOOKED_AT = 20  # for the one before


def notice_of(home: Home, ledger: Ledger, record: RunRecord) -> Notice | None:
    """Return what there is to know of a run that has ended; None where it is as it was before.

    A run that was stopped on purpose is none of them; one whose process was killed has failed.

    Args:
        home: The root.
        ledger: Its ledger.
        record: The run.

    Raises:
        LedgerAccessError: The ledger cannot be read.
    """
    if record.state in ("failed", "interrupted"):
        verdicts = [e for e in ledger.events(run_stream(record.run_id)) if e.kind == VERDICT]
        refused = [e for e in verdicts if e.get("is_accepted") is False]
        if refused:
            reasons = refused[0].get("reasons")
            lines = [str(reason) for reason in reasons] if isinstance(reasons, list) else []
            return Notice("refused", record.pipeline, "\n".join(lines), record.run_id)
        causes = [f"{node.id}: {node.error or node.why}" for node in record.failed]
        causes += ["the runner was killed"] if record.state == "interrupted" else []
        return Notice("failed", record.pipeline, "\n".join(causes), record.run_id)
    if record.state == "done" and (failed := _failed_before(home, record)):
        return Notice("recovered", record.pipeline, f"run {failed} failed", record.run_id)
    return None


def _failed_before(home: Home, record: RunRecord) -> str:
    """Return the run of the same pipeline before this one, where it failed; else nothing."""
    for count, folder in enumerate(run_folders(home)):
        if count > _RUNS_LOOKED_AT:
            break
        if folder.run_id < record.run_id and (found := folder.read()).pipeline == record.pipeline:
            if found.state in ("failed", "interrupted"):
                return found.run_id
            if found.state == "done":
                break
    return ""
