"""What an engine says of a pipeline while it runs."""

from collections.abc import Iterable
from typing import Any


def records_in(infos: Iterable[Any]) -> int:
    """Return how many records went through a stage: those of its widest collection."""
    from apache_beam.metrics import monitoring_infos

    counts = [
        monitoring_infos.extract_counter_value(info)
        for info in infos
        if info.urn == monitoring_infos.ELEMENT_COUNT_URN
    ]
    return max(counts, default=0)
