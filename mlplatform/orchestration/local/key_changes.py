"""What differs between two cache keys, in words."""

from collections.abc import Iterable, Mapping

MAX_SHOWN_CHARS = 200


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
        return f"library {name}: {before or 'not there'} -> {now or 'not there'}"
    if kind == "uncertain":
        return now or "its last result could not be told from others"
    if kind == "variable":
        return f"environment variable {name} changed"
    if kind == "parameter" and is_digest(before) and is_digest(now):
        return f"the content that parameter {name} names changed"
    if kind == "parameter":
        return f"parameter {name}: {_value(before)} -> {_value(now)}"
    return f"{change['part']}: {_short(before)} -> {_short(now)}"


def is_digest(text: str) -> bool:
    """Say whether a value of a key is a digest, rather than the value itself."""
    return len(text) == 32 and not set(text) - set("0123456789abcdef")


def _value(text: str) -> str:
    return "the content of a file or folder" if is_digest(text) else _short(text)


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
