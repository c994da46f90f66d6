"""Reads a listing of photos, row by row: CSV, JSON Lines or Parquet."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TextIO

from mlplatform.components.image_example_gen.columns import Kind, KindCounter
from mlplatform.components.image_example_gen.errors import ListingError

PATH, LABEL, ITEM_ID, SPLIT = "path", "label", "item_id", "split"
REQUIRED = (PATH, LABEL)
LONGEST_CELL = 1 << 20  # characters; csv's own limit is 131,072

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
        listing: Local path or URL (any file system that Beam reads) that ends in .csv, .jsonl or .parquet;
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
    if "://" not in listing:
        return Path(listing).open("rb")
    # Here and not above: a local listing is looked at before Beam is loaded.
    from apache_beam.io.filesystems import FileSystems

    file: BinaryIO = FileSystems.open(listing)
    return file


def _read_csv(file: BinaryIO, listing: str) -> Iterator[tuple[int, Row | str]]:
    csv.field_size_limit(LONGEST_CELL)
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        rows = _csv_rows(text, listing)
        _, header = next(rows, (0, []))
        if not header:
            raise ListingError(listing, "it is empty")
        twice = {name for name in header if header.count(name) > 1}
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
    for line in text:
        if "\0" in line:  # Python takes it from 3.11 on
            raise csv.Error("line contains NUL")
        yield line


def _read_jsonl(file: BinaryIO, listing: str) -> Iterator[tuple[int, Row | str]]:  # noqa: ARG001
    with io.TextIOWrapper(file, "utf-8-sig") as text:
        for number, line in enumerate((line for line in text if line.strip()), start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield number, f"row {number} is not JSON: {error.msg} at column {error.colno}"
                continue
            if not isinstance(row, dict):
                yield number, f"row {number} is no JSON object"
            elif "\\u" in line and not _is_unicode(row):
                yield number, f"row {number} holds half of a character (a lone surrogate such as \\ud83d)"
            else:
                yield number, row


def _is_unicode(row: Row) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_parquet(file: BinaryIO, listing: str) -> Iterator[tuple[int, Row | str]]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                number += 1
                yield number, _with_text(number, row)
    except pyarrow.ArrowException as error:
        raise ListingError(listing, f"it is no Parquet file: {error}") from error


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
