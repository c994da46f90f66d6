"""Record accounting: what went into a Beam pipeline comes out of it, or the run fails."""

import json
from collections.abc import Mapping
from pathlib import Path

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from mlplatform.errors import MlplatformError
from mlplatform.storage.urls import is_local

Counts = dict[str, int]


class RecordsLostError(MlplatformError):
    """Records went in that did not come out, or the other way round."""

    def __init__(self, what: str, entered: int, left: int) -> None:
        super().__init__(what, entered, left)
        self.what, self.entered, self.left = what, entered, left

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.entered} records went in and {self.left} came out. Nothing was published. "
            "Run it again, and if it happens again the Beam engine drops or repeats records."
        )


class WriteCounts(beam.PTransform):
    """Adds up collections of numbers and writes the sums as one JSON object.

    Takes a mapping from name to collection; a name whose collection is empty is left out.
    """

    def __init__(self, file: str) -> None:
        """Remember where to write.

        Args:
            file: Path or URL of the JSON file; replaced if it exists.
        """
        super().__init__()
        self._file = file

    def expand(self, collections: Mapping[str, beam.PCollection]) -> beam.PCollection:
        """Add up each of `collections`."""
        named = [
            collection | f"Name[{name}]" >> beam.Map(lambda count, name=name: (name, count))
            for name, collection in collections.items()
        ]
        return (
            named
            | beam.Flatten()
            | "Sum" >> beam.CombinePerKey(sum)
            | beam.combiners.ToDict()
            | "Write" >> beam.Map(_write_json, self._file)
        )


def read_counts(file: str) -> Counts:
    """Return the counts that `WriteCounts` wrote."""
    with FileSystems.open(file) as stream:
        return Counts(json.loads(stream.read()))


def check_all_left(what: str, entered: int, left: int) -> None:
    """Check the balance of a pipeline.

    Raises:
        RecordsLostError: The numbers differ.
    """
    if entered != left:
        raise RecordsLostError(what, entered, left)


def _write_json(counts: Counts, file: str) -> None:
    if is_local(file):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    with FileSystems.create(file) as stream:
        stream.write(json.dumps(counts, sort_keys=True).encode())
