"""How many records of each class a version has, by split."""

from collections.abc import MutableMapping

import numpy as np

from mlplatform.datasets.commit import read_live
from mlplatform.datasets.format.features import feature_values, show
from mlplatform.datasets.format.live import HELD_OUT
from mlplatform.datasets.format.manifest import Manifest, PackFacts
from mlplatform.datasets.format.pack_records import pack_windows
from mlplatform.datasets.format.tfrecord import Int64s
from mlplatform.datasets.line import Line
from mlplatform.datasets.reading import reading

# Per pack and label feature: the classes, and int64, shape (records of the pack,): each record's class.
PackClasses = MutableMapping[tuple[str, str], tuple[list[str], Int64s]]


def class_counts(line: Line, manifest: Manifest, label: str, known: PackClasses) -> dict[str, dict[str, int]]:
    """Count the records of each class; see `DatasetStore.class_counts`."""
    packs = {pack.name: pack for pack in manifest.packs}
    counts: dict[str, dict[str, int]] = {split: {} for split in manifest.splits}
    with reading(line.storage, line.dataset):
        for (split, name), rows in read_live(line, manifest).items():
            if split == HELD_OUT or not rows.is_live.any():
                continue
            if (name, label) not in known:
                known[name, label] = _classes(line, packs[name], label)
            texts, codes = known[name, label]
            found = np.bincount(codes, rows.copies(), len(texts)).astype(np.int64)
            for text, count in zip(texts, found.tolist(), strict=True):
                if count:
                    counts[split][text] = counts[split].get(text, 0) + count
    return {split: dict(sorted(found.items())) for split, found in counts.items()}


def _classes(line: Line, pack: PackFacts, label: str) -> tuple[list[str], Int64s]:
    places: dict[bytes | None, int] = {}
    codes: list[int] = []
    for window in pack_windows(line.storage, line.dataset, pack):
        for values in feature_values(window.buffer, window.starts, window.ends, [label]):
            codes.append(places.setdefault(values[0] if values else None, len(places)))
    return [show(value) for value in places], np.array(codes, np.int64)
