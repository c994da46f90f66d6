"""What each method of TensorFlow Serving's own `tensorflow_model_server_test.py` asserts, under its name.

Their models are binaries; those here are made as their generators make them (`saved_model_half_plus_two.py`):
TF1 graphs with assets and a main op, TF2 functions, TensorFlow Lite files, Keras models. Two methods have no
test: `test_profiler_service_with_valid_trace_request` (the profiler's service writes files where its caller
asks for them; this server does not offer it) and `test_tf_text` (operations of `tensorflow-text`, which a
TensorFlow Serving binary links and a Python environment may not have).
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from flatbuffers import flexbuffers
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

pytestmark = pytest.mark.e2e

v1 = tf.compat.v1
VERSION = 123
FOLDER = f"{VERSION:08}"
CLASSIFY, REGRESS, PREDICT = (f"tensorflow/serving/{name}" for name in ("classify", "regress", "predict"))
DEFAULT = "serving_default"


def save_half_plus_two(folder: Path, assets: Path) -> None:
    """TF1: reference variables, an asset, and a main op that writes one of them."""
    assets.mkdir(exist_ok=True)
    (assets / "foo.txt").write_text("contents")
    with tf.Graph().as_default() as graph, v1.Session() as session:
        a, b, c = (v1.Variable(value, use_resource=False) for value in (0.5, 2.0, 3.0))
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        features = {
            "x": tf.io.FixedLenFeature([1], tf.float32),
            "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
        }
        parsed = tf.io.parse_example(serialized, features)
        x, x2 = (tf.identity(parsed[name], name=name) for name in features)
        y, y2, y3 = (
            tf.identity(a * value + more, name=name)
            for name, value, more in (("y", x, b), ("y2", x, c), ("y3", x2, c))
        )
        file_name = v1.Variable("foo.txt", trainable=False, collections=[], use_resource=False)
        graph.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, tf.constant(str(assets / "foo.txt")))
        signatures = {
            DEFAULT: signature({"x": x}, {"y": y}, PREDICT),
            "regress_x_to_y": signature({"inputs": serialized}, {"outputs": y}, REGRESS),
            "regress_x_to_y2": signature({"inputs": serialized}, {"outputs": y2}, REGRESS),
            "regress_x2_to_y3": signature({"inputs": x2}, {"outputs": y3}, REGRESS),
            "classify_x_to_y": signature({"inputs": serialized}, {"scores": y}, CLASSIFY),
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map=signatures,
            assets_collection=graph.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=tf.group(file_name.assign("foo.txt")),
        )
        builder.save()


def signature(inputs: Mapping[str, Any], outputs: Mapping[str, Any], method: str) -> Any:
    info = v1.saved_model.utils.build_tensor_info
    named = [{name: info(tensor) for name, tensor in tensors.items()} for tensors in (inputs, outputs)]
    return v1.saved_model.signature_def_utils.build_signature_def(*named, method)


class HalfPlusTwo(tf.Module):
    """TF2: functions of parsed Examples, and of numbers in the one shape that a converter keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = tf.Variable(0.5), tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def scores(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": self._of_examples(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def outputs(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": self._of_examples(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([1, 1], tf.float32)])
    def row(self, x: tf.Tensor) -> tf.Tensor:
        return self.a * x + self.b

    def _of_examples(self, inputs: tf.Tensor) -> tf.Tensor:
        return (
            self.a * tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"] + self.b
        )


def save_tf2(folder: Path) -> None:
    module = HalfPlusTwo()
    signatures = {DEFAULT: module.outputs, "classify_x_to_y": module.scores, "regress_x_to_y": module.outputs}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def save_lite(folder: Path, input_name: str, *, with_definition: bool) -> None:
    """TensorFlow Lite, tensors named as a TF1 session names them; the definition calls the input `x`."""
    module = HalfPlusTwo()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.row.get_concrete_function()], module)
    model: schema.ModelT = flatbuffer_utils.convert_bytearray_to_object(bytearray(converter.convert()))
    (graph,) = model.subgraphs
    for place, name in ((graph.inputs[0], input_name), (graph.outputs[0], "y")):
        graph.tensors[place].name = name.encode()
    model.signatureDefs = None
    if with_definition:
        definition = meta_graph_pb2.SignatureDef(method_name=PREDICT)
        definition.inputs["x"].name, definition.outputs["y"].name = f"{input_name}:0", "y:0"
        builder, entry, buffer = flexbuffers.Builder(), schema.MetadataT(), schema.BufferT()
        with builder.Map():
            builder.Key(DEFAULT)
            builder.Blob(definition.SerializeToString())
        entry.name, entry.buffer = "signature_defs_metadata", len(model.buffers)
        buffer.data = list(builder.Finish())
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or ()), entry]
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))


