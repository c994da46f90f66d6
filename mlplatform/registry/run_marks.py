"""What people add to a run afterwards: tags and notes, as events of its stream."""

import re
from collections.abc import Iterable, Sequence

from mlplatform.errors import UsageError
from mlplatform.registry.event import Draft, Event
from mlplatform.registry.events import RUN_NOTED, RUN_TAGGED, run_stream
from mlplatform.registry.ledger import Ledger

_TAG = re.compile(r"[\w][\w.=+-]{0,59}")


class BadTagError(UsageError):
    """A text cannot be a tag of a run."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag

    def __str__(self) -> str:
        return f"{self.tag!r} cannot be a tag: give 1 to 60 letters, digits and any of . = + - _, no blanks."


def tag_run(ledger: Ledger, run: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> list[str]:
    """Add tags to a run, and remove others; return those that it has afterwards.

    Raises:
        BadTagError: A text cannot be a tag.
        LedgerAccessError: The ledger cannot be written.
    """
    for tag in add:
        if not _TAG.fullmatch(tag):
            raise BadTagError(tag)
    stream = run_stream(run)

    def decision(happened: list[Event]) -> Draft | None:
        has = tags_of(happened)
        new, old = [t for t in add if t not in has], [t for t in remove if t in has]
        return Draft(RUN_TAGGED, run, {"added": new, "removed": old}) if new or old else None

    ledger.decide(stream, decision)
    return tags_of(ledger.events(stream))


def note_on_run(ledger: Ledger, run: str, note: str) -> Event:
    """Add a note to a run. Raises LedgerAccessError."""
    return ledger.append(run_stream(run), RUN_NOTED, note=note)


def tags_of(happened: Iterable[Event]) -> list[str]:
    """Return the tags that a run has, sorted."""
    tags: set[str] = set()
    for event in happened:
        if event.kind == RUN_TAGGED:
            tags |= set(_texts(event.get("added")))
            tags -= set(_texts(event.get("removed")))
    return sorted(tags)


def notes_of(happened: Iterable[Event]) -> list[Event]:
    """Return the notes on a run, oldest first."""
    return [event for event in happened if event.kind == RUN_NOTED and isinstance(event.get("note"), str)]


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
