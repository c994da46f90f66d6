"""Why photos could not be ingested."""

from collections.abc import Mapping, Sequence

from mlplatform.errors import GateError, UsageError


class NoEntriesError(UsageError):
    """There is nothing to ingest."""

    def __init__(self, input_base: str, looked_for: str, found: str) -> None:
        super().__init__(input_base, looked_for, found)
        self.input_base, self.looked_for, self.found = input_base, looked_for, found

    def __str__(self) -> str:
        return (
            f"no photos in {self.input_base}: looked for {self.looked_for}, found {self.found}. Give a "
            "folder with one folder of photos per class, such folders below train/ and others, or a listing."
        )


class ListingError(UsageError):
    """A listing cannot be read, or lacks what it must have."""

    def __init__(self, listing: str, problem: str) -> None:
        super().__init__(listing, problem)
        self.listing, self.problem = listing, problem

    def __str__(self) -> str:
        return (
            f"listing {self.listing}: {self.problem}. A listing is a .csv (UTF-8, with a header line), "
            ".jsonl or .parquet file with the columns 'path' and 'label', and 'item_id' if items have ids."
        )


class SplitsError(UsageError):
    """The splits that were asked for cannot be made."""

    def __init__(self, problem: str, todo: str) -> None:
        super().__init__(problem, todo)
        self.problem, self.todo = problem, todo

    def __str__(self) -> str:
        return f"{self.problem}. {self.todo}"


class TooManyRejectsError(GateError):
    """More entries were rejected than the run allows.

    Attributes:
        rejected: How many entries were rejected.
        entries: How many there were.
        allowed: The share that may be rejected.
        reasons: How often each reason occurred.
        examples: Some rejected entries, each with its reason.
        report: Where all of them are listed; empty where no reports folder was given.
    """

    def __init__(
        self,
        rejected: int,
        entries: int,
        allowed: float,
        reasons: Mapping[str, int],
        examples: Sequence[str],
        report: str,
    ) -> None:
        super().__init__(rejected, entries, allowed, reasons, examples, report)
        self.rejected, self.entries, self.allowed = rejected, entries, allowed
        self.reasons, self.examples, self.report = reasons, examples, report

    def __str__(self) -> str:
        ranked = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        reasons = ", ".join(f"{reason} ({count})" for reason, count in ranked[:5])
        shown = "".join(f"\n  {example}" for example in self.examples[:5])
        everything = f"\nAll of them: {self.report}" if self.report else ""
        return (
            f"{self.rejected} of {self.entries} entries cannot be used ({self.rejected / self.entries:.1%}; "
            f"max_reject_fraction allows {self.allowed:.1%}): {reasons}. Fix or remove them, or allow more."
            f"{shown}{everything}"
        )
