"""Which photos occur more than once, as Beam collections. A photo is its bytes."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam

from mlplatform.arrow import pa

Digest = bytes


@dataclass(frozen=True, order=True)
class Sighting:
    """A record that shows a photo.

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
    """A photo that several records show."""

    digest: Digest
    sightings: tuple[Sighting, ...]

    @property
    def is_leak(self) -> bool:
        """It is in several splits."""
        return len({sighting.split for sighting in self.sightings}) > 1

    @property
    def is_conflict(self) -> bool:
        """It has several labels."""
        return len({sighting.label for sighting in self.sightings}) > 1

    @property
    def copies_within(self) -> int:
        """How many records repeat a photo of their own split."""
        return len(self.sightings) - len({sighting.split for sighting in self.sightings})


def sightings(
    batch: pa.RecordBatch, split: str, image_feature: str, id_feature: str, label_feature: str
) -> Iterator[tuple[Digest, Sighting]]:
    """Yield the photos of a batch of Examples; records without exactly one photo are passed over."""
    if image_feature not in batch.schema.names:
        return
    images = batch.column(batch.schema.get_field_index(image_feature)).to_pylist()
    ids, labels = _texts(batch, id_feature), _texts(batch, label_feature)
    for number, image in enumerate(images):
        if image is not None and len(image) == 1:
            yield hashlib.sha256(image[0]).digest()[:16], Sighting(split, ids[number], labels[number])


class Repetitions(beam.PTransform):
    """(digest, `Sighting`) pairs become the `Repeated` photos among them."""

    def expand(self, seen: beam.PCollection) -> beam.PCollection:
        """Group `seen` by photo."""
        return seen | beam.GroupByKey() | beam.FlatMap(_repeated)


class Samples(beam.PTransform):
    """Some of each: leaks, conflicts and copies; the same ones whatever the engine."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def expand(self, repeated: beam.PCollection) -> beam.PCollection:
        """Choose from `repeated`; a photo may come twice."""
        return (
            repeated
            | beam.FlatMap(_by_fault)
            | beam.combiners.Top.SmallestPerKey(self._size, key=lambda photo: photo.digest)
            | beam.FlatMap(lambda chosen: chosen[1])
        )


def _by_fault(photo: Repeated) -> Iterator[tuple[str, Repeated]]:
    for name, has_it in (
        ("leak", photo.is_leak),
        ("conflict", photo.is_conflict),
        ("within", photo.copies_within > 0),
    ):
        if has_it:
            yield name, photo


def _repeated(grouped: tuple[Digest, Iterable[Sighting]]) -> Iterator[Repeated]:
    digest, seen = grouped
    ordered = tuple(sorted(seen))
    if len(ordered) > 1:
        yield Repeated(digest, ordered)


def _texts(batch: pa.RecordBatch, feature: str) -> list[str]:
    if feature not in batch.schema.names:
        return [""] * batch.num_rows
    values = batch.column(batch.schema.get_field_index(feature)).to_pylist()
    return [_text(value[0]) if value else "" for value in values]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
