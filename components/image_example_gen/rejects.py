"""What was rejected and why: the `rejects` artifact, and the refusal of a run."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import apache_beam as beam
from tfx.dsl.io import fileio

from mlplatform.beam.accounting import Counts, check_all_left
from mlplatform.components.image_example_gen.entries import UNLABELLED, Reject
from mlplatform.components.image_example_gen.errors import SplitsError, TooManyRejectsError
from mlplatform.reports.kept import keep_report
from mlplatform.reports.page import write_page
from mlplatform.storage.urls import join

REJECTS, WARNINGS, SUMMARY = "rejects.jsonl", "warnings.jsonl", "summary.json"
REPORT, VERDICT = "report.html", "verdict.json"
_SHOWN = 500  # rejects on the page
ENTRIES, ACCEPTED, TURNED = "entries", "accepted/", "turned"


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
        turned: How many accepted photos have an EXIF orientation other than upright.
    """

    entries: int
    accepted: dict[str, int]
    rejected: dict[str, int]
    warnings: dict[str, int]
    turned: int

    @property
    def rejects(self) -> int:
        """How many entries were rejected."""
        return sum(self.rejected.values())


def summarise(counts: Counts, splits: Sequence[str], folder: str) -> Summary:
    """Balance the counts of the pipeline with what it wrote.

    Args:
        counts: `entries` of the source, and `accepted/<split>` per split, the records of the written files.
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
        turned=counts.get(TURNED, 0),
    )
    check_all_left("image ingest", summary.entries, sum(summary.accepted.values()) + summary.rejects)
    return summary


def check_summary(
    summary: Summary, rejects: Sequence[Reject], allowed: float, source: str, page: str
) -> None:
    """Let a good ingest pass.

    Args:
        summary: What it did, with at least one entry.
        rejects: What it rejected.
        allowed: Share of the entries that may be rejected.
        source: What was ingested, for errors.
        page: Where all rejects are listed, for errors; empty where they are not kept.

    Raises:
        TooManyRejectsError: More entries were rejected than allowed, or all of them.
        SplitsError: A split got no Example.
    """
    accepted = sum(summary.accepted.values())
    if is_too_much(summary, allowed):
        examples = [
            f"{r.path or r.detail}: {r.reason}" + (f" ({r.detail})" if r.path else "") for r in rejects
        ]
        raise TooManyRejectsError(
            summary.rejects, summary.entries, allowed, summary.rejected, _varied(rejects, examples), page
        )
    empty = [split for split, count in summary.accepted.items() if not count]
    if empty:
        raise SplitsError(
            f"split {empty[0]!r} gets none of the {accepted} photos in {source}",
            "Give more photos, or other weights for the splits.",
        )


def is_too_much(summary: Summary, allowed: float) -> bool:
    """Say whether more was rejected than the share that is allowed, or all."""
    left_out = summary.rejected.get(UNLABELLED, 0)
    faults, entries = summary.rejects - left_out, summary.entries - left_out
    return faults > allowed * entries or not sum(summary.accepted.values())


def one_line(summary: Summary, page: str) -> str:
    """Return one line: what was accepted, turned upright, rejected and looks odd."""
    accepted = sum(summary.accepted.values())
    parts = [f"{accepted:,} accepted"]
    if summary.turned:
        parts.append(f"{summary.turned:,} of them turned upright (EXIF orientation)")
    for count, what, reasons in (
        (summary.rejects, "rejected", summary.rejected),
        (sum(summary.warnings.values()), "accepted with a warning", summary.warnings),
    ):
        if count:
            ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"{reason} {number:,}" for reason, number in ranked[:4])
            parts.append(f"{count:,} {what} ({shown}{', ...' if len(ranked) > 4 else ''})")
    return ", ".join(parts) + (f": {page}" if page else "")


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


def keep_page(
    summary: Summary,
    rejects: Sequence[Reject],
    warnings: Sequence[Reject],
    allowed: float,
    source: str,
    reports_dir: str,
    run: str = "",
) -> str:
    """Leave verdict, rejects and their page where they outlive the run; return the page.

    Args:
        summary: What the ingest did.
        rejects: What it rejected.
        warnings: What it accepted and looks odd.
        allowed: Share of the entries that may be rejected.
        source: What was ingested.
        reports_dir: Folder of all reports.
        run: Id of the run, for the list of reports; empty where it is not known.
    """
    is_accepted = not is_too_much(summary, allowed)

    def write(folder: Path) -> None:
        verdict = {"accepted": is_accepted, "summary": asdict(summary)}
        (folder / VERDICT).write_text(json.dumps(verdict, indent=2), "utf-8")
        for name, some in ((REJECTS, rejects), (WARNINGS, warnings)):
            (folder / name).write_text("".join(json.dumps(asdict(one)) + "\n" for one in some), "utf-8")
        write_page(
            folder / REPORT,
            "data_rejects.html",
            is_accepted=is_accepted,
            summary=summary,
            allowed=allowed,
            source=source,
            tables=[("Rejected", REJECTS, rejects), ("Accepted with a warning", WARNINGS, warnings)],
            shown=_SHOWN,
        )

    return join(keep_report(reports_dir, "ImageExampleGen", write, run=run), REPORT)
