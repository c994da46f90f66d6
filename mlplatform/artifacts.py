"""The artifact types that TFX has no standard type for.

Their names are import paths (`mlplatform.DatasetVersion`) and they declare no properties of their own: then
TFX's compiler for Kubeflow takes them, too. What an artifact says of itself lies in a file at its URI; its
custom properties only repeat it, for those who list artifacts.
"""

import html
import json
from typing import Any

from tfx.dsl.io import fileio
from tfx.types.artifact import Artifact

_SHOWN = 20  # rejects in a notebook


class DatasetVersion(Artifact):
    """An immutable version of a dataset in the store: `version.json` at its URI names it."""

    TYPE_NAME = "mlplatform.DatasetVersion"

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return str(_facts(self.uri, "version.json").get("dataset", ""))

    @property
    def version(self) -> str:
        """The version's name, such as `v3`."""
        return str(_facts(self.uri, "version.json").get("version", ""))

    @property
    def digest(self) -> str:
        """The version's digest."""
        return str(_facts(self.uri, "version.json").get("digest", ""))


class DataVerdict(Artifact):
    """What the data gate decided and why: `verdict.json` and `report.html` at its URI."""

    TYPE_NAME = "mlplatform.DataVerdict"

    @property
    def accepted(self) -> bool:
        """The decision."""
        return bool(_facts(self.uri, "verdict.json").get("accepted", False))


class EmbeddingIndex(Artifact):
    """An index of embeddings: `manifest.json` at its URI says of what, of which kind, and how good."""

    TYPE_NAME = "mlplatform.EmbeddingIndex"

    @property
    def items(self) -> int:
        """How many item ids it holds."""
        return int(_facts(self.uri, "manifest.json").get("entries", 0))

    @property
    def kind(self) -> str:
        """`exact`, `ivf` or `pq`."""
        return str(_facts(self.uri, "manifest.json").get("kind", ""))

    @property
    def embedding_fingerprint(self) -> str:
        """The embedding that its vectors are of."""
        return str(_facts(self.uri, "manifest.json").get("fingerprint", ""))

    @property
    def report(self) -> dict[str, Any]:
        """What was measured of it."""
        return dict(_facts(self.uri, "manifest.json").get("report", {}))


class RejectedRecords(Artifact):
    """Records left out of a dataset: `rejects.jsonl` (file, reason) and `summary.json` at its URI."""

    TYPE_NAME = "mlplatform.RejectedRecords"

    @property
    def count(self) -> int:
        """How many records were left out."""
        return sum(_facts(self.uri, "summary.json").get("rejected", {}).values())

    def _repr_html_(self) -> str:
        """Return the counts and the first rejects as HTML, for notebooks."""
        lines = _read(self.uri, "rejects.jsonl").splitlines()
        summary = _facts(self.uri, "summary.json")
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


def _facts(uri: str, name: str) -> dict[str, Any]:
    return dict(json.loads(_read(uri, name) or "{}"))


def _read(uri: str, name: str) -> str:
    file = f"{uri}/{name}"
    if not fileio.exists(file):
        return ""
    with fileio.open(file, "rb") as stream:
        return bytes(stream.read()).decode()
