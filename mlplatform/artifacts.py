"""The artifact types that TFX has no standard type for."""

import html
import json

from tfx.dsl.io import fileio
from tfx.types.artifact import Artifact, Property, PropertyType

_SHOWN = 20  # rejects in a notebook


class DatasetVersion(Artifact):
    """An immutable version of a dataset in the store: `version.json` at its URI names it."""

    TYPE_NAME = "DatasetVersion"
    PROPERTIES = {  # noqa: RUF012 - TFX reads the class attribute
        "dataset": Property(type=PropertyType.STRING),
        "version": Property(type=PropertyType.STRING),
        "digest": Property(type=PropertyType.STRING),
    }


class DataVerdict(Artifact):
    """What the data gate decided and why: `verdict.json` and `report.html` at its URI."""

    TYPE_NAME = "DataVerdict"
    PROPERTIES = {"accepted": Property(type=PropertyType.INT)}  # noqa: RUF012 - TFX reads the class attribute


class RejectedRecords(Artifact):
    """Records left out of a dataset: `rejects.jsonl` (file, reason) and `summary.json` at its URI."""

    TYPE_NAME = "RejectedRecords"
    PROPERTIES = {"count": Property(type=PropertyType.INT)}  # noqa: RUF012 - TFX reads the class attribute

    def _repr_html_(self) -> str:
        """Return the counts and the first rejects as HTML, for notebooks."""
        lines = _read(self.uri, "rejects.jsonl").splitlines()
        summary = json.loads(_read(self.uri, "summary.json") or "{}")
        accepted = sum(summary.get("accepted", {}).values())
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary.get("rejected", {}).items())
        head = f"{accepted:,} accepted, {len(lines):,} rejected{f' ({reasons})' if reasons else ''}"
        names = ("path", "reason", "detail", "item_id", "label")
        rows = [[str(json.loads(line).get(name, "")) for name in names] for line in lines[:_SHOWN]]
        table = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
            for row in [[*names], *rows]
        )
        more = f"<p>and {len(lines) - _SHOWN:,} more</p>" if len(lines) > _SHOWN else ""
        return f"<p>{html.escape(head)}</p>" + (f"<table>{table}</table>{more}" if rows else "")


def _read(uri: str, name: str) -> str:
    file = f"{uri}/{name}"
    if not fileio.exists(file):
        return ""
    with fileio.open(file, "rb") as stream:
        return bytes(stream.read()).decode()
