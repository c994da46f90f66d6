"""Reads a listing of photos, row by row: CSV, JSON Lines or Parquet."""

import csv
import io
import json
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TextIO, cast

from mlplatform.components.image_example_gen.columns import Kind, KindCounter
from mlplatform.components.image_example_gen.errors import ListingError
from mlplatform.storage.file_systems import file_system, reaching
from mlplatform.storage.urls import is_local

PATH, LABEL, ITEM_ID, SPLIT = "path", "label", "item_id", "split"
REQUIRED = (PATH, LABEL)
LONGEST_CELL = 1 << 20  # characters; csv's own limit is 131,072
LONGEST_LINE = 1 << 24  # characters, of a line of CSV or a row of JSON
DEEPEST_ROW = 100  # lists and objects within each other, in a row of JSON

_TRY = f"import sys; from {__name__} import try_parquet; try_parquet(sys.argv[1])"

Row = dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """What a look at a whole listing tells.

    Attributes:
        rows: How many rows it has, those that cannot be read included.
        kinds: The type of each of its columns that has a value.
    """

    rows: int
    kinds: dict[str, Kind]


def read_listing(listing: str) -> Iterator[tuple[int, Row | str]]:
    """Yield each row with its number, from 1; a row that cannot be read is the text that says why.

    Args:
        listing: Local path or URL (any file system that fsspec reads) that ends in .csv, .jsonl or .parquet;
            the values of a CSV are text.

    Raises:
        ListingError: The file as a whole cannot be read.
    """
    reader = _READERS.get(PurePosixPath(listing).suffix.lower())
    if reader is None:
        raise ListingError(listing, "its name says neither CSV nor JSON Lines nor Parquet")
    try:
        with _opened(listing) as file:
            yield from reader(file, listing)
    except FileNotFoundError:
        raise ListingError(listing, "there is no such file") from None
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8 (byte 0x{error.object[error.start]:02x}, {error.reason})"
        raise ListingError(listing, problem) from None
    except OSError as error:
        raise ListingError(listing, f"cannot read it: {error}") from error


def check_listing(listing: str, needed: tuple[str, ...]) -> Listing:
    """Read a whole listing once.

    Args:
        listing: See `read_listing`.
        needed: Columns that its first readable row must have.

    Raises:
        ListingError: It cannot be read, has no rows, or lacks a needed column.
    """
    count, columns, kinds = 0, None, KindCounter()
    for _, row in read_listing(listing):
        count += 1
        if isinstance(row, dict):
            kinds.add(row)
        if columns is None and isinstance(row, dict):
            columns = list(row)
            missing = [name for name in needed if name not in columns]
            reserved = [name for name in columns if name.startswith("image/")]
            if missing:
                found = ", ".join(map(repr, columns)) or "none"
                raise ListingError(
                    listing, f"it lacks the column {' and '.join(map(repr, missing))}; it has {found}"
                )
            if reserved:
                raise ListingError(
                    listing, f"its column {reserved[0]!r} has a name that photos need themselves"
                )
    if not count:
        raise ListingError(listing, "it has no rows")
    return Listing(count, kinds.kinds())


def _opened(listing: str) -> BinaryIO:
    if is_local(listing):
        path = Path(listing)
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe that nobody writes into would wait for ever
            raise ListingError(listing, "it is a folder" if path.is_dir() else "it is not a file")
        return path.open("rb")
    storage, place = file_system(listing)
    with reaching(listing):
        return cast(BinaryIO, storage.open(place, "rb"))


def _read_csv(file: BinaryIO, listing: str) -> Iterator[tuple[int, Row | str]]:
    csv.field_size_limit(LONGEST_CELL)
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        rows = _csv_rows(text, listing)
        _, header = next(rows, (0, []))
        if not header:
            raise ListingError(listing, "it is empty")
        twice = {name for name, count in Counter(header).items() if count > 1}
        if twice:
            raise ListingError(listing, f"it has the column {min(twice)!r} twice")
        for number, (line, cells) in enumerate((row for row in rows if row[1]), start=1):
            if len(cells) == len(header):
                yield number, dict(zip(header, cells, strict=True))
            else:
                yield number, f"line {line} has {len(cells)} cells, the header has {len(header)}"


