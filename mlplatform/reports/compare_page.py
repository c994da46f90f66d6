"""The page of a comparison of two models: counts, classes, and the records whose answer changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlplatform.reports.page import write_page

MOST_CLASSES = 60


@dataclass(frozen=True)
class ChangedRecord:
    """A record that the two models answer otherwise.

    Attributes:
        picture: Its photo as a data URI; empty where it has none.
        item_id: What a person finds it by.
        truth: The truth, in words.
        answer_a: The answer of model A, in words.
        answer_b: That of model B.
        features: Name and value of its features, where there is no picture.
    """

    picture: str
    item_id: str
    truth: str
    answer_a: str
    answer_b: str
    features: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class ComparePage:
    """All that the page shows.

    Attributes:
        names: The models A and B.
        records: Records that both were asked about.
        same: Those with the same answer.
        only_a_right: Those that A alone answers right, or better.
        only_b_right: Those that B alone answers right, or better.
        figures: Title of a metric, and its values of A and B; None where it is not measured.
        by_class: Class to how many of its `records` `a` and `b` answer right.
        changes: Records whose answer changes, by what becomes of them.
    """

    names: tuple[str, str]
    records: int
    same: int
    only_a_right: int
    only_b_right: int
    figures: Sequence[tuple[str, float | None, float | None]]
    by_class: Mapping[str, Mapping[str, int]]
    changes: Mapping[str, Sequence[ChangedRecord]]

    @property
    def classes(self) -> list[tuple[str, Mapping[str, int]]]:
        """Classes that change, those that change most first."""
        changed = [(label, row) for label, row in self.by_class.items() if row["a"] != row["b"]]
        return sorted(changed, key=lambda item: (-abs(item[1]["b"] - item[1]["a"]), item[0]))[:MOST_CLASSES]


def write_compare_page(path: Path, page: ComparePage) -> Path:
    """Write the page to `path` and return it."""
    return write_page(path, "compare_page.html", page=page)


@dataclass(frozen=True)
class RequestsPage:
    """All that the page of a preview on logged requests shows.

    Attributes:
        names: The models A and B.
        records: Records of the requests that both were asked about.
        same: Those with the same answer.
        moves: The most frequent changes: answers of A and B, how many records, and some of these.
        more: Further changes that are not shown.
        damaged: Log files that were read in part.
    """

    names: tuple[str, str]
    records: int
    same: int
    moves: Sequence[tuple[str, str, int, Sequence[ChangedRecord]]]
    more: int = 0
    damaged: Sequence[str] = ()


def write_requests_page(path: Path, page: RequestsPage) -> Path:
    """Write the page to `path` and return it."""
    return write_page(path, "requests_page.html", page=page)
