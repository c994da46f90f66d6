"""Limits on the pixels that a request has a model decode: a few kilobytes can declare gigabytes of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from tensorflow.core.example import example_pb2

from mlplatform.serving.image_headers import ImageSize, declared_size, may_hold_image
from mlplatform.serving.status import TooLargeError, invalid_argument
from mlplatform.serving.tensors import Array
from mlplatform.serving.wire import PARSE_ERRORS

# What an image counts at least: models scale small ones up to about this.
LEAST_PIXELS = 256 * 256


@dataclass(frozen=True, kw_only=True)
class PixelLimits:
    """Pixels of encoded images in one request.

    Attributes:
        max_image_pixels: Of one image, all frames of an animation together.
        max_request_pixels: Of all images together.
    """

    max_image_pixels: int = 50_000_000
    max_request_pixels: int = 200_000_000

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Read the headers of all images in string inputs, those inside serialized Examples included.

        What is no image costs next to nothing, so that no model has to be known to decode any.

        Raises:
            StatusError: INVALID_ARGUMENT for an image that is too large, RESOURCE_EXHAUSTED for too many.
        """
        total = 0
        for alias, array in inputs.items():
            if array.dtype != np.object_:
                continue
            for place, value in enumerate(array.ravel().tolist()):
                for size in _images(value):
                    if size.pixels > self.max_image_pixels:
                        raise invalid_argument(
                            f"input {alias}, place {place}: an image of {size} pixels; at most "
                            f"{self.max_image_pixels:,} are decoded (max_image_pixels)"
                        )
                    total += max(size.pixels, LEAST_PIXELS)
        if total > self.max_request_pixels:
            raise TooLargeError(
                f"the request's images have {total:,} pixels (each counts {LEAST_PIXELS:,} at least); at "
                f"most {self.max_request_pixels:,} are decoded for one request (max_request_pixels): send "
                "fewer at a time"
            )


def _images(value: bytes) -> Iterator[ImageSize]:
    size = declared_size(value)
    if size is not None:
        yield size
    elif may_hold_image(value):
        yield from _images_of_example(value)


def _images_of_example(value: bytes) -> Iterator[ImageSize]:
    """Yield the sizes of images in a serialized Example or SequenceExample, whose context is an Example."""
    example = example_pb2.SequenceExample()
    try:
        example.ParseFromString(value)
    except PARSE_ERRORS:
        return
    lists = (feature for held in example.feature_lists.feature_list.values() for feature in held.feature)
    for feature in (*example.context.feature.values(), *lists):
        for content in feature.bytes_list.value:
            size = declared_size(content)
            if size is not None:
                yield size
