"""Where a model came from, and what was made from a dataset: two questions to the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlplatform.registry import events
from mlplatform.registry.errors import ModelVersionNotFoundError
from mlplatform.registry.event import Event
from mlplatform.registry.history import History
from mlplatform.registry.model_events import PUSH, ModelEvent
from mlplatform.registry.model_ledger import ModelLedger


@dataclass(frozen=True, kw_only=True)
class UsedDataset:
    """A version of a dataset that a run used.

    Attributes:
        dataset: The version, `NAME@vN`.
        digest: Its digest, empty where the ledger has none.
    """

    dataset: str
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What made a version of a model.

    Attributes:
        model: The model's name.
        version: The version.
        digest: Digest of its files.
        pushed_at: When it was pushed.
        pushed_by: By whom.
        run: The run that pushed it; empty where none did.
        pipeline: The run's pipeline.
        code: The run's code, as its runner wrote it: commit, libraries and so on.
        datasets: The dataset versions, and so the records, that the run used.
        nodes: The events of the run's nodes that finished, with their inputs and outputs.
    """

    model: str
    version: int
    digest: str
    pushed_at: str
    pushed_by: str
    run: str = ""
    pipeline: str = ""
    code: Mapping[str, object] = field(default_factory=dict)
    datasets: tuple[UsedDataset, ...] = ()
    nodes: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PushedModel:
    """A version of a model that was made from a dataset.

    Attributes:
        model: The model's name.
        version: The version.
        run: The run that pushed it; empty where none did.
        pushed_at: When.
        is_withdrawn: A roll-back took it back, and nothing brought it back since.
        is_removed: Its files are not kept any more.
    """

    model: str
    version: int
    run: str = ""
    pushed_at: str = ""
    is_withdrawn: bool = False
    is_removed: bool = False


@dataclass(frozen=True, kw_only=True)
class Made:
    """What was made from a version of a dataset.

    Attributes:
        dataset: The version, `NAME@vN`.
        runs: Ids of the runs that used it, sorted.
        models: The versions of models that these runs pushed, or that were pushed with its name.
    """

    dataset: str
    runs: tuple[str, ...]
    models: tuple[PushedModel, ...]


def origin(ledger: ModelLedger, model: str, version: int) -> Origin:
    """Return which records, code and run made a version of a model.

    Reads the model's stream and the run's.

    Raises:
        ModelVersionNotFoundError: No such version was pushed.
        LedgerAccessError: The ledger cannot be read.
    """
    pushes = [event for event in ledger.events(model) if event["event"] == PUSH]
    push = next((event for event in reversed(pushes) if event["version"] == version), None)
    if push is None:
        known = sorted({int(str(event["version"])) for event in pushes})
        raise ModelVersionNotFoundError(model, str(version), known)
    run = _text(push, "run")
    happened = ledger.ledger.events(events.run_stream(run)) if run else []
    started = next((event for event in happened if event.kind == events.RUN_STARTED), None)
    code = started.get("code") if started else None
    used = {dataset.dataset: dataset for dataset in _used(happened)}
    if (named := _text(push, "dataset")) and named not in used:
        used = {named: UsedDataset(dataset=named), **used}
    return Origin(
        model=model,
        version=version,
        digest=_text(push, "digest"),
        pushed_at=_text(push, "at"),
        pushed_by=_text(push, "by"),
        run=run,
        pipeline=str(started.get("pipeline", "")) if started else "",
        code=code if isinstance(code, Mapping) else {},
        datasets=tuple(used.values()),
        nodes=tuple(event for event in happened if event.kind == events.NODE_FINISHED),
    )


def made_from(ledger: ModelLedger, dataset: str) -> Made:
    """Return what was made from a version of a dataset (`NAME@vN`).

    Reads the index of the runs, and the streams of the models.

    Raises:
        LedgerAccessError: The ledger cannot be read.
    """
    runs = {
        stream.partition("/")[2]
        for stream, happened in ledger.ledger.overview("runs", containing=dataset).items()
        if any(used.dataset == dataset for used in _used(happened))
    }
    models = []
    for model, happened_to_it in ledger.all_events().items():
        history = History.of(happened_to_it)
        pushes = {int(str(event["version"])): event for event in happened_to_it if event["event"] == PUSH}
        models += [
            PushedModel(
                model=model,
                version=version,
                run=_text(push, "run"),
                pushed_at=_text(push, "at"),
                is_withdrawn=version in history.withdrawn,
                is_removed=version in history.removed,
            )
            for version, push in sorted(pushes.items())
            if _text(push, "dataset") == dataset or _text(push, "run") in runs
        ]
    return Made(dataset=dataset, runs=tuple(sorted(runs)), models=tuple(models))


def _used(happened: Sequence[Event]) -> list[UsedDataset]:
    return [
        UsedDataset(dataset=dataset, digest=str(event.get("digest", "")))
        for event in happened
        if event.kind == events.DATASET_USED and isinstance(dataset := event.get("dataset"), str)
    ]


def _text(event: ModelEvent, fact: str) -> str:
    found = event.get(fact, "")
    return found if isinstance(found, str) else ""
