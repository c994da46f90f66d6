"""Which photos look alike without being the same byte by byte.

Photos are decoded and hashed on Beam. The hashes are compared in one process, by their parts and not each
with each (`mlplatform.datasets.duplicates`).
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mlplatform.arrow import pa
from mlplatform.components.data_validator.repetitions import Sighting, photos_of
from mlplatform.datasets.duplicates import alike, photo_hash


@dataclass(frozen=True)
class Look:
    """How a record's photo looks.

    Attributes:
        look: Hash of how it looks.
        digest: Of its bytes.
        sighting: The record.
    """

    look: bytes
    digest: bytes
    sighting: Sighting


@dataclass(frozen=True)
class Group:
    """Photos that look alike, directly or through another one.

    Attributes:
        photos: The records of each, in order.
    """

    photos: Sequence[Sequence[Sighting]]

    @property
    def is_leak(self) -> bool:
        """Two of them are in different splits."""
        return len({sighting.split for sighting in itertools.chain(*self.photos)}) > 1

    @property
    def is_within(self) -> bool:
        """Two of them are in the same split."""
        splits = [{sighting.split for sighting in photo} for photo in self.photos]
        return sum(map(len, splits)) > len(set().union(*splits))

    def leak_shown(self) -> list[Sighting]:
        """Return a record of each of two splits, of different photos."""
        return self._shown(is_leak=True)

    def within_shown(self) -> list[Sighting]:
        """Return two records of one split, of different photos."""
        return self._shown(is_leak=False)

    def _shown(self, *, is_leak: bool) -> list[Sighting]:
        return next(
            [a, b]
            for one, other in itertools.combinations(self.photos, 2)
            for a in one
            for b in other
            if (a.split != b.split) == is_leak
        )


def looks(
    batch: pa.RecordBatch, split: str, image_feature: str, id_feature: str, label_feature: str
) -> Iterator[Look]:
    """Yield the looks of a batch of Examples; records without exactly one photo with a hash are skipped."""
    for digest, content, sighting in photos_of(batch, split, image_feature, id_feature, label_feature):
        found = photo_hash(content)
        if found is not None:
            yield Look(found, digest, sighting)


def groups_of(found: Iterable[Look]) -> list[Group]:
    """Return the groups of photos that look alike, the largest first."""
    records: dict[tuple[bytes, bytes], list[Sighting]] = {}
    for one in found:
        records.setdefault((one.look, one.digest), []).append(one.sighting)
    photos = sorted(records)
    groups = alike([look for look, _ in photos])
    return [Group([sorted(records[photos[place]]) for place in group]) for group in groups]