def save_product(folder: Path) -> None:
    root = tf.train.Checkpoint(v1=tf.Variable(3.0), v2=tf.Variable(2.0))
    root.f = tf.function(lambda x: {"y": root.v1 * root.v2 * x})
    tf.saved_model.save(root, str(folder), root.f.get_concrete_function(tf.TensorSpec(None, tf.float32)))


def save_two_signatures(folder: Path) -> None:
    root, specs = tf.train.Checkpoint(), [tf.TensorSpec(None, tf.float32)]
    root.f = tf.function(lambda x: {"y": 1.0}, input_signature=specs)
    root.g = tf.function(lambda x: {"y": 2.0}, input_signature=specs)
    tf.saved_model.save(root, str(folder), signatures={DEFAULT: root.f, "custom_signature_key": root.g})


def save_keras(folder: Path, *more: keras.Layer) -> None:
    keras.Sequential([keras.Input((1,), name="x"), *more, keras.layers.Identity()]).export(
        str(folder), verbose=False
    )


def save_keras_mirrored(folder: Path) -> None:
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        save_keras(folder, keras.layers.Dense(1, kernel_initializer="ones"))


MODELS: dict[str, Callable[[Path], None]] = {
    "default": lambda folder: save_half_plus_two(folder, folder.parents[2] / "assets"),
    "tf2": save_tf2,
    "lite": lambda folder: save_lite(folder, "x", with_definition=False),
    "lite_with_definition": lambda folder: save_lite(folder, "tflite_input", with_definition=True),
    "product": save_product,
    "two_signatures": save_two_signatures,
    "keras": save_keras,
    "keras_mirrored": save_keras_mirrored,
}


def config(models: Iterable[tuple[str, Path]]) -> str:
    entries = (
        f'config: {{ name: "{name}", base_path: "{path}", model_platform: "tensorflow" }}'
        for name, path in models
    )
    return f"model_config_list: {{ {' '.join(entries)} }}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    root = tmp_path_factory.mktemp("theirs")
    for name, save in MODELS.items():
        save(root / name / FOLDER)
    for name in ("half_plus_three", "looked_at"):
        shutil.copytree(models / "half_plus_three" / "1", root / name / FOLDER)
    return root


@pytest.fixture(scope="module")
def server(serve: Any, root: Path) -> Any:
    """One server for all methods whose configuration does not get in the way of the others'."""
    file = root / "models.config"
    file.write_text(config((name, root / name) for name in (*MODELS, "half_plus_three", "looked_at")))
    (root / "monitoring.config").write_text("prometheus_config { enable: true }")
    target = serve(
        f"--model_config_file={file}",
        "--model_config_file_poll_wait_seconds=0",
        "--file_system_poll_wait_seconds=1",
        f"--monitoring_config_file={root / 'monitoring.config'}",
        f"--grpc_socket_path={root / 'grpc.sock'}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=20000,grpc.lb_policy_name=grpclb",
        "--rest_api_timeout_in_ms=5000",
        "--prefer_tflite_model=true",
    )
    target.config = file
    return target


