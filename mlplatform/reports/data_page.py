"""The page of the data gate: what it decided, what is wrong and where, what the data looks like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from mlplatform.reports.page import write_page

_SHOWN_CLASSES = 100


@dataclass(frozen=True)
class OffenderCard:
    """A record that has a problem.

    Attributes:
        split: Where it is.
        item_id: Which it is.
        label: Its class.
        value: What is wrong in it.
        picture: Its photo as a data URI; empty where it has none.
    """

    split: str
    item_id: str
    label: str
    value: str
    picture: str


@dataclass(frozen=True)
class ProblemRow:
    """Something that is not as it should be.

    Attributes:
        action: `block` or `warn`.
        kind: What kind of thing.
        feature: The feature; empty where it is the whole split.
        split: Where it was found.
        description: What was found.
        records: How many records have it; None where it is no matter of single records.
        offenders: Some of them.
        waived: Who let it through, until when and why; empty where nobody did.
    """

    action: str
    kind: str
    feature: str
    split: str
    description: str
    records: int | None
    offenders: Sequence[OffenderCard]
    waived: str = ""


@dataclass(frozen=True)
class ClassRow:
    """How many records of a class each split has."""

    label: str
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Records in all splits."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class FeatureOfSplit:
    """A feature in one split; `missing` is a share, 0 to 1, `values` a line of text."""

    split: str
    type: str
    missing: float
    values: str


@dataclass(frozen=True)
class FeatureRow:
    """A feature in all splits, and its distribution drawn; beside what it was compared with, if anything."""

    name: str
    splits: Sequence[FeatureOfSplit]
    charts: Sequence[Markup]


@dataclass(frozen=True)
class DataPage:
    """All that the page shows; `classes` the largest first."""

    is_accepted: bool
    schema_source: str
    compared_with: Sequence[str]
    records: Mapping[str, int]
    problems: Sequence[ProblemRow]
    classes: Sequence[ClassRow]
    features: Sequence[FeatureRow]

    @property
    def blocking(self) -> int:
        """How many problems stop the run."""
        return sum(problem.action == "block" for problem in self.problems)

    @property
    def with_records(self) -> Sequence[ProblemRow]:
        """The problems of which single records are shown."""
        return [problem for problem in self.problems if problem.offenders]

    @property
    def moved(self) -> Sequence[FeatureRow]:
        """The features that have drifted or are skewed, which are drawn beside the problem."""
        names = {problem.feature for problem in self.problems if problem.kind in ("drift", "skew")}
        return [row for row in self.features if row.name in names and row.charts]

    @property
    def shown_classes(self) -> Sequence[ClassRow]:
        """The largest classes, as many as can be read."""
        return self.classes[:_SHOWN_CLASSES]

    @property
    def largest_class(self) -> int:
        """Records of the largest class, at least 1."""
        return max([row.total for row in self.classes[:1]] + [1])


def write_data_page(path: Path, page: DataPage) -> Path:
    """Write the page to `path` and return it."""
    return write_page(path, "data_page.html", page=page)
