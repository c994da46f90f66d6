"""Artifacts of earlier runs, found in the ledger: the latest ones, blessed or pushed models, spans.

What is found depends on the ledger alone, so it is the same on every machine and under every runner, and
needs no ML Metadata. Only artifacts of runs of one pipeline are looked at, as TFX's Resolver does it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mlplatform.registry import events
from mlplatform.registry.event import Event
from mlplatform.registry.history import History
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.model_events import PUSH, model_events
from mlplatform.storage.urls import is_local

MODEL, BLESSING, PUSHED = "Model", "ModelBlessing", "PushedModel"
SPAN, VERSION = "span", "version"
_IS_BLESSED, _MODEL_URI = "blessed", "current_model"  # what TFX's Evaluator writes
_RESOLVER = "Resolver"  # a node of this type gives again what others made
_MADE = "done"  # the state of a node that made its outputs; a cached one gives again those of an earlier run


@dataclass(frozen=True)
class PastArtifact:
    """An artifact that a node of an earlier run gave.

    Attributes:
        type: Name of its type, such as `Model`.
        uri: Where it lies.
        properties: Those of its type and all others, as JSON can hold them.
        run: Id of the run.
        node: Id of the node in the pipeline.
        key: The node's name for it.
        id: Its id in the runner's metadata, where the ledger has it.
    """

    type: str
    uri: str
    properties: Mapping[str, object] = field(default_factory=dict)
    run: str = ""
    node: str = ""
    key: str = ""
    id: str = ""


@dataclass(frozen=True)
class Wanted:
    """Which artifacts are looked for.

    Attributes:
        type: Name of their type.
        node: Id of the node that gave them; empty for any.
        key: That node's name for them; empty for any.
    """

    type: str
    node: str = ""
    key: str = ""

    def matches(self, artifact: PastArtifact) -> bool:
        """Return whether an artifact is one of them."""
        return (
            artifact.type == self.type and self.node in ("", artifact.node) and self.key in ("", artifact.key)
        )


class PastRuns:
    """The runs of a pipeline as a ledger has them, newest first.

    Args:
        ledger: The ledger of the root.
        pipeline: The pipeline's name.
        without: Id of a run that is left out: the one that asks.
        only_urls: Leave out artifacts on the disk of whichever machine made them.
    """

    def __init__(self, ledger: Ledger, pipeline: str, without: str = "", *, only_urls: bool = False) -> None:
        self._ledger, self._pipeline, self._without = ledger, pipeline, without
        self._only_urls = only_urls

    def latest(self, wanted: Wanted, count: int = 1) -> list[PastArtifact]:
        """Return the newest artifacts, the newest first; fewer than `count` where there are fewer."""
        found: list[PastArtifact] = []
        for artifact in self._artifacts(wanted):
            found.append(artifact)
            if len(found) == count:
                break
        return found

    def latest_blessed_model(self) -> tuple[PastArtifact, PastArtifact] | None:
        """Return the model that was blessed last, and its blessing; None where there is none."""
        for blessing in self._artifacts(Wanted(BLESSING)):
            uri = blessing.properties.get(_MODEL_URI)
            if blessing.properties.get(_IS_BLESSED) != 1 or not isinstance(uri, str):
                continue
            models = (model for model in self._artifacts(Wanted(MODEL)) if model.uri == uri)
            return next(models, PastArtifact(MODEL, uri)), blessing
        return None

    def latest_pushed_model(self) -> PastArtifact | None:
        """Return the model that was pushed last and not rolled back since; None where there is none."""
        rolled_back = self._rolled_back()
        for nodes in self._finished():
            for event in reversed(nodes):
                pushed = [a for a in _artifacts_of(event, "outputs") if a.type == PUSHED]
                models = [a for a in _artifacts_of(event, "inputs") if a.type == MODEL]
                if pushed and models and event.run not in rolled_back:
                    return next(
                        (m for m in self._artifacts(Wanted(MODEL)) if m.uri == models[0].uri), models[0]
                    )
        return None

    def spans(
        self, wanted: Wanted, is_in_range: Callable[[int, int], bool], also: Iterable[PastArtifact] = ()
    ) -> list[PastArtifact]:
        """Return the artifacts of a range of spans, the highest span first.

        A span that was ingested again counts once: its highest version, of several such the newest artifact.

        Args:
            wanted: Which artifacts.
            is_in_range: Takes a span and the highest span that there is.
            also: Artifacts of this run, newer than those of the ledger.
        """
        newest: dict[int, PastArtifact] = {}
        for artifact in (*also, *self._artifacts(wanted)):
            span = whole(_property(artifact, SPAN))
            if span is None:
                continue
            known = newest.get(span)
            if known is None or _version(artifact) > _version(known):
                newest[span] = artifact
        highest = max(newest, default=-1)
        return [newest[span] for span in sorted(newest, reverse=True) if is_in_range(span, highest)]

    def _artifacts(self, wanted: Wanted) -> Iterator[PastArtifact]:
        """Yield each artifact once, the newest first."""
        seen = set()
        for nodes in self._finished():
            for event in reversed(nodes):
                for artifact in _artifacts_of(event, "outputs"):
                    if self._only_urls and is_local(artifact.uri):
                        continue
                    if wanted.matches(artifact) and artifact.uri not in seen:
                        seen.add(artifact.uri)
                        yield artifact

    def _finished(self) -> Iterator[list[Event]]:
        """Yield, of each run, the events of the nodes that made something."""
        started: list[tuple[str, str]] = []
        for stream, found in self._ledger.overview("runs").items():
            first = next((event for event in found if event.kind == events.RUN_STARTED), None)
            if first is not None and first.get("pipeline") == self._pipeline:
                started.append((first.at, stream))
        for _, stream in sorted(started, reverse=True):
            if stream != events.run_stream(self._without):
                yield [
                    event
                    for event in self._ledger.events(stream)
                    if event.kind == events.NODE_FINISHED
                    and event.get("state") == _MADE
                    and event.get("type") != _RESOLVER
                ]

    def _rolled_back(self) -> set[str]:
        """Return the ids of the runs whose pushed models were rolled back."""
        runs: set[str] = set()
        for written in self._ledger.overview("models").values():
            happened = list(model_events(written))
            withdrawn = History.of(happened).withdrawn
            runs |= {str(e["run"]) for e in happened if e["event"] == PUSH and e["version"] in withdrawn}
        return runs


def whole(value: object) -> int | None:
    """Return a whole number as the ledgers and ML Metadata hold it, also as text; None for anything else."""
    try:
        return int(value) if isinstance(value, (int, float, str)) and value != "" else None
    except ValueError:
        return None


def _version(artifact: PastArtifact) -> int:
    return whole(_property(artifact, VERSION)) or 0


def _property(artifact: PastArtifact, name: str) -> object:
    """Return a property; an ExampleGen's are beside those of the type, which Kubeflow marks by a prefix."""
    return artifact.properties.get(f"custom:{name}", artifact.properties.get(name))


def _artifacts_of(event: Event, side: str) -> list[PastArtifact]:
    """Return what a node took or gave, as far as the ledger says it well."""
    given = event.get(side)
    found = []
    for each in given if isinstance(given, Sequence) and not isinstance(given, str) else ():
        if isinstance(each, Mapping) and isinstance(each.get("uri"), str) and each.get("uri"):
            properties = each.get("properties")
            found.append(
                PastArtifact(
                    type=str(each.get("type", "")),
                    uri=each["uri"],
                    properties=properties if isinstance(properties, Mapping) else {},
                    run=event.run,
                    node=str(event.get("node", "")),
                    key=str(each.get("key", "")),
                    id=str(each.get("id", "")),
                )
            )
    return found
