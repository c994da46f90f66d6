"""The events of a model, as everything that reads them takes them: `event`, `version`, and the facts of each.

A ledger's own kinds have longer names (`model.pushed`); these are the ones that commands print, and that the
ledgers of release 0.1 held.
"""

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mlplatform.registry import events
from mlplatform.registry.event import Event

log = logging.getLogger(__name__)

CLAIM, PUSH, CONFIRM, PROMOTE, ROLLBACK, REMOVE = (
    *("claim", "push", "confirm", "promote", "rollback", "remove"),
)
KINDS = {
    CLAIM: events.MODEL_CLAIMED,
    PUSH: events.MODEL_PUSHED,
    CONFIRM: events.MODEL_CONFIRMED,
    PROMOTE: events.MODEL_PROMOTED,
    ROLLBACK: events.MODEL_ROLLED_BACK,
    REMOVE: events.MODEL_REMOVED,
}
_NAMES = {kind: name for name, kind in KINDS.items()}
MAX_VERSION = (1 << 63) - 1  # a model server's version numbers have 64 bits

ModelEvent = Mapping[str, object]


def model_events(written: Iterable[Event]) -> Iterator[dict[str, object]]:
    """Return what a model's stream holds, oldest first; an event that is not one of a model is skipped."""
    for event in written:
        if event.kind == events.MODEL_IMPORTED:
            lines = event.get("events")
            yield from (line for line in (lines if isinstance(lines, list) else ()) if is_model_event(line))
            continue
        found = {
            "event": _NAMES.get(event.kind, event.kind),
            "at": event.at,
            "by": event.by,
            "run": event.run,
            **event.facts,
        }
        if is_model_event(found):
            yield found
        elif event.kind in _NAMES:
            _report_damage(event.stream, event.number, event.kind)


def is_model_event(found: object) -> bool:
    """Return whether a parsed JSON document is an event of a model."""
    if not isinstance(found, dict):
        return False
    versions, labels = found.get("versions", []), found.get("labels", {})
    return (
        _is_version(found.get("version"))
        and isinstance(found.get("event"), str)
        and all(isinstance(found.get(fact, ""), str) for fact in ("at", "by", "why", "digest", "label"))
        and isinstance(versions, list)
        and all(map(_is_version, versions))
        and isinstance(labels, dict)
        and all(version is None or _is_version(version) for version in labels.values())
        and (found["event"] != PROMOTE or bool(found.get("label")))
        and (found["event"] != PUSH or bool(found.get("digest")))
    )


def _is_version(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_VERSION


def versions_of(event: ModelEvent) -> tuple[int, ...]:
    """Return the versions that an event is about."""
    found = event.get("versions") or [event["version"]]
    assert isinstance(found, list)
    return tuple(found)


def texts(value: object) -> Sequence[str] | None:
    """Return a list of texts as it was written; None where it is something else."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    return None


@functools.lru_cache(maxsize=1024)  # a server reads the ledger each second: once is enough
def _report_damage(stream: str, number: int, kind: str) -> None:
    log.warning("event %d of %s is damaged and skipped: a %s event lacks facts of it", number, stream, kind)
