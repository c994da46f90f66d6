"""Brings a small collection from a Beam pipeline back to the process that started it."""

import pickle
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems


class WriteGathered(beam.PTransform):
    """Writes a collection that fits into memory to one file, for `read_gathered`."""

    def __init__(self, file: str) -> None:
        """Remember where to write.

        Args:
            file: Path or URL; its folder exists.
        """
        super().__init__()
        self._file = file

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """Write `elements`, in no particular order."""
        return elements | beam.combiners.ToList() | beam.Map(_write, self._file)


def read_gathered(file: str) -> list[Any]:
    """Return what `WriteGathered` wrote. The file must be one's own: it is a pickle."""
    with FileSystems.open(file) as stream:
        elements: list[Any] = pickle.loads(stream.read())
    return elements


def _write(elements: list[Any], file: str) -> str:
    with FileSystems.create(file) as stream:
        stream.write(pickle.dumps(elements))
    return file
