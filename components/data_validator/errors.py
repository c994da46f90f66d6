"""Why data is not let through."""

from collections.abc import Sequence

from mlplatform.components.data_validator.verdict import Verdict
from mlplatform.errors import GateError, UsageError

_NO_REPORT = "Give DataValidator a reports_dir to keep the report with the records."


class DataRejectedError(GateError):
    """The data has problems that the policy blocks.

    Attributes:
        reasons: One sentence per problem, with offending values and records.
        report: The HTML page that shows them; empty where no reports folder was given.
        verdict: All problems with their records; None where only the text is known.
    """

    def __init__(self, reasons: Sequence[str], report: str, verdict: Verdict | None = None) -> None:
        super().__init__(reasons, report, verdict)
        self.reasons, self.report, self.verdict = reasons, report, verdict

    def _repr_html_(self) -> str | None:
        """Return the verdict for a notebook, where the outputs of the component that failed are gone."""
        return self.verdict._repr_html_() if self.verdict is not None else None

    def __str__(self) -> str:
        shown = "".join(f"\n  {reason}" for reason in self.reasons[:10])
        more = f"\n  and {len(self.reasons) - 10} more" if len(self.reasons) > 10 else ""
        report = f"Report with the records: {self.report}" if self.report else _NO_REPORT
        return (
            f"the data is rejected, {len(self.reasons)} problem{'s' if len(self.reasons) > 1 else ''} "
            f"(fix the data or the schema, or set the policy to warn):{shown}{more}\n{report}"
        )


class SchemaFileError(UsageError):
    """A schema file cannot be used."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"schema {self.path}: {self.problem}. A schema is a text proto such as the schema.pbtxt that a "
            "run without one infers: take that, edit it, and give its path."
        )


class NoTrainSplitError(UsageError):
    """There is no split to take the schema from."""

    def __init__(self, train_split: str, splits: Sequence[str]) -> None:
        super().__init__(train_split, splits)
        self.train_split, self.splits = train_split, splits

    def __str__(self) -> str:
        return (
            f"the examples have no split {self.train_split!r} to infer a schema from; they have "
            f"{', '.join(map(repr, self.splits))}. Name one of them as train_split, or give a schema."
        )
