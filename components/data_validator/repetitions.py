"""Which photos and keys occur more than once, as Beam collections.

A photo is its bytes, a key is the name of a record.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import apache_beam as beam

from mlplatform.arrow import pa

What = Literal["photo", "key"]
Identity = tuple[What, bytes]  # what is repeated, and its digest
FAULTS = ("leaks", "key_leaks", "conflicts", "within")
_LABELS_KEPT = 8  # per split: enough to see a conflict, few enough for a placeholder photo in every class
_RECORDS_KEPT = 2  # per split and label: two show a copy


@dataclass(frozen=True, order=True)
class Sighting:
    """A record that shows a photo, or has a key.

    Attributes:
        split: Where it is.
        item_id: Which it is.
        label: Its class.
    """

    split: str
    item_id: str
    label: str


@dataclass(frozen=True)
class Repeated:
    """A photo or a key that several records have.

    Attributes:
        what: Which of the two.
        digest: Of the photo or the key.
        counts: How many records have it, per split.
        sightings: Some of them, in order: at least one per split and, where it has several, two labels.
    """

    what: What
    digest: bytes
    counts: Mapping[str, int]
    sightings: tuple[Sighting, ...]

    @property
    def is_leak(self) -> bool:
        """It is in several splits."""
        return len(self.counts) > 1

    @property
    def is_conflict(self) -> bool:
        """It has several labels."""
        return len({sighting.label for sighting in self.sightings}) > 1

    @property
    def copies_within(self) -> int:
        """How many records repeat a record of their own split."""
        return sum(self.counts.values()) - len(self.counts)

    def leak_shown(self) -> list[Sighting]:
        """Return a record of each of two splits."""
        return _first_of_each(self.sightings, lambda sighting: sighting.split)

    def conflict_shown(self) -> list[Sighting]:
        """Return a record of each of two labels."""
        return _first_of_each(self.sightings, lambda sighting: sighting.label)

    def copy_shown(self) -> list[Sighting]:
        """Return two records of one split."""
        copied = next(split for split, count in sorted(self.counts.items()) if count > 1)
        return [sighting for sighting in self.sightings if sighting.split == copied][:2]


def sightings(
    batch: pa.RecordBatch, split: str, image_feature: str, id_feature: str, label_feature: str
) -> Iterator[tuple[Identity, Sighting]]:
    """Yield the photos and keys of a batch of Examples; records without exactly one are skipped."""
    if id_feature in batch.schema.names:
        ids, labels = _texts(batch, id_feature), _texts(batch, label_feature)
        for item_id, label in zip(ids, labels, strict=True):
            if item_id:
                yield ("key", _digest(item_id.encode())), Sighting(split, item_id, label)
    for digest, _, sighting in photos_of(batch, split, image_feature, id_feature, label_feature):
        yield ("photo", digest), sighting


def photos_of(
    batch: pa.RecordBatch, split: str, image_feature: str, id_feature: str, label_feature: str
) -> Iterator[tuple[bytes, bytes, Sighting]]:
    """Yield digest, content and `Sighting` of photos; records without exactly one are skipped."""
    names = batch.schema.names
    if image_feature in names:
        ids, labels = _texts(batch, id_feature), _texts(batch, label_feature)
        images = batch.column(names.index(image_feature)).to_pylist()
        for image, item_id, label in zip(images, ids, labels, strict=True):
            if image is not None and len(image) == 1:
                yield _digest(image[0]), image[0], Sighting(split, item_id, label)


class Repetitions(beam.PTransform):
    """(`Identity`, `Sighting`) pairs become what is `Repeated` among them."""

    def expand(self, seen: beam.PCollection) -> beam.PCollection:
        """Group `seen` by identity."""
        return seen | beam.CombinePerKey(_Sightings()) | beam.FlatMap(_repeated)


class Samples(beam.PTransform):
    """Some of each fault; the same ones whatever the engine."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def expand(self, repeated: beam.PCollection) -> beam.PCollection:
        """Choose from `repeated`; a photo may come twice."""
        return (
            repeated
            | beam.FlatMap(_by_fault)
            | beam.combiners.Top.SmallestPerKey(self._size, key=lambda one: one.digest)
            | beam.FlatMap(lambda chosen: chosen[1])
        )


