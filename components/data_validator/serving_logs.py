"""Reads the request log of a model server on Beam: what the model was asked in service."""

import logging
from collections.abc import Iterator

import apache_beam as beam

from mlplatform.serving.logged_requests import DamagedLogError, read_requests

DAMAGED = "damaged"
UNREAD = "unread"


class ReadRequests(beam.DoFn):
    """A log file becomes the serialized Examples that were asked about.

    The name of what is not a feature (pixels, embeddings) goes to `UNREAD`. A file that is cut off, by a
    server that was killed, is read up to there and counted under `DAMAGED`.
    """

    def __init__(self, image_feature: str) -> None:
        self._image_feature = image_feature

    def process(self, file: str) -> Iterator[bytes | beam.pvalue.TaggedOutput]:
        try:
            for asked in read_requests(file, self._image_feature):
                yield from asked.examples
                for name in asked.unread:
                    yield beam.pvalue.TaggedOutput(UNREAD, name)
        except DamagedLogError as error:
            logging.warning("%s", error)
            yield beam.pvalue.TaggedOutput(DAMAGED, 1)
