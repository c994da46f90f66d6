"""Progress from inside a Beam pipeline."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import apache_beam as beam

from mlplatform import progress

_EVERY = 25  # elements between two reports of a worker


class Track(beam.DoFn):
    """Passes elements on and reports how many passed, per worker, to the progress sink of its process."""

    def __init__(self, description: str, unit: str = "records") -> None:
        """Remember what is done.

        Args:
            description: What is done to the elements, as a short verb phrase.
            unit: What they are.
        """
        self._description, self._unit = description, unit
        self._opened: AbstractContextManager[progress.Task] | None = None
        self._waiting = 0

    def setup(self) -> None:
        self._opened = progress.track(self._description, unit=self._unit)
        self._task = self._opened.__enter__()

    def process(self, element: Any) -> Iterator[Any]:
        self._waiting += 1
        if self._waiting >= _EVERY:
            self._task.advance(self._waiting)
            self._waiting = 0
        yield element

    def finish_bundle(self) -> None:
        if self._waiting:
            self._task.advance(self._waiting)
            self._waiting = 0

    def teardown(self) -> None:
        if self._opened is not None:
            self._opened.__exit__(None, None, None)
