"""Tiny models of every kind that a server meets. Run as a program: `models.py FOLDER` writes them all.

TensorFlow is imported here and nowhere else in these tests' own process.
"""

import sys
from pathlib import Path

import keras  # Keras 3, whatever TensorFlow Transform made of `tf.keras` in the process that calls
import numpy as np
import tensorflow as tf


def half_plus_two(folder: Path, *, offset: float = 2.0) -> None:
    """The model of TensorFlow Serving's own tests: y = 0.5 x + offset, in TF1 form, for all methods."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        a = v1.get_variable("a", initializer=0.5)
        b = v1.get_variable("b", initializer=offset)
        b2 = v1.get_variable("b2", initializer=offset + 1.0)
        serialized = v1.placeholder(tf.string, name="tf_example", shape=[None])
        parsed = tf.io.parse_example(
            serialized,
            {
                "x": tf.io.FixedLenFeature([1], tf.float32),
                "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            },
        )
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(a * x, b, name="y")
        y2 = tf.add(a * x, b2, name="y2")
        y3 = tf.add(a * parsed["x2"], b2, name="y3")
        info = v1.saved_model.utils.build_tensor_info
        build = v1.saved_model.signature_def_utils.build_signature_def
        example = info(serialized)
        signatures = {
            "serving_default": build({"x": info(x)}, {"y": info(y)}, "tensorflow/serving/predict"),
            "regress_x_to_y": build({"inputs": example}, {"outputs": info(y)}, "tensorflow/serving/regress"),
            "regress_x_to_y2": build(
                {"inputs": example}, {"outputs": info(y2)}, "tensorflow/serving/regress"
            ),
            "regress_x2_to_y3": build(
                {"inputs": example}, {"outputs": info(y3)}, "tensorflow/serving/regress"
            ),
            "classify_x_to_y": build({"inputs": example}, {"scores": info(y)}, "tensorflow/serving/classify"),
            "classify_x2_to_y3": build(
                {"inputs": example}, {"scores": info(y3)}, "tensorflow/serving/classify"
            ),
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


class Everything(tf.Module):
    """TF2 signatures: every dtype, texts, several inputs and outputs, state, no inputs, errors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0, dtype=tf.int64)
        self.weights = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["cat", "dog"], tf.constant([1, 2], tf.int64)), -1
        )

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def matmul(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x @ self.weights}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, name="b"),
            tf.TensorSpec([None], tf.float32, name="a"),
        ]
    )
    def two(self, b: tf.Tensor, a: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"difference": a - b, "a_again": a, "zeros": tf.zeros_like(b)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def texts(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "length": tf.strings.length(text),
            "text_bytes": text,
            "upper": tf.strings.upper(text),
            "code": self.table.lookup(text),
        }

    @tf.function(input_signature=[])
    def count(self) -> dict[str, tf.Tensor]:
        return {"calls": self.calls.assign_add(1)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def scalar(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + 1.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def sqrt(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        check = tf.debugging.Assert(tf.reduce_all(x >= 0), ["negative number in the batch"])
        with tf.control_dependencies([check]):
            return {"y": tf.sqrt(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def specials(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"nan": x * float("nan"), "same": x, "inverse": 1.0 / x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="folder")])
    def hold(self, folder: tf.Tensor) -> dict[str, tf.Tensor]:
        """Say by a file `running` that it computes; go on until there is a file `go`, two minutes at most."""
        tf.io.write_file(folder[0] + "/running", "")
        end = tf.timestamp() + 120.0
        total = tf.constant(0.0)
        while tf.timestamp() < end and tf.size(tf.io.matching_files(folder[0] + "/go")) == 0:
            total += tf.reduce_sum(tf.random.normal([300_000])) * 0.0
        with tf.control_dependencies([total]):
            return {"done": tf.identity(folder)}


DTYPES = {
    "float": tf.float32,
    "double": tf.float64,
    "int32": tf.int32,
    "int16": tf.int16,
    "int8": tf.int8,
    "uint8": tf.uint8,
    "uint16": tf.uint16,
    "uint32": tf.uint32,
    "uint64": tf.uint64,
    "int64": tf.int64,
    "bool": tf.bool,
    "half": tf.float16,
    "bfloat16": tf.bfloat16,
    "complex64": tf.complex64,
    "complex128": tf.complex128,
    "string": tf.string,
}


def everything(folder: Path) -> None:
    """TF2, many signatures."""
    module = Everything()
    signatures = {
        "serving_default": module.matmul,
        "two": module.two,
        "texts": module.texts,
        "count": module.count,
        "scalar": module.scalar,
        "sqrt": module.sqrt,
        "specials": module.specials,
        "hold": module.hold,
    }
    for name, dtype in DTYPES.items():

        @tf.function(input_signature=[tf.TensorSpec([None], dtype, name="x")])
        def same(x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": tf.identity(x)}

        signatures[f"same_{name}"] = same
    module.kept = list(signatures.values())
    tf.saved_model.save(module, str(folder), signatures=signatures)


def keras_model(folder: Path) -> None:
    """Keras, exported as its users do."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,), name="features"), keras.layers.Dense(2)])
    model.export(str(folder), verbose=False)


def tflite(folder: Path, *, with_signatures: bool) -> None:
    """`model.tflite` alone, with and without signatures."""

    class Doubling(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def double(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x * 2.0}

    module = Doubling()
    concrete = module.double.get_concrete_function()
    if with_signatures:
        source = folder.parent.parent / f".{folder.parent.name}-saved"
        tf.saved_model.save(module, str(source), signatures={"serving_default": concrete})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(source))
    else:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(converter.convert())


def with_warmup(folder: Path) -> None:
    """A model whose warm-up requests can be counted: each call adds one."""
    from tensorflow_serving.apis import prediction_log_pb2

    module = Everything()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.count})
    extra = folder / "assets.extra"
    extra.mkdir()
    entry = prediction_log_pb2.PredictionLog()
    entry.predict_log.request.model_spec.name = "warm"
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for _ in range(3):
            writer.write(entry.SerializeToString())


def broken(folder: Path) -> None:
    """A folder that looks like a model and is none."""
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\xff" * 100)


def write_all(root: Path) -> None:
    """Write every model below `root`."""
    half_plus_two(root / "half_plus_two" / "00000123")
    half_plus_two(root / "half_plus_three" / "1", offset=3.0)
    everything(root / "everything" / "1")
    keras_model(root / "keras" / "1")
    tflite(root / "lite" / "1", with_signatures=True)
    tflite(root / "lite_plain" / "1", with_signatures=False)
    with_warmup(root / "warm" / "1")
    broken(root / "broken" / "1")
    (root / "models.config").write_text(config_text(root))


def config_text(root: Path) -> str:
    """A ModelServerConfig of all models that load, for a server that is not ours."""
    names = sorted(
        p.name for p in root.iterdir() if p.is_dir() and p.name not in ("broken", "lite", "lite_plain")
    )
    entries = [
        f'config {{ name: "{n}" base_path: "{root / n}" model_platform: "tensorflow" }}'
        for n in names
        if not n.startswith(".")
    ]
    return "model_config_list { " + " ".join(entries) + " }"


if __name__ == "__main__":
    np.random.seed(1)
    write_all(Path(sys.argv[1]))