def _csv_rows(text: TextIO, listing: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row with the number of its last line."""
    line = 0
    # Strict: else a cell whose quotes are never closed swallows all rows that follow.
    rows = csv.reader(_without_nul(text), strict=True)
    try:
        for cells in rows:
            line = rows.line_num
            yield line, cells
    except csv.Error as error:
        first = line + 1
        where = f"line {first}" if rows.line_num <= first else f"lines {first} to {rows.line_num}"
        problem = f"{where} cannot be read as CSV ({error})"
        if "expected after" in str(error) or "end of data" in str(error):
            problem += ": a cell that begins with a quote ends with one; within it a quote is written twice"
        raise ListingError(listing, problem) from error


def _without_nul(text: TextIO) -> Iterator[str]:
    for line in _bounded_lines(text):
        if line is None:
            raise csv.Error(f"line has more than {LONGEST_LINE:,} characters")
        if "\0" in line:  # Python takes it from 3.11 on
            raise csv.Error("line contains NUL")
        yield line


def _bounded_lines(text: TextIO) -> Iterator[str | None]:
    """Yield the lines of a file; None for each that is too long to be held in memory."""
    while line := text.readline(LONGEST_LINE + 1):
        if len(line) <= LONGEST_LINE:
            yield line
            continue
        yield None
        while not line.endswith("\n") and (line := text.readline(LONGEST_LINE)):
            pass


def _read_jsonl(file: BinaryIO, listing: str) -> Iterator[tuple[int, Row | str]]:  # noqa: ARG001
    with io.TextIOWrapper(file, "utf-8-sig") as text:
        lines = (line for line in _bounded_lines(text) if line is None or line.strip())
        for number, line in enumerate(lines, start=1):
            if line is None:
                yield number, f"row {number} has more than {LONGEST_LINE:,} characters"
            else:
                yield number, _json_row(number, line)


def _json_row(number: int, line: str) -> Row | str:
    """Return a row of JSON Lines, or why it is none."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return f"row {number} is not JSON: {error.msg} at column {error.colno}"
    except ValueError as error:  # a whole number of thousands of digits
        return f"row {number} cannot be read: {_one_line(error)}"
    except RecursionError:
        return f"row {number} holds lists or objects within more than {DEEPEST_ROW} others"
    if not isinstance(row, dict):
        return f"row {number} is not a JSON object"
    if line.count("[") + line.count("{") > DEEPEST_ROW and _is_deep(row):
        return f"row {number} holds lists or objects within more than {DEEPEST_ROW} others"
    if "\\u" in line and not _is_unicode(row):
        return f"row {number} holds half of a character (a lone surrogate such as \\ud83d)"
    return row


def _is_deep(row: Row) -> bool:
    level: list[Any] = [row]
    for _ in range(DEEPEST_ROW):
        inner = [v for value in level for v in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in inner if isinstance(value, dict | list)]
    return bool(level)


def _is_unicode(row: Row) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_parquet(file: BinaryIO, listing: str) -> Iterator[tuple[int, Row | str]]:
    # Some broken files end the process within PyArrow: that is then a process of its own.
    done = subprocess.run([sys.executable, "-c", _TRY, listing], capture_output=True, check=False)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ListingError(listing, f"it cannot be read as Parquet: PyArrow ends with {name}")
    yield from _parquet_rows(file, listing)


def try_parquet(listing: str) -> None:
    """Read a Parquet listing to its end, in this process.

    Raises:
        ListingError: It cannot be read.
    """
    with _opened(listing) as file:
        for _ in _parquet_rows(file, listing):
            pass


def _parquet_rows(file: BinaryIO, listing: str) -> Iterator[tuple[int, Row | str]]:
    from mlplatform.arrow import pq

    number = 0
    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                number += 1
                yield number, _with_text(number, row)
    except Exception as error:  # Arrow's own, and whatever its conversions to Python raise
        raise ListingError(listing, f"it cannot be read as Parquet: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    """Return the error's first line, of a bounded length: the file's author may have written it."""
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    return first if len(first) <= 200 else f"{first[:197]}..."


def _with_text(number: int, row: Row) -> Row | str:
    """Return the row with text where its own columns hold bytes."""
    for name in (PATH, LABEL, ITEM_ID, SPLIT):
        if isinstance(row.get(name), bytes):
            try:
                row[name] = row[name].decode()
            except UnicodeDecodeError:
                return f"row {number} has a {name} that is not UTF-8: {row[name][:60]!r}"
    return row


_READERS: dict[str, Callable[[BinaryIO, str], Iterator[tuple[int, Row | str]]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
