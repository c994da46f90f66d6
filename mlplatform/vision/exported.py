"""What an exported image model carries beside its graph: class names, and answered warm-up requests."""

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

TOP = 10  # classes in an answer, or fewer where the model knows fewer
LABELS_FILE = "labels.txt"
WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
SIGNATURES = ("serving_default", "image_bytes", "pixels")


def read_labels(model_dir: Path) -> list[str]:
    """Return the class names of an exported image model, in the order of its probabilities."""
    return (model_dir / "assets" / LABELS_FILE).read_text("utf-8").splitlines()


def read_warmup(model_dir: Path) -> list[prediction_log_pb2.PredictLog]:
    """Return the warm-up requests that an exported model carries, with the answers of its training."""
    file = model_dir / WARMUP_FILE
    if not file.exists():
        return []
    records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    logs = (prediction_log_pb2.PredictionLog.FromString(record) for record in records)
    return [log.predict_log for log in logs if log.HasField("predict_log")]
