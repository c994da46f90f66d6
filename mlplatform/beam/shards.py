"""Writes records as TFRecord shards whose bytes depend on the records alone."""

import hashlib
import os
import uuid
from collections.abc import Iterable

import apache_beam as beam
import tensorflow as tf
from apache_beam.typehints import with_input_types, with_output_types

Keyed = tuple[str, bytes]


@with_input_types(Keyed)
@with_output_types(tuple[str, int])
class WriteShards(beam.PTransform):
    """Writes (key, record) pairs to `<prefix>-00000-of-0000N`, every shard even if it is empty.

    A hash of the key chooses the shard and the records of a shard lie in the order of their keys, so equal
    input gives equal files, whatever the engine and the number of its workers. Each shard is written aside
    and renamed. A worker holds one shard in memory: take so many shards that one of them fits.
    """

    def __init__(self, prefix: str, shards: int) -> None:
        """Remember where to write.

        Args:
            prefix: Path or URL of the files, without the shard's number.
            shards: Number of files, at least 1.
        """
        super().__init__()
        self._prefix, self._shards = prefix, shards

    def expand(self, records: beam.PCollection) -> beam.PCollection:
        """Write `records`; gives the files, each with the number of its records."""
        assigned = records | "AssignShard" >> beam.Map(_assign, self._shards).with_output_types(
            tuple[int, Keyed | None]
        )
        every_shard = (
            records.pipeline
            | "EveryShard" >> beam.Create(range(self._shards))
            | "WithoutRecord"
            >> beam.Map(lambda shard: (shard, None)).with_output_types(tuple[int, Keyed | None])
        )
        return (
            (assigned, every_shard)
            | beam.Flatten()
            | beam.GroupByKey()
            | "WriteShard" >> beam.Map(_write, self._prefix, self._shards)
        )


def _assign(keyed: Keyed, shards: int) -> tuple[int, Keyed]:
    digest = hashlib.sha256(b"shard:" + keyed[0].encode()).digest()
    return int.from_bytes(digest[:8], "big") % shards, keyed


def _write(grouped: tuple[int, Iterable[Keyed | None]], prefix: str, shards: int) -> tuple[str, int]:
    shard, keyed = grouped
    file = f"{prefix}-{shard:05d}-of-{shards:05d}"
    folder, name = os.path.split(file)
    tf.io.gfile.makedirs(folder)
    partial = f"{folder}/.{name}.{uuid.uuid4().hex}"
    written = 0
    with tf.io.TFRecordWriter(partial) as writer:
        for _, record in sorted(one for one in keyed if one is not None):
            writer.write(record)
            written += 1
    tf.io.gfile.rename(partial, file, overwrite=True)
    return file, written
