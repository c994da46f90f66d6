"""How many records files have, counted by a job of an engine: its workers import no TensorFlow for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.io import ReadAllFromTFRecord, fileio
from apache_beam.io.filesystems import FileSystems

from mlplatform.beam.accounting import WriteCounts, read_counts
from mlplatform.beam.runners import pipeline_options


@dataclass(frozen=True)
class TfRecords:
    """Records of TFRecord files, by patterns of Beam; a file whose name ends with `.gz` is compressed."""

    patterns: tuple[str, ...]


@dataclass(frozen=True)
class CsvRows:
    """Rows of CSV files with a header, by patterns of Beam."""

    patterns: tuple[str, ...]


def count(
    sources: Sequence[TfRecords | CsvRows], beam_arguments: Sequence[str], counts_file: str
) -> list[int]:
    """Count the records of several sources in one job.

    Args:
        sources: What to count.
        beam_arguments: Beam's arguments.
        counts_file: Path or URL that the engine's workers can write; replaced if it exists.

    Returns:
        A count per source.
    """
    with beam.Pipeline(options=pipeline_options(beam_arguments)) as pipeline:
        counted = {str(n): _counted(pipeline, source, n) for n, source in enumerate(sources)}
        _ = counted | "Count" >> WriteCounts(counts_file)
    found = read_counts(counts_file)
    return [found[str(number)] for number in range(len(sources))]


def count_rows(file: str) -> int:
    """Return how many rows a CSV file has below its header; empty lines are none, quotes may span lines."""
    rows, quotes = 0, 0
    with FileSystems.open(file) as stream:
        stream.readline()
        for line in stream:
            is_inside = quotes % 2 == 1
            quotes += line.count(b'"')
            rows += quotes % 2 == 0 and (is_inside or bool(line.strip(b"\r\n")))
    return rows


def _counted(pipeline: beam.Pipeline, source: TfRecords | CsvRows, number: int) -> beam.PCollection:
    patterns = pipeline | f"Files[{number}]" >> beam.Create(source.patterns)
    if isinstance(source, TfRecords):
        records = patterns | f"Read[{number}]" >> ReadAllFromTFRecord()
        return records | f"Records[{number}]" >> beam.combiners.Count.Globally()
    files = patterns | f"Match[{number}]" >> fileio.MatchAll() | f"Spread[{number}]" >> beam.Reshuffle()
    rows = files | f"Rows[{number}]" >> beam.Map(lambda file: count_rows(file.path))
    return rows | f"Sum[{number}]" >> beam.CombineGlobally(sum)
