"""The ingest as a Beam pipeline: entries in, Examples and rejects out."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx.dsl.io import fileio

from mlplatform.beam.tracking import Track
from mlplatform.components.image_example_gen.entries import REJECTED, Entry, Reject
from mlplatform.components.image_example_gen.example import photo_example
from mlplatform.components.image_example_gen.photo import Refusal, format_by_extension, look_at
from mlplatform.components.image_example_gen.settings import IngestSettings
from mlplatform.components.image_example_gen.splitting import split_of

WARNED = "warned"
ID_LENGTH = 32  # hexadecimal digits of the digest that names a photo without an id


@dataclass(frozen=True)
class Ingested:
    """What the pipeline makes.

    Attributes:
        examples: Per split, (item id, serialized Example).
        rejects: `Reject` of every entry that is not among the examples.
        warnings: `Reject` of entries that are among the examples and yet look odd.
        entries: A 1 for each entry.
    """

    examples: dict[str, beam.PCollection]
    rejects: beam.PCollection
    warnings: beam.PCollection
    entries: beam.PCollection


def ingest(
    entries: beam.PCollection, refused: beam.PCollection, settings: IngestSettings, splits: Mapping[str, int]
) -> Ingested:
    """Read the photos.

    Args:
        entries: `Entry` of each photo.
        refused: `Reject` of what the source names and cannot be followed.
        settings: What is allowed.
        splits: Splits with their weights; the weights count for entries whose split a hash decides.
    """
    read = (
        entries
        | "SpreadOverWorkers" >> beam.Reshuffle()
        | "ReadPhotos"
        >> beam.ParDo(ReadPhoto(settings, splits)).with_outputs(*map(_tag, splits), REJECTED, WARNED)
    )
    rejects = (read[REJECTED], refused) | "AllRejects" >> beam.Flatten()
    return Ingested(
        examples={split: read[_tag(split)] for split in splits},
        rejects=rejects,
        warnings=read[WARNED],
        entries=(entries | "Read" >> beam.Map(lambda _: 1), refused | "NotRead" >> beam.Map(lambda _: 1))
        | "AllEntries" >> beam.Flatten(),
    )


class ReadPhoto(Track):
    """An entry becomes an Example in its split, or a reject."""

    def __init__(self, settings: IngestSettings, splits: Mapping[str, int]) -> None:
        super().__init__("read photos", unit="photos")
        self._settings, self._splits = settings, dict(splits)

    def process(self, entry: Entry) -> Iterator[Any]:
        for element in super().process(entry):
            yield from self._read(element)

    def _read(self, entry: Entry) -> Iterator[Any]:
        found = _content(entry.uri, self._settings.max_image_bytes)
        photo = (
            found
            if isinstance(found, Refusal)
            else look_at(found, max_pixels=self._settings.max_image_pixels)
        )
        if isinstance(photo, Refusal) or isinstance(found, Refusal):
            yield _tagged(REJECTED, entry, photo)
            return
        if not entry.item_id:
            entry = replace(entry, item_id=hashlib.sha256(found).hexdigest()[:ID_LENGTH])
        promised = format_by_extension(entry.path)
        if promised != photo.format:
            yield _tagged(WARNED, entry, Refusal("wrong_extension", f"it is {photo.format.upper()}"))
        split = entry.split
        if split is None:
            split = split_of(entry.split_key or entry.item_id, self._splits)
        example = photo_example(found, photo, entry.label, entry.item_id, entry.columns)
        yield beam.pvalue.TaggedOutput(_tag(split), (entry.item_id, example))


def _content(uri: str, max_bytes: int) -> bytes | Refusal:
    try:
        if fileio.isdir(uri):
            return Refusal("not_a_file", "it is a folder")
        with fileio.open(uri, "rb") as file:
            content: bytes = file.read(max_bytes + 1)
    except (FileNotFoundError, fileio.NotFoundError, tf.errors.NotFoundError):
        return Refusal("missing_file", "there is no such file")
    except OSError as error:
        return Refusal("unreadable_file", str(error))
    except tf.errors.OpError as error:
        return Refusal("unreadable_file", error.message)
    if len(content) > max_bytes:
        return Refusal("file_too_large", f"more than {max_bytes:,} bytes")
    return content


def _tag(split: str) -> str:
    return f"split:{split}"


def _tagged(tag: str, entry: Entry, refusal: Any) -> Any:
    reject = Reject(entry.path, refusal.reason, refusal.detail, entry.item_id, entry.label)
    return beam.pvalue.TaggedOutput(tag, reject)