def fault_count(repeated: Repeated, fault: str) -> int:
    """Return how often one repetition is a fault; several photos of one item are not one.

    Args:
        repeated: What several records have.
        fault: `leaks` or `key_leaks` (a photo or a key is in several splits), `conflicts` (a photo has
            several labels) or `within` (how many records repeat a photo of their own split).
    """
    if repeated.what == "key":
        return int(fault == "key_leaks" and repeated.is_leak)
    found = {"leaks": repeated.is_leak, "conflicts": repeated.is_conflict, "within": repeated.copies_within}
    return int(found.get(fault, 0))


class _Sightings(beam.CombineFn):
    """Counts the records of each split and keeps a few: memory does not grow with the repetitions."""

    def create_accumulator(self) -> tuple[dict[str, int], list[Sighting]]:
        return {}, []

    def add_input(
        self, held: tuple[dict[str, int], list[Sighting]], sighting: Sighting
    ) -> tuple[dict[str, int], list[Sighting]]:
        counts, kept = held
        return _with_count(counts, sighting.split, 1), _few([*kept, sighting])

    def merge_accumulators(
        self, several: Iterable[tuple[dict[str, int], list[Sighting]]]
    ) -> tuple[dict[str, int], list[Sighting]]:
        counts: dict[str, int] = {}
        kept: list[Sighting] = []
        for more, some in several:
            for split, count in more.items():
                counts = _with_count(counts, split, count)
            kept = _few([*kept, *some])
        return counts, kept

    def extract_output(
        self, held: tuple[dict[str, int], list[Sighting]]
    ) -> tuple[dict[str, int], list[Sighting]]:
        return held


def _with_count(counts: dict[str, int], split: str, more: int) -> dict[str, int]:
    return {**counts, split: counts.get(split, 0) + more}


def _few(found: list[Sighting]) -> list[Sighting]:
    """Return the first records of the first labels of each split.

    The smallest of a union are among the smallest of its parts, so the order of merging does not matter.
    """
    if len(found) <= _RECORDS_KEPT:
        return found
    kept: dict[tuple[str, str], list[Sighting]] = {}
    for sighting in sorted(found):
        kept.setdefault((sighting.split, sighting.label), []).append(sighting)
    few: list[Sighting] = []
    labels: dict[str, int] = {}
    for (split, _), some in sorted(kept.items()):
        labels[split] = labels.get(split, 0) + 1
        if labels[split] <= _LABELS_KEPT:
            few += some[:_RECORDS_KEPT]
    return few


def _by_fault(repeated: Repeated) -> Iterator[tuple[str, Repeated]]:
    return ((fault, repeated) for fault in FAULTS if fault_count(repeated, fault))


def _repeated(grouped: tuple[Identity, tuple[dict[str, int], list[Sighting]]]) -> Iterator[Repeated]:
    (what, digest), (counts, kept) = grouped
    if sum(counts.values()) > 1:
        yield Repeated(what, digest, counts, tuple(sorted(kept)))


def _first_of_each(found: Iterable[Sighting], trait: Callable[[Sighting], str]) -> list[Sighting]:
    first: dict[str, Sighting] = {}
    for sighting in found:
        first.setdefault(trait(sighting), sighting)
    return list(first.values())[:2]


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:16]


def _texts(batch: pa.RecordBatch, feature: str) -> list[str]:
    if feature not in batch.schema.names:
        return [""] * batch.num_rows
    values = batch.column(batch.schema.names.index(feature)).to_pylist()
    return [_text(value[0]) if value else "" for value in values]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
