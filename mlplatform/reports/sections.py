"""Parts of a page that whoever knows the subject composes: tables, a matrix, drawings."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What stands in it.
        bar: A bar of this share, 0 to 1, is drawn instead of a text; None for none.
        tone: `good`, `bad`, `soft` or empty.
    """

    text: str = ""
    bar: float | None = None
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: Its heading.
        columns: Column names; one that ends in `#` holds numbers, which stand to the right.
        rows: Cells by column.
        text: What is to be known beforehand.
        note: What is left out.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    text: str = ""
    note: str = ""
    form: str = "table"


@dataclass(frozen=True)
class Matrix:
    """How records of a few classes (rows) are answered (columns, in the same order).

    Attributes:
        title: Its heading.
        text: What rows and columns are.
        labels: The classes.
        counts: Per row and column, how many records.
        others: Per row, how many records are answered with any other class.
    """

    title: str
    text: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    others: Sequence[int]
    form: str = "matrix"


@dataclass(frozen=True)
class Drawing:
    """A chart as inline SVG, with its heading and what it shows."""

    title: str
    text: str
    svg: Markup
    form: str = "drawing"


Section = Table | Matrix | Drawing
