"""What an exported model carries beside its graph: class names, answered warm-up requests, other forms."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow_serving.apis import prediction_log_pb2

from mlplatform.errors import MlplatformError
from mlplatform.serving.warmup import WARMUP_FILE

LABELS_FILE = "labels.txt"


Answer = Mapping[str, NDArray[Any]]  # output name to its values


class WarmupError(MlplatformError):
    """The warm-up requests that a model carries cannot be read."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(file, reason)
        self.file, self.reason = file, reason

    def __str__(self) -> str:
        return (
            f"the warm-up requests in {self.file} cannot be read: {self.reason}. The model is damaged; "
            "export it anew."
        )


def read_labels(model_dir: Path) -> list[str]:
    """Return the class names of an exported image model, in the order of its probabilities."""
    return (model_dir / "assets" / LABELS_FILE).read_text("utf-8").splitlines()


def read_warmup(model_dir: Path, at_most: int | None = None) -> list[prediction_log_pb2.PredictLog]:
    """Return the warm-up requests that an exported model carries, with the answers of its training.

    Args:
        model_dir: A SavedModel, of any kind.
        at_most: Read only so many records.

    Raises:
        WarmupError: The file is damaged.
    """
    file = model_dir / WARMUP_FILE
    if not file.exists():
        return []
    records = tf.data.TFRecordDataset(str(file)).take(-1 if at_most is None else at_most)
    try:
        logs = [prediction_log_pb2.PredictionLog.FromString(r) for r in records.as_numpy_iterator()]
    except (tf.errors.OpError, DecodeError) as error:
        raise WarmupError(file, str(error).splitlines()[0][:200]) from error
    return [log.predict_log for log in logs if log.HasField("predict_log")]


def largest_difference(one: Answer, other: Answer) -> float:
    """Return how far two answers lie apart, whatever the order of classes that score alike.

    Args:
        one: `scores` and `classes` of an image model, each of shape (batch, k).
        other: Likewise, of the same batch.

    Returns:
        The largest difference of a class's score; infinity where a score is no finite number. A class that
        only one side names is taken to have the other's lowest score, as it has at most that.
    """
    if not (np.isfinite(one["scores"]).all() and np.isfinite(other["scores"]).all()):
        return math.inf
    return max(
        abs(left.get(name, min(left.values())) - right.get(name, min(right.values())))
        for left, right in zip(_by_class(one), _by_class(other), strict=True)
        for name in left.keys() | right.keys()
    )


def _by_class(answer: Answer) -> list[dict[bytes, float]]:
    return [
        dict(zip(classes.tolist(), scores.tolist(), strict=True))
        for classes, scores in zip(answer["classes"], answer["scores"], strict=True)
    ]
