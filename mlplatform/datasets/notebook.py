"""What notebooks show of stores, versions and differences: plain tables."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.datasets.diff import VersionDiff
    from mlplatform.datasets.format.manifest import Manifest

_SHOWN = 50  # rows of a table


def versions_table(title: str, manifests: Sequence["Manifest"]) -> str:
    """Return a table of versions, one a row, as HTML."""
    rows = [
        (
            manifest.dataset,
            manifest.version,
            ", ".join(f"{facts.records:,} {split}" for split, facts in manifest.splits.items()),
            f"+{manifest.added:,} -{manifest.removed:,}",
            manifest.created_at[:16].replace("T", " "),
            manifest.digest[:12],
            manifest.message,
        )
        for manifest in manifests
    ]
    columns = ("dataset", "version", "records", "change", "created", "digest", "message")
    return _table(title, columns, rows)


def difference_table(difference: "VersionDiff") -> str:
    """Return what changed, per split, as HTML."""
    title = f"{difference.new.dataset}: {difference.old.version} to {difference.new.version}"
    columns = list(next(iter(difference.by_split.values()), {}))
    rows = [
        (split, *(f"{counts[name]:,}" for name in columns)) for split, counts in difference.by_split.items()
    ]
    return _table(title, ("split", *(name.replace("_", " ") for name in columns)), rows)


def _table(title: str, columns: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows[:_SHOWN]
    )
    more = f"<p>and {len(rows) - _SHOWN:,} more</p>" if len(rows) > _SHOWN else ""
    return (
        f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>{more}"
    )
