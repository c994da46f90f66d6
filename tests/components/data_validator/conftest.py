"""Small real Examples, and the gate run on them in this process."""

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Record = Mapping[str, Any]
Splits = Mapping[str, Sequence[Record]]


def jpeg(seed: int, brightness: float = 1.0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray((noise * brightness).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="session")
def photo() -> Callable[..., bytes]:
    return jpeg


@pytest.fixture(scope="session")
def shop() -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """Items of three classes with photos, 30 for training and 12 for evaluation."""

    def make(**changes: Any) -> dict[str, list[dict[str, Any]]]:
        numbers = itertools.count()
        return {
            split: [
                {
                    "image/encoded": jpeg(number),
                    "image/format": "jpeg",
                    "image/height": 24,
                    "image/width": 32,
                    "label": ("hat", "shoe", "bag")[number % 3],
                    "item_id": f"item-{number:02d}",
                    "price": 5.0 + number % 7,
                    "color": ("red", "blue")[number % 2],
                    **changes,
                }
                for number in itertools.islice(numbers, count)
            ]
            for split, count in (("train", 30), ("eval", 12))
        }

    return make


@pytest.fixture(scope="session")
def write_examples() -> Callable[[Path, Splits], dict[str, list[str]]]:
    """Write `Split-*` folders as an ExampleGen does; returns the file patterns per split."""

    def write(folder: Path, splits: Splits) -> dict[str, list[str]]:
        import tensorflow as tf

        def feature(value: Any) -> tf.train.Feature:
            if isinstance(value, list) and value[1:] == [[]]:  # ["float", []]: a list of that kind, empty
                empty = tf.train.Feature()
                getattr(empty, f"{value[0]}_list").SetInParent()
                return empty
            values = value if isinstance(value, list) else [value]
            if not values:
                return tf.train.Feature(bytes_list=tf.train.BytesList())
            if isinstance(values[0], int):
                return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
            if isinstance(values[0], float):
                return tf.train.Feature(float_list=tf.train.FloatList(value=values))
            encoded = [v if isinstance(v, bytes) else v.encode() for v in values]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))

        for split, records in splits.items():
            place = folder / f"Split-{split}"
            place.mkdir(parents=True)
            options = tf.io.TFRecordOptions(compression_type="GZIP")
            with tf.io.TFRecordWriter(str(place / "data_tfrecord-00000-of-00001.gz"), options) as writer:
                for record in records:
                    features = {name: feature(value) for name, value in record.items() if value is not None}
                    example = tf.train.Example(features=tf.train.Features(feature=features))
                    writer.write(example.SerializeToString())
        return {split: [str(folder / f"Split-{split}" / "*")] for split in splits}

    return write


@pytest.fixture(scope="session")
def gate(
    tmp_path_factory: pytest.TempPathFactory, write_examples: Callable[..., dict[str, list[str]]]
) -> Callable[..., Any]:
    """Validate records; takes what `validate` takes."""

    def run(
        splits: Splits,
        serving_logs: Sequence[str] = (),
        serving_features: Sequence[str] | None = None,
        policy: Any = None,
        **options: Any,
    ) -> Any:
        import apache_beam as beam

        from mlplatform.components.data_validator.policy import Policy
        from mlplatform.components.data_validator.validate import Data, validate

        files = write_examples(tmp_path_factory.mktemp("examples"), splits)
        work = tmp_path_factory.mktemp("work")
        if isinstance(policy, dict):
            policy = Policy(**policy)
        data = Data(files, serving_logs=serving_logs, serving_features=serving_features)
        return validate(data, beam.Pipeline, str(work), policy=policy, **options)

    return run


@pytest.fixture
def request_log(tmp_path: Path) -> Callable[..., Path]:
    """Write Predict requests with the server's own log; returns the folder of the model."""

    def write(*requests: dict[str, Any]) -> Path:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        from mlplatform.serving.request_log import RequestLog

        log = RequestLog(tmp_path / "log", sampling_rate=1.0, max_bytes=1 << 20)
        for inputs in requests:
            request = predict_pb2.PredictRequest()
            for name, values in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
            log.write("predict_log", "shop", request, predict_pb2.PredictResponse())
        log.close()
        return tmp_path / "log" / "shop"

    return write
