"""Some records of a version, chosen by a seed: the same ones every time."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mlplatform.datasets.checkout import live_records
from mlplatform.datasets.diff import Place, read_payloads
from mlplatform.datasets.format.manifest import Manifest
from mlplatform.datasets.line import Line
from mlplatform.datasets.reading import reading


@dataclass(frozen=True)
class SampledRecord:
    """A record of a sample.

    Attributes:
        split: Its split.
        payload: The serialized tf.Example.
    """

    split: str
    payload: bytes


def sample(
    line: Line, manifest: Manifest, count: int, splits: Collection[str], seed: int
) -> list[SampledRecord]:
    """Return different records, each as likely; see `DatasetStore.sample`."""
    with reading(line.storage, line.dataset):
        places = [
            Place(pack, row, split, 1)
            for (split, pack), rows in sorted(live_records(line, manifest).items())
            if split in splits
            for row in np.flatnonzero(rows.is_live).tolist()
        ]
        order = np.random.default_rng(seed).permutation(len(places))[:count]
        chosen = [places[number] for number in order.tolist()]
        payloads = read_payloads(line, manifest.packs, chosen)
    return [SampledRecord(place.split, data) for place, data in zip(chosen, payloads, strict=True)]
