"""Which runs and model versions of a root are kept, and why."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from mlplatform.home import Home
from mlplatform.orchestration.local.records import RunFolder
from mlplatform.registry import ModelStore, ModelVersion
from mlplatform.registry.approvals import Approvals
from mlplatform.registry.event import Event
from mlplatform.registry.events import RUN_FINISHED, RUN_STARTED
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.model_events import ROLLBACK
from mlplatform.registry.run_marks import notes_of, tags_of
from mlplatform.retention.policy import RetentionPolicy


@dataclass
class _Run:
    run: str
    pipeline: str = ""
    at: str = ""
    state: str = ""  # empty while it goes on, and where nothing says how it ended
    is_marked: bool = False
    reused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kept:
    """What a policy keeps of a root, and what not.

    Attributes:
        runs: Why a run is kept, by its id.
        old_runs: Ids of the runs that are not kept, oldest first.
        old_versions: The withdrawn versions of models that are not kept, by the model's name.
    """

    runs: Mapping[str, str]
    old_runs: tuple[str, ...]
    old_versions: Mapping[str, tuple[int, ...]]


def kept_of(home: Home, policy: RetentionPolicy, now: datetime) -> Kept:
    """Return what a policy keeps of a root.

    A run is kept while one of these holds: it goes on; it is one of the newest of its pipeline, or the newest
    that ended well; it is young; it has a tag or a note; it pushed a version of a model that is kept; it
    waits for an approval; a run that is kept reused its results.

    Raises:
        LedgerAccessError: The ledger cannot be read.
    """
    models = ModelStore(home.models).all_versions()
    old_versions = {
        name: tuple(v.version for v in versions if _is_old(v, policy, now))
        for name, versions in models.items()
    }
    runs = _runs(home)
    why: dict[str, str] = {}
    _keep_newest(why, runs.values(), policy.keep_runs)
    since = (now - timedelta(days=policy.keep_days)).astimezone(timezone.utc).isoformat()
    for each in runs.values():
        if not each.state and _is_live(home, each.run):
            why[each.run] = "it goes on"
        elif each.is_marked:
            why.setdefault(each.run, "it has a tag or a note")
        elif not each.at or each.at >= since:
            why.setdefault(each.run, f"it is younger than {policy.keep_days:g} days")
    for name, versions in models.items():
        for version in versions:
            if version.version not in old_versions[name] and version.push is not None and version.push.run:
                why.setdefault(version.push.run, f"it pushed {name}@{version.version}, which is kept")
    for request in Approvals(Ledger(home.ledger)).waiting(now):
        why.setdefault(request.run, f"it asks for an approval of {request.model}")
    left = [run for run in why if run in runs]
    while left:
        by = left.pop()
        for run in runs[by].reused:
            if run not in why:
                why[run] = f"run {by} reuses its results"
                left += [run] if run in runs else []
    old = sorted((each for each in runs.values() if each.run not in why), key=lambda each: each.at)
    return Kept(
        {run: reason for run, reason in why.items() if run in runs},
        tuple(each.run for each in old),
        {name: versions for name, versions in old_versions.items() if versions},
    )


def _runs(home: Home) -> dict[str, _Run]:
    """Return all runs: those of the ledger, and those of this machine that it does not have."""
    found = {}
    for stream, events in Ledger(home.ledger).overview("runs").items():
        run = stream.partition("/")[2]
        found[run] = _of_events(run, events)
    for name in _folders(home):
        if name in found and found[name].state:
            continue
        record = RunFolder(home.runs / name).read() if (home.runs / name / "run.json").is_file() else None
        if record is not None:
            state = "" if record.state == "running" else record.state
            of_ledger = found.get(name, _Run(name))
            reused = sorted({*of_ledger.reused, *(node.made_in for node in record.nodes if node.made_in)})
            found[name] = _Run(name, record.pipeline, record.started_at, state, of_ledger.is_marked, reused)
    return found


def _of_events(run: str, events: list[Event]) -> _Run:
    found = _Run(run, at=events[0].at if events else "")
    for event in events:
        if event.kind == RUN_STARTED:
            found.pipeline, found.at = str(event.get("pipeline") or ""), event.at
        elif event.kind == RUN_FINISHED:
            found.state = str(event.get("state") or "unknown")
            found.pipeline = found.pipeline or str(event.get("pipeline") or "")
            reused = event.get("reused")
            found.reused = [str(each) for each in reused] if isinstance(reused, list) else []
    found.is_marked = bool(tags_of(events) or notes_of(events))
    return found


def _folders(home: Home) -> list[str]:
    try:
        return [path.name for path in home.runs.iterdir() if not path.name.startswith(("_", "."))]
    except FileNotFoundError:
        return []


def _keep_newest(why: dict[str, str], runs: Iterable[_Run], count: int) -> None:
    of_pipeline: dict[str, list[_Run]] = defaultdict(list)
    for each in sorted(runs, key=lambda each: (each.at, each.run), reverse=True):
        of_pipeline[each.pipeline].append(each)
    for pipeline, newest in of_pipeline.items():
        of = f" of {pipeline}" if pipeline else ""
        for each in newest[:count]:
            why[each.run] = f"it is one of the newest {count}{of}"
        done = next((each for each in newest if each.state == "done"), None)
        if done is not None:
            why.setdefault(done.run, f"it is the newest{of} that ended well")


def _is_live(home: Home, run: str) -> bool:
    return RunFolder(home.runs / run).is_live()


def _is_old(version: ModelVersion, policy: RetentionPolicy, now: datetime) -> bool:
    """Return whether a version was withdrawn so long ago that it is not kept."""
    if not version.is_withdrawn or version.labels:
        return False
    times = [str(event.get("at", "")) for event in version.events if event["event"] == ROLLBACK]
    try:
        return bool(times) and now - datetime.fromisoformat(times[-1]) >= timedelta(
            days=policy.keep_withdrawn_days
        )
    except (ValueError, TypeError):  # a time that somebody else wrote
        return False
