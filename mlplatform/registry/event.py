"""An event: one thing that happened, and what is to be written of one."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from mlplatform.machine import user_name

_OWN = ("id", "kind", "at", "by", "run")  # what every event has, beside the facts of its kind


@dataclass(frozen=True)
class Draft:
    """An event that is to be written.

    Attributes:
        kind: What happened, such as `model.pushed`; see `mlplatform.registry.events`.
        run: Id of the run that it belongs to; empty where there is none.
        facts: Everything else, as JSON can hold it.
    """

    kind: str
    run: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One thing that happened, as it was written; never changed.

    Attributes:
        stream: The stream that it belongs to, such as `models/item_category`.
        number: Its place in the stream, counted from 1.
        kind: What happened. Kinds that this release does not know are kept.
        at: When, ISO 8601, UTC.
        by: Account that wrote it.
        run: Id of the run that it belongs to; empty where there is none.
        facts: Everything else.
        id: What tells it from every other event.
    """

    stream: str
    number: int
    kind: str
    at: str
    by: str
    run: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    id: str = ""

    @classmethod
    def of(cls, stream: str, number: int, draft: Draft) -> "Event":
        """Return a draft as the event that happens now."""
        facts = {name: value for name, value in draft.facts.items() if name not in _OWN}
        at, by = str(draft.facts.get("at") or timestamp()), str(draft.facts.get("by") or user_name())
        return cls(stream, number, draft.kind, at, by, draft.run, facts, uuid.uuid4().hex)

    @classmethod
    def from_json(cls, stream: str, number: int, found: object) -> "Event | None":
        """Return the event that a parsed JSON document holds; None where it holds none."""
        if not isinstance(found, dict) or not found.get("kind"):
            return None
        own = [found.get(name, "") for name in _OWN]
        if not all(isinstance(value, str) for value in own):
            return None
        facts = {name: value for name, value in found.items() if name not in _OWN}
        event_id, kind, at, by, run = own
        return cls(stream, number, kind, at, by, run, facts, event_id)

    @classmethod
    def parsed(cls, stream: str, number: int, data: bytes) -> "Event | None":
        """Return the event that a file holds; None where it holds none."""
        try:
            return cls.from_json(stream, number, json.loads(data.decode("utf-8")))
        except (ValueError, RecursionError):
            return None

    def as_json(self) -> dict[str, object]:
        """Return the event as its file holds it."""
        return {**{name: getattr(self, name) for name in _OWN}, **self.facts}

    def get(self, fact: str, default: object = None) -> object:
        """Return one of its facts."""
        return self.facts.get(fact, default)


def timestamp() -> str:
    """Return the time now, ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
