"""What was rejected and why: the `rejects` artifact, and the refusal of a run."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from tfx.dsl.io import fileio

from mlplatform.beam.accounting import Counts, check_all_left
from mlplatform.components.image_example_gen.entries import Reject
from mlplatform.components.image_example_gen.errors import NoEntriesError, SplitsError, TooManyRejectsError
from mlplatform.reports.page import write_page

REJECTS, WARNINGS, SUMMARY = "rejects.jsonl", "warnings.jsonl", "summary.json"
REPORT = "report.html"
_SHOWN = 500  # rejects on the page
ENTRIES, ACCEPTED, REJECTED = "entries", "accepted/", "rejected/"


class WriteRejects(beam.PTransform):
    """Writes rejects as JSON Lines, in the order of their paths."""

    def __init__(self, file: str) -> None:
        """Remember where to write.

        Args:
            file: Path or URL of the file; made also where there is nothing to write.
        """
        super().__init__()
        self._file = file

    def expand(self, rejects: beam.PCollection) -> beam.PCollection:
        """Write `rejects`. They are gathered on one worker: a set that passes has few."""
        return rejects | beam.combiners.ToList() | beam.Map(_write_lines, self._file)


@dataclass(frozen=True)
class Summary:
    """What an ingest did.

    Attributes:
        entries: What the source named.
        accepted: Per split, how many Examples were written.
        rejected: Per reason, how many entries were not.
        warnings: Per reason, how many accepted entries look odd.
    """

    entries: int
    accepted: dict[str, int]
    rejected: dict[str, int]
    warnings: dict[str, int]

    @property
    def rejects(self) -> int:
        """How many entries were rejected."""
        return sum(self.rejected.values())


def summarise(counts: Counts, splits: Sequence[str], folder: str) -> Summary:
    """Balance the counts of the pipeline with what it wrote.

    Args:
        counts: `entries`, and `accepted/<split>` per split, as the pipeline counted them.
        splits: All splits.
        folder: Where the pipeline wrote its rejects and warnings.

    Raises:
        RecordsLostError: in = out + rejects does not hold.
    """
    summary = Summary(
        entries=counts.get(ENTRIES, 0),
        accepted={split: counts.get(ACCEPTED + split, 0) for split in splits},
        rejected=_by_reason(read_rejects(f"{folder}/{REJECTS}")),
        warnings=_by_reason(read_rejects(f"{folder}/{WARNINGS}")),
    )
    check_all_left("image ingest", summary.entries, sum(summary.accepted.values()) + summary.rejects)
    return summary


def check_summary(
    summary: Summary,
    rejects: Sequence[Reject],
    allowed: float,
    source: str,
    looked_for: str,
    reports_dir: str | None,
) -> None:
    """Let a good ingest pass.

    Args:
        summary: What it did.
        rejects: What it rejected.
        allowed: Share of the entries that may be rejected.
        source: What was ingested, for errors.
        looked_for: What an entry looks like there.
        reports_dir: Where a refusal leaves its rejects.

    Raises:
        NoEntriesError: The source names nothing.
        TooManyRejectsError: More entries were rejected than allowed, or all of them.
        SplitsError: A split got no Example.
    """
    if not summary.entries:
        raise NoEntriesError(source, looked_for, "nothing")
    accepted = sum(summary.accepted.values())
    if summary.rejects > allowed * summary.entries or not accepted:
        examples = [
            f"{r.path or r.detail}: {r.reason}" + (f" ({r.detail})" if r.path else "") for r in rejects
        ]
        report = _keep(summary, rejects, allowed, source, reports_dir) if reports_dir else ""
        raise TooManyRejectsError(
            summary.rejects, summary.entries, allowed, summary.rejected, _varied(rejects, examples), report
        )
    empty = [split for split, count in summary.accepted.items() if not count]
    if empty:
        raise SplitsError(
            f"split {empty[0]!r} gets none of the {accepted} photos in {source}",
            "Give more photos, or other weights for the splits.",
        )


def read_rejects(file: str) -> list[Reject]:
    """Return what `WriteRejects` wrote."""
    with fileio.open(file, "rb") as stream:
        return [Reject(**json.loads(line)) for line in stream.read().splitlines()]


def write_summary(file: str, summary: Summary) -> None:
    """Write the summary as JSON."""
    with fileio.open(file, "w") as stream:
        stream.write(json.dumps(asdict(summary), indent=2))


def _write_lines(rejects: list[Reject], file: str) -> str:
    fileio.makedirs(file.rpartition("/")[0])
    ordered = sorted(rejects, key=lambda r: (r.path, r.detail))
    with fileio.open(file, "w") as stream:
        stream.write("".join(json.dumps(asdict(reject)) + "\n" for reject in ordered))
    return file


def _by_reason(rejects: Sequence[Reject]) -> dict[str, int]:
    return dict(sorted(Counter(reject.reason for reject in rejects).items()))


def _varied(rejects: Sequence[Reject], texts: list[str]) -> list[str]:
    """Order examples so that the first ones show different reasons."""
    seen: Counter[str] = Counter()
    ranked = []
    for reject, text in zip(rejects, texts, strict=True):
        ranked.append((seen[reject.reason], text))
        seen[reject.reason] += 1
    return [text for _, text in sorted(ranked, key=lambda pair: pair[0])[:20]]


def _keep(summary: Summary, rejects: Sequence[Reject], allowed: float, source: str, reports_dir: str) -> str:
    """Leave verdict, rejects and their page where they outlive the failed run; return the page."""
    name = f"ImageExampleGen-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000:06d}"
    folder = Path(reports_dir) / name
    partial = folder.with_name(f".{name}")
    partial.mkdir(parents=True)
    try:
        verdict: dict[str, Any] = {"accepted": False, "summary": asdict(summary)}
        (partial / "verdict.json").write_text(json.dumps(verdict, indent=2), "utf-8")
        lines = "".join(json.dumps(asdict(reject)) + "\n" for reject in rejects)
        (partial / REJECTS).write_text(lines, "utf-8")
        write_page(
            partial / REPORT,
            "data_rejects.html",
            rejected=summary.rejects,
            entries=summary.entries,
            allowed=allowed,
            source=source,
            reasons=summary.rejected,
            rejects=rejects[:_SHOWN],
        )
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(folder / REPORT)
