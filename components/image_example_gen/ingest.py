"""The ingest as a Beam pipeline: entries in, Examples and rejects out."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

from mlplatform.beam.tracking import Track
from mlplatform.components.image_example_gen.content import read_content
from mlplatform.components.image_example_gen.entries import REJECTED, Entry, Reject
from mlplatform.components.image_example_gen.example import photo_example
from mlplatform.components.image_example_gen.photo import PhotoRefusal, format_by_extension, look_at
from mlplatform.components.image_example_gen.settings import IngestSettings
from mlplatform.components.image_example_gen.splitting import split_of

WARNED, TURNED = "warned", "turned"
ID_LENGTH = 32  # hexadecimal digits of the digest that names a photo without an id


@dataclass(frozen=True)
class Ingested:
    """What the pipeline makes.

    Attributes:
        examples: Per split, (item id, serialized Example).
        rejects: `Reject` of every entry that is not among the examples.
        warnings: `Reject` of entries that are among the examples and yet look odd.
        entries: A 1 for each entry.
        turned: A 1 for each of the examples whose photo has an EXIF orientation other than upright.
    """

    examples: dict[str, beam.PCollection]
    rejects: beam.PCollection
    warnings: beam.PCollection
    entries: beam.PCollection
    turned: beam.PCollection


def ingest(
    entries: beam.PCollection,
    refused: beam.PCollection,
    settings: IngestSettings,
    splits: Mapping[str, int],
    root: str | None,
) -> Ingested:
    """Read the photos.

    Args:
        entries: `Entry` of each photo.
        refused: `Reject` of what the source names and cannot be followed.
        settings: What is allowed.
        splits: Splits with their weights; the weights count for entries whose split a hash decides.
        root: Folder, without links, that local photos have to lie in; None where links may lead anywhere.
    """
    read = (
        entries
        | "SpreadOverWorkers" >> beam.Reshuffle()
        | "ReadPhotos"
        >> beam.ParDo(ReadPhoto(settings, splits, root)).with_outputs(
            *map(_tag, splits), REJECTED, WARNED, TURNED
        )
    )
    rejects = (read[REJECTED], refused) | "AllRejects" >> beam.Flatten()
    return Ingested(
        examples={split: read[_tag(split)] for split in splits},
        rejects=rejects,
        warnings=read[WARNED],
        entries=(entries | "Read" >> beam.Map(lambda _: 1), refused | "NotRead" >> beam.Map(lambda _: 1))
        | "AllEntries" >> beam.Flatten(),
        turned=read[TURNED],
    )


class ReadPhoto(Track):
    """An entry becomes an Example in its split, or a reject."""

    def __init__(self, settings: IngestSettings, splits: Mapping[str, int], root: str | None) -> None:
        super().__init__("read photos", unit="photos")
        self._settings, self._splits, self._root = settings, dict(splits), root

    def process(self, entry: Entry) -> Iterator[Any]:
        for element in super().process(entry):
            yield from self._read(element)

    def _read(self, entry: Entry) -> Iterator[Any]:
        found = read_content(entry.uri, self._settings.max_image_bytes, self._root)
        photo = (
            found
            if isinstance(found, PhotoRefusal)
            else look_at(found, max_pixels=self._settings.max_image_pixels)
        )
        if isinstance(photo, PhotoRefusal) or isinstance(found, PhotoRefusal):
            yield _tagged(REJECTED, entry, photo)
            return
        if not entry.item_id:
            entry = replace(entry, item_id=hashlib.sha256(found).hexdigest()[:ID_LENGTH])
        promised = format_by_extension(entry.path)
        if promised != photo.format:
            yield _tagged(WARNED, entry, PhotoRefusal("wrong_extension", f"it is {photo.format.upper()}"))
        if photo.is_turned:
            yield beam.pvalue.TaggedOutput(TURNED, 1)
        split = entry.split
        if split is None:
            split = split_of(entry.split_key or entry.item_id, self._splits)
        labels = (entry.label, *entry.further_labels)
        example = photo_example(found, photo, labels, entry.item_id, entry.columns, entry.label_feature)
        yield beam.pvalue.TaggedOutput(_tag(split), (entry.item_id, example))


def _tag(split: str) -> str:
    return f"split:{split}"


def _tagged(tag: str, entry: Entry, refusal: Any) -> Any:
    reject = Reject(entry.path, refusal.reason, refusal.detail, entry.item_id, entry.label)
    return beam.pvalue.TaggedOutput(tag, reject)
