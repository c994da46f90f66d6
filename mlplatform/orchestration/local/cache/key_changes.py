"""What differs between two cache keys, in words."""

import json
import re
from collections.abc import Iterable, Mapping

MAX_SHOWN_CHARS = 80
_DIGEST = re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{32,128}\b")


def changes_between(before: Mapping[str, str], now: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the parts that differ, as `part`, `before` and `now`; what is not there is empty."""
    return [
        {"part": name, "before": before.get(name, ""), "now": now.get(name, "")}
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def describe_changes(changes: Iterable[Mapping[str, str]]) -> str:
    """Return the changes in one line, the most telling first."""
    order = ("uncertain", "code", "parameter", "input", "variable", "library")
    ranked = sorted(
        changes, key=lambda c: next((i for i, w in enumerate(order) if c["part"].startswith(w)), 9)
    )
    texts = [describe_change(change) for change in ranked]
    more = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
    return "; ".join(texts[:2]) + more


def describe_change(change: Mapping[str, str]) -> str:
    """Return one change in words."""
    kind, _, name = change["part"].partition(" ")
    before, now = change["before"], change["now"]
    if kind == "code":
        verb = "no longer used" if not now else "newly used" if not before else "edited"
        return f"code {verb}: {name}"
    if kind == "input":
        return f"input {name} has other content"
    if kind == "library":
        return f"library {name}: {shortened(before) or 'not there'} -> {shortened(now) or 'not there'}"
    if kind == "uncertain":
        return shortened(now) or "no key identified its last result"
    if kind == "variable":
        return f"environment variable {name} changed"
    if kind == "parameter" and is_digest(before) and is_digest(now):
        return f"the content that parameter {name} names changed"
    if kind == "parameter":
        return _describe_parameter(name, before, now)
    return f"{change['part']}: {shortened(before)} -> {shortened(now)}"


def is_digest(text: str) -> bool:
    """Say whether a value of a key is a digest, rather than the value itself."""
    return len(text) == 32 and not set(text) - set("0123456789abcdef")


def _value(text: str) -> str:
    return "the content of a file or folder" if is_digest(text) else shortened(text)


def _describe_parameter(name: str, before: str, now: str) -> str:
    """Return a change of a parameter in words; of JSON objects, what differs within them."""
    old, new = _flat(_parsed(before)), _flat(_parsed(now))
    if old is None or new is None:
        return f"parameter {name}: {_value(before)} -> {_value(now)}"
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    texts = [
        f"{key}: {shortened(str(old.get(key, 'none')))} -> {shortened(str(new.get(key, 'none')))}"
        for key in changed[:2]
    ]
    more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
    return f"parameter {name}: {', '.join(texts) or 'written otherwise'}{more}"


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _flat(value: object, name: str = "") -> dict[str, object] | None:
    """Return a JSON object as dotted names and values; None where it is none."""
    if not isinstance(value, dict):
        return None
    flat: dict[str, object] = {}
    for key, entry in value.items():
        path = f"{name}.{key}" if name else str(key)
        within = _flat(entry, path) if entry else None
        flat |= within if within is not None else {path: entry}
    return flat


def short(text: str) -> str:
    """Return a text on one line, with the first 8 digits of each digest."""
    return _DIGEST.sub(lambda found: f"{found[0][:8]}...", " ".join(text.split()))


def shortened(text: str) -> str:
    """Return `short`, cut where it is long."""
    text = short(text)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
