"""What is known of a pushed version: its push, its data, its classes, and what its evaluation measured."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.format.manifest import Manifest
from mlplatform.demo.errors import WithdrawnVersionError
from mlplatform.errors import MlplatformError
from mlplatform.home import Home
from mlplatform.registry import ModelStore, ModelVersion, events
from mlplatform.registry.event import Event
from mlplatform.registry.ledger import Ledger
from mlplatform.storage import open_storage

LABELS_FILE = "assets/labels.txt"
_METRICS_FILE, _VERDICT_FILE, _SCHEMA_FILE = "metrics.json", "verdict.json", "schema.pbtxt"
_FEW = 20  # records, below which a class's figures say little
_WORST = 10


@dataclass(frozen=True)
class ClassFacts:
    """What an evaluation found of one class.

    Attributes:
        label: Its name.
        support: Its records.
        recall: Share of them that were answered with it.
        low: Lower end of the 95 % interval of the recall.
        high: Upper end.
        precision: Share of the records answered with it that were of it; None where there are none.
        mistaken_for: The class that its records are most often taken for; empty where none is.
    """

    label: str
    support: int
    recall: float | None
    low: float | None
    high: float | None
    precision: float | None
    mistaken_for: str = ""


@dataclass(frozen=True)
class Confusion:
    """Records of one class that were answered with another."""

    truth: str
    answer: str
    records: int


@dataclass(frozen=True)
class FigureFacts:
    """A figure of an evaluation with its 95 % interval, where it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What a model gate measured of a version, as it wrote it.

    Attributes:
        facts: The content of its `metrics.json`.
    """

    facts: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """`classification`, `regression` and so on."""
        return str(self.facts.get("kind", ""))

    @property
    def label(self) -> str:
        """The feature that holds the truth."""
        return str(self.facts.get("label", ""))

    @property
    def made_at(self) -> str:
        """When it was made, ISO 8601, UTC."""
        return str(self.facts.get("made_at", ""))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it was made on."""
        return tuple(map(str, _list(self.facts.get("splits"))))

    @property
    def records(self) -> int:
        """How many records it was made on."""
        found = self._quality.get("records")
        return found if isinstance(found, int) else 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What the gate noted."""
        return tuple(map(str, _list(self.facts.get("notes"))))

    @cached_property
    def figures(self) -> tuple[FigureFacts, ...]:
        """Its figures; what was not measured is left out."""
        found = []
        for name, value in self._quality.items():
            if isinstance(value, dict) and "value" in value and _number(value["value"]) is not None:
                found.append(
                    FigureFacts(
                        str(name), value["value"], _number(value.get("low")), _number(value.get("high"))
                    )
                )
        return tuple(found)

    @cached_property
    def classes(self) -> Mapping[str, ClassFacts]:
        """What was found of each class, the worst first."""
        found = {}
        for row in _list(self._quality.get("classes")):
            if not isinstance(row, dict) or not isinstance(row.get("recall"), dict):
                continue
            label, recall = str(row.get("label", "")), row["recall"]
            found[label] = ClassFacts(
                label,
                row["support"] if isinstance(row.get("support"), int) else 0,
                _number(recall.get("value")),
                _number(recall.get("low")),
                _number(recall.get("high")),
                _number(row.get("precision")),
                str(row.get("mistaken_for", "")),
            )
        return found

    @cached_property
    def confusions(self) -> tuple[Confusion, ...]:
        """Its most frequent confusions, the most frequent first."""
        return tuple(
            Confusion(str(row.get("truth", "")), str(row.get("answer", "")), row["records"])
            for row in _list(self._quality.get("confused_pairs"))
            if isinstance(row, dict) and isinstance(row.get("records"), int)
        )

    @property
    def worst(self) -> list[ClassFacts]:
        """The classes with records that it answers worst."""
        return [one for one in self.classes.values() if one.support and (one.recall or 0) < 1][:_WORST]

    @property
    def thin(self) -> list[ClassFacts]:
        """The classes with so few records that their figures say little, the fewest first."""
        found = [one for one in self.classes.values() if 0 < one.support < _FEW]
        return sorted(found, key=lambda one: (one.support, one.label))

    @property
    def without_records(self) -> list[str]:
        """Classes that the model can answer and no record was of."""
        return [str(name) for name in _list(self._quality.get("without_records"))]

    @property
    def _quality(self) -> Mapping[str, Any]:
        found = self.facts.get("quality")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a pushed version.

    Attributes:
        home: The root that it lies below.
        model: The model's name.
        version: The version.
        found: The version as it lies in the store.
        classes: Names of its classes in the order of its scores; empty where it carries none.
        evaluation: What its gate measured; None where nothing is recorded of one.
        data: The dataset version that it was trained on; None where that is not known, or not there.
        schemas: Folders of schemas that its run used, the latest last.
        others: The other versions that serve, the newest first, each with its labels.
    """

    home: Home
    model: str
    version: int
    found: ModelVersion
    classes: tuple[str, ...] = ()
    evaluation: Evaluation | None = None
    data: Manifest | None = None
    schemas: tuple[str, ...] = ()
    others: tuple[tuple[int, tuple[str, ...]], ...] = field(default=())

    @property
    def name(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"

    @property
    def dataset(self) -> str:
        """The dataset version that it was trained on, as its push has it; empty where it has none."""
        return self.found.push.dataset if self.found.push else ""

    @property
    def truth(self) -> str:
        """The feature that holds the truth of a record; empty where it is not known."""
        if self.evaluation and self.evaluation.label:
            return self.evaluation.label
        return self.data.label if self.data else ""

    def accuracy(self, label: str) -> ClassFacts | None:
        """Return what was found of a class; None where nothing was."""
        return self.evaluation.classes.get(label) if self.evaluation else None

    def confused_with(self, label: str) -> list[Confusion]:
        """Return the frequent confusions of records of a class, or answered with it."""
        if not self.evaluation:
            return []
        return [one for one in self.evaluation.confusions if label in (one.truth, one.answer)][:5]

    def limits(self) -> list[str]:
        """Return what the model cannot do, one sentence each."""
        said = []
        if self.classes:
            said.append(
                f"It knows {len(self.classes):,} classes and nothing else: whatever it is shown is answered "
                "with one of them."
            )
        if self.evaluation is None:
            return [*said, "No evaluation of this version is recorded: nothing is known of how good it is."]
        found = self.evaluation
        if found.classes and found.worst:
            worst = found.worst[0]
            others = f", the others mostly as {worst.mistaken_for}" if worst.mistaken_for else ""
            said.append(
                f"Its worst class is {worst.label}: {_percent(worst.recall)} of {worst.support:,} records "
                f"are answered right{others}."
            )
        if found.thin:
            said.append(
                f"Of {len(found.thin):,} classes there were fewer than {_FEW} records to judge it by: their "
                "figures say little."
            )
        if found.without_records:
            named = ", ".join(found.without_records[:10])
            more = max(len(found.without_records) - 10, 0)
            named += f" and {more:,} more" if more else ""
            said.append(f"Nothing is known of {named}: no record was of them.")
        figures = {figure.name: figure for figure in found.figures}
        if "mae" in figures:
            worst_error = f", at worst by {figures['max_error'].value:.4g}" if "max_error" in figures else ""
            said.append(f"It is off by {figures['mae'].value:.4g} on average{worst_error}.")
        return [*said, *found.notes]


def read_facts(home: Home, reference: str) -> ModelFacts:
    """Return what is known of a version.

    Args:
        home: The root.
        reference: NAME, or NAME@VERSION; a version is a number, a label or `latest` (the default).

    Raises:
        ModelNotFoundError: There is no such model.
        ModelVersionNotFoundError: It has no such version.
        WithdrawnVersionError: It was rolled back.
    """
    model, _, wanted = reference.partition("@")
    store = ModelStore(home.models)
    found = store.version(model, wanted or "latest")
    if found.is_withdrawn:
        raise WithdrawnVersionError(model, found.version)
    happened = _happened(home, found)
    others = [one for one in store.versions(model) if not one.is_withdrawn and one.version != found.version]
    return ModelFacts(
        home,
        model,
        found.version,
        found,
        _classes(found),
        _evaluation(home, found, happened),
        _data(home, found),
        tuple(_uris(happened, "Schema")),
        tuple((one.version, one.labels) for one in reversed(others)),
    )


def read_schema(facts: ModelFacts) -> bytes:
    """Return the latest schema, in text form, that the run of a version used; empty where none is there."""
    for uri in reversed(facts.schemas):
        with suppress(OSError, MlplatformError):
            return open_storage(uri).read(_SCHEMA_FILE)
    return b""


def _classes(found: ModelVersion) -> tuple[str, ...]:
    try:
        text = open_storage(found.url).read(LABELS_FILE).decode("utf-8", "replace")
    except FileNotFoundError:
        return ()
    return tuple(text.splitlines())


def _happened(home: Home, found: ModelVersion) -> list[Event]:
    """Return the events of the run that pushed a version, and of those whose results it reused."""
    if not found.push or not found.push.run:
        return []
    ledger = Ledger(home.ledger)
    happened = list(ledger.events(events.run_stream(found.push.run)))
    earlier = {
        str(made_in)
        for event in happened
        if event.kind == events.NODE_FINISHED and (made_in := event.get("made_in"))
    }
    for run in sorted(earlier - {found.push.run}):
        happened += ledger.events(events.run_stream(run))
    return happened


def _uris(happened: Sequence[Event], kind: str) -> Iterator[str]:
    for event in happened:
        if event.kind != events.NODE_FINISHED:
            continue
        for part in (event.get("inputs"), event.get("outputs")):
            for artifact in _list(part):
                if isinstance(artifact, dict) and artifact.get("type") == kind and artifact.get("uri"):
                    yield str(artifact["uri"])


def _evaluation(home: Home, found: ModelVersion, happened: Sequence[Event]) -> Evaluation | None:
    """Return the evaluation that the push's figures are of; where it has none, that of the pushed folder."""
    if not found.push:
        return None
    for facts in _evaluations(home, happened, found.push.run):
        evaluation = Evaluation(facts)
        measured = {figure.name: figure.value for figure in evaluation.figures}
        if found.push.metrics:
            shared = {name: value for name, value in found.push.metrics.items() if name in measured}
            if shared and all(measured[name] == value for name, value in shared.items()):
                return evaluation
        elif found.push.source and str(facts.get("model", "")) == found.push.source:
            return evaluation
    return None


def _evaluations(home: Home, happened: Sequence[Event], run: str) -> Iterator[dict[str, Any]]:
    """Yield what the gates of some runs wrote: beside their artifacts, or where reports are kept."""
    for uri in dict.fromkeys(_uris(happened, "ModelEvaluation")):
        yield from _read(uri, _METRICS_FILE)
    for one in dict.fromkeys([run, *(event.stream.partition("/")[2] for event in happened)]):
        with suppress(OSError, MlplatformError):
            for name in open_storage(home.reports).names(one) if one else ():
                if not name.endswith(".json"):
                    yield from _read(home.reports, f"{one}/{name}/{_VERDICT_FILE}")


def _read(url: str, path: str) -> Iterator[dict[str, Any]]:
    with suppress(OSError, ValueError, RecursionError, MlplatformError):
        facts = json.loads(open_storage(url).read(path))
        if isinstance(facts, dict) and isinstance(facts.get("quality"), dict):
            yield facts


def _data(home: Home, found: ModelVersion) -> Manifest | None:
    dataset, separator, version = (found.push.dataset if found.push else "").partition("@")
    if not separator:
        return None
    try:
        return DatasetStore(home.datasets).show(dataset, version)
    except (MlplatformError, OSError):  # of another store, or deleted since
        return None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.1f} %"