def verify_predict(
    server: Any,
    expected: float,
    *,
    model: str = "default",
    signature_name: str = DEFAULT,
    has_filter: bool = True,
    is_batch: bool = False,
    output: str = "y",
) -> None:
    """Ask for the `y` of 2.0, in the shape [1] or [1, 1]."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature_name
    x = np.full((1, 1) if is_batch else (1,), 2.0, np.float32)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    if has_filter:
        request.output_filter.append(output)
    answer = server.stub.Predict(request, timeout=20)
    found = answer.outputs[output]
    assert (found.dtype, list(found.float_val)) == (1, [expected])
    verify_spec(answer.model_spec, model, signature_name)


def verify_spec(spec: Any, model: str, signature_name: str) -> None:
    assert (spec.name, spec.signature_name, spec.version.value) == (model, signature_name, VERSION)


def with_x(request: Any) -> Any:
    """Give a request an Example with an `x` of 2.0."""
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(2.0)
    return request


both = pytest.mark.parametrize("model", ["default", "tf2"])


def test_get_model_status(server: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "default"
    (status,) = server.model_stub.GetModelStatus(request, timeout=20).model_version_status
    assert (status.version, status.status.error_code) == (VERSION, 0)


def test_get_model_metadata(server: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "default"
    answer = server.stub.GetModelMetadata(request, timeout=20)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("default", VERSION)
    assert list(answer.metadata) == ["signature_def"]


@both
def test_classify(server: Any, model: str) -> None:
    """Theirs: testClassify, testClassifyTf2."""
    request = with_x(classification_pb2.ClassificationRequest())
    request.model_spec.name, request.model_spec.signature_name = model, "classify_x_to_y"
    answer = server.stub.Classify(request, timeout=20)
    ((found,),) = (one.classes for one in answer.result.classifications)
    assert found.score == 3.0
    verify_spec(answer.model_spec, model, "classify_x_to_y")


@both
def test_regress(server: Any, model: str) -> None:
    """Theirs: testRegress, testRegressTf2."""
    request = with_x(regression_pb2.RegressionRequest())
    request.model_spec.name, request.model_spec.signature_name = model, "regress_x_to_y"
    answer = server.stub.Regress(request, timeout=20)
    assert [one.value for one in answer.result.regressions] == [3.0]
    verify_spec(answer.model_spec, model, "regress_x_to_y")


@both
def test_multi_inference(server: Any, model: str) -> None:
    """Theirs: testMultiInference, testMultiInferenceTf2."""
    request = with_x(inference_pb2.MultiInferenceRequest())
    methods = (("regress_x_to_y", REGRESS), ("classify_x_to_y", CLASSIFY))
    for name, method in methods:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = model, name
    regressed, classified = server.stub.MultiInference(request, timeout=20).results
    assert regressed.regression_result.regressions[0].value == 3.0
    assert classified.classification_result.classifications[0].classes[0].score == 3.0
    for result, (name, _) in zip((regressed, classified), methods, strict=True):
        verify_spec(result.model_spec, model, name)


@pytest.mark.parametrize("has_filter", [True, False])
def test_predict_saved_model(server: Any, has_filter: bool) -> None:
    verify_predict(server, 3.0, has_filter=has_filter)


@pytest.mark.parametrize("has_filter", [True, False])
def test_good_model_config(server: Any, has_filter: bool) -> None:
    verify_predict(server, 3.0, has_filter=has_filter)
    verify_predict(server, 4.0, model="half_plus_three", has_filter=has_filter)


def test_bad_model_config(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "bad_model_config.txt"
    file.write_text("improperly formatted file")
    server = start([f"--model_config_file={file}"], tmp_path / "server.log")
    assert server.process.wait(timeout=120) != 0
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in server.text()


def test_model_config_reload(serve: Any, root: Path, wait_for: Any) -> None:
    file = root / "reloaded.config"
    file.write_text(config([("half_plus_two", root / "product")]))
    server = serve(f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1")
    verify_predict(server, 12.0, model="half_plus_two", has_filter=False)
    file.write_text(config([("half_plus_three", root / "half_plus_three")]))
    wait_for(lambda: server.states("half_plus_three") == {VERSION: "AVAILABLE"})
    verify_predict(server, 4.0, model="half_plus_three", has_filter=False)


def test_model_config_reload_with_zero_poll_period(server: Any, root: Path, push: Any, wait_for: Any) -> None:
    """The base paths are looked through twice; the file is not."""
    before = server.config.read_text()
    server.config.write_text(config([("half_plus_three", root / "half_plus_three")]))
    for version in (VERSION + 1, VERSION + 2):
        push(root / "looked_at", version)
        wait_for(lambda version=version: server.states("looked_at").get(version) == "AVAILABLE")
    verify_predict(server, 3.0, has_filter=False)
    server.config.write_text(before)


def test_good_grpc_channel_args(server: Any) -> None:
    verify_predict(server, 3.0, has_filter=False)


@pytest.mark.parametrize(
    ("method", "body", "answer"),
    [
        (
            "classify",
            {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]},
            {"results": [[["", 3.0]]]},
        ),
        ("regress", {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}, {"results": [3.0]}),
        ("predict", {"instances": [2.0, 3.0, 4.0]}, {"predictions": [3.0, 3.5, 4.0]}),
        ("predict", {"inputs": [2.0, 3.0, 4.0]}, {"outputs": [3.0, 3.5, 4.0]}),
    ],
    ids=["classify_rest", "regress_rest", "predict_rest", "predict_columnar_rest"],
)
def test_rest(server: Any, method: str, body: Any, answer: Any) -> None:
    """Theirs: testClassifyREST, testRegressREST, testPredictREST, testPredictColumnarREST."""
    assert server.rest(f"/v1/models/default:{method}", body).body == answer


def test_get_status_rest(server: Any) -> None:
    status = {"error_code": "OK", "error_message": ""}
    assert server.rest("/v1/models/default").body == {
        "model_version_status": [{"version": str(VERSION), "state": "AVAILABLE", "status": status}]
    }


def test_get_model_metadata_rest(server: Any) -> None:
    def info(name: str, dtype: str, *sizes: int) -> dict[str, Any]:
        dims = [{"size": str(size), "name": ""} for size in sizes]
        return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": f"{name}:0"}

    def number(name: str) -> dict[str, Any]:
        return info(name, "DT_FLOAT", -1, 1)

    example = {"inputs": info("tf_example", "DT_STRING", -1)}
    expected = {
        DEFAULT: ({"x": number("x")}, {"y": number("y")}, PREDICT),
        "classify_x_to_y": (example, {"scores": number("y")}, CLASSIFY),
        "regress_x_to_y": (example, {"outputs": number("y")}, REGRESS),
        "regress_x_to_y2": (example, {"outputs": number("y2")}, REGRESS),
        "regress_x2_to_y3": ({"inputs": number("x2")}, {"outputs": number("y3")}, REGRESS),
    }
    answer = server.rest("/v1/models/default/metadata").body
    assert answer["model_spec"] == {"name": "default", "signature_name": "", "version": str(VERSION)}
    found = answer["metadata"]["signature_def"]["signature_def"]
    assert {
        name: (one["inputs"], one["outputs"], one["method_name"]) for name, one in found.items()
    } == expected


def test_prometheus_endpoint(server: Any) -> None:
    assert "# TYPE" in server.rest("/monitoring/prometheus/metrics").text


def test_predict_uds(server: Any, root: Path) -> None:
    over_socket = replace(server, grpc=f"unix:{root / 'grpc.sock'}")
    verify_predict(over_socket, 3.0, has_filter=False)
    over_socket.close()


@pytest.mark.parametrize("model", ["lite", "lite_with_definition"])
def test_predict_on_tf_lite(server: Any, model: str) -> None:
    """Theirs: testPredictOnTfLite, testPredictWithSignatureDefOnTfLite."""
    verify_predict(server, 3.0, model=model, has_filter=False)


def test_tf_saved_model_save(server: Any) -> None:
    verify_predict(server, 12.0, model="product", has_filter=False)


def test_tf_saved_model_save_multiple_signatures(server: Any) -> None:
    verify_predict(server, 2.0, model="two_signatures", signature_name="custom_signature_key")
    verify_predict(server, 1.0, model="two_signatures")


@pytest.mark.parametrize("model", ["keras", "keras_mirrored"])
def test_sequential_keras_saved_model_save(server: Any, model: str) -> None:
    """Theirs: the same, and test_distrat_...; Keras 3 calls the output `output_0`."""
    verify_predict(server, 2.0, model=model, is_batch=True, has_filter=False, output="output_0")
