"""What the model gate decided."""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlplatform.components.model_validator.errors import ModelRejectedError

REPORT_FILE, VERDICT_FILE = "report.html", "verdict.json"
_FIGURE_KEYS = {"value", "low", "high"}


@dataclass(frozen=True)
class ModelVerdict:
    """What was decided; shown as a table in a notebook.

    Attributes:
        quality_reasons: Why the model is not good enough; empty where it is.
        serving_reasons: Why it is not safe to serve; empty where it is.
        report: The kept HTML page, of rejected models too; None where there is no reports folder.
        notes: What else is worth knowing, such as a pushed model that does not load.
        facts: All that was found, as in `metrics.json`.
        waived: What would be a reason if nobody had waived it; with who did is it among the notes.
        waivers: The waivers that counted, as JSON holds them; `is_used`: it let something through.
    """

    quality_reasons: tuple[str, ...]
    serving_reasons: tuple[str, ...]
    report: str | None
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    waived: tuple[str, ...] = ()
    waivers: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, facts: Mapping[str, Any], report: str | None) -> "ModelVerdict":
        """Return the verdict that `facts` (as in `metrics.json`) hold."""
        return cls(
            tuple(facts["quality_reasons"]),
            tuple(facts["serving_reasons"]),
            report,
            tuple(facts["notes"]),
            facts,
            tuple(each["reason"] for each in facts.get("waived", ())),
            tuple(facts.get("waivers", ())),
        )

    @property
    def reasons(self) -> tuple[str, ...]:
        """All reasons to reject the model."""
        return self.quality_reasons + self.serving_reasons

    def raise_if_rejected(self) -> None:
        """Raise `ModelRejectedError` where there is a reason."""
        if self.reasons:
            raise ModelRejectedError(self.reasons, str(self.report or ""))

    def _repr_html_(self) -> str:
        rows = [("verdict", "rejected" if self.reasons else "accepted")]
        quality, baseline = self.facts.get("quality") or {}, self.facts.get("baseline") or {}
        for name, figure in quality.items():
            if isinstance(figure, dict) and figure.keys() == _FIGURE_KEYS and figure["value"] is not None:
                rows.append((name.replace("_", " "), _in_words(figure, baseline.get(name))))
        rows += [("rejected, as", reason) for reason in self.reasons]
        rows += [("note", note) for note in self.notes]
        rows += [("report", str(self.report))] if self.report else []
        body = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in rows
        )
        title = html.escape(str(self.facts.get("title", "model")))
        return f"<table><caption>{title}</caption>{body}</table>"


def _in_words(figure: Mapping[str, float | None], old: float | None) -> str:
    low, high = figure.get("low"), figure.get("high")
    interval = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
    beside = "" if old is None else f"; pushed model {old:.4f}"
    return f"{figure['value']:.4f}{interval}{beside}"


def load_verdict(folder: Path) -> ModelVerdict:
    """Read a verdict that was kept, such as that of a rejected model: `Path(error.report).parent`.

    Args:
        folder: A folder below `reports_dir` that ModelValidator wrote.

    Raises:
        FileNotFoundError: There is no verdict in it.
    """
    facts = json.loads((folder / VERDICT_FILE).read_text("utf-8"))
    return ModelVerdict.of(facts, str(folder / REPORT_FILE))
