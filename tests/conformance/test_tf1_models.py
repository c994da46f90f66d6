"""TF1 SavedModels with reference variables, and models of which one signature is broken.

TF2's loader does not take them; TensorFlow Serving, which runs sessions, does.
"""

import re
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

pytestmark = pytest.mark.e2e

v1 = tf.compat.v1
PREDICT = "tensorflow/serving/predict"


def signature(inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    info = v1.saved_model.utils.build_tensor_info
    build = v1.saved_model.signature_def_utils.build_signature_def
    named = [{alias: info(tensor) for alias, tensor in tensors.items()} for tensors in (inputs, outputs)]
    return build(*named, PREDICT)


def save(folder: Path, session: Any, signatures: dict[str, Any], main_op: Any = None) -> None:
    session.run(v1.global_variables_initializer())
    builder = v1.saved_model.Builder(str(folder))
    builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures, main_op=main_op)
    builder.save()


def save_counter(folder: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        counter = v1.Variable(0.0, use_resource=False)
        delta = v1.placeholder(tf.float32, [])
        signatures = {
            "get_counter": signature({}, {"output": counter}),
            "incr_counter": signature({}, {"output": counter.assign_add(1.0)}),
            "incr_counter_by": signature({"delta": delta}, {"output": counter.assign_add(delta)}),
            "reset_counter": signature({}, {"output": counter.assign(0.0)}),
        }
        save(folder, session, signatures)


def save_half_plus_three(folder: Path) -> None:
    """Reference variables, one of them written when the model is loaded, and the same input as an output."""
    with tf.Graph().as_default(), v1.Session() as session:
        half, three = v1.Variable(0.5, use_resource=False), v1.Variable(0.0, use_resource=False)
        x = v1.placeholder(tf.float32, [None])
        signatures = {
            "serving_default": signature({"x": x}, {"y": half * x + three}),
            "same": signature({"x": x}, {"y": x}),
        }
        save(folder, session, signatures, main_op=three.assign(3.0).op)


def save_with_broken_signatures(folder: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        weight = v1.Variable(2.0, use_resource=True)
        x = v1.placeholder(tf.float32, [None])
        good = signature({"x": x}, {"y": weight * x})
        gone, resource = signature({"x": x}, {"y": x}), signature({}, {"handle": weight.handle})
        gone.outputs["y"].name = "nowhere:0"
        save(folder, session, {"serving_default": good, "gone": gone, "resource": resource})


def save_without_a_function(folder: Path) -> None:
    """TF2, with a signature that its graph cannot compute."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def double(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": 2.0 * x}

    module = tf.Module()
    module.double = double
    tf.saved_model.save(module, str(folder), signatures={"serving_default": double})
    file = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (graph,) = saved.meta_graphs
    graph.signature_def["extra"].CopyFrom(graph.signature_def["serving_default"])
    file.write_bytes(saved.SerializeToString())


MODELS = {
    "counter": save_counter,
    "half_plus_three": save_half_plus_three,
    "broken_signatures": save_with_broken_signatures,
    "without_a_function": save_without_a_function,
}


@pytest.fixture(scope="module")
def server(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("tf1")
    entries = []
    for name, write in MODELS.items():
        write(root / name / "1")
        entries.append(f'config {{ name: "{name}" base_path: "{root / name}" model_platform: "tensorflow" }}')
    (root / "models.config").write_text(f"model_config_list {{ {' '.join(entries)} }}")
    return serve(f"--model_config_file={root / 'models.config'}", "--enable_batching=true")


def test_a_counter_in_a_reference_variable(server: Any) -> None:
    def count(name: str, **inputs: Any) -> float:
        return float(server.predict("counter", inputs, name)["output"])

    assert count("reset_counter") == 0.0
    assert [count("incr_counter") for _ in range(2)] == [1.0, 2.0]
    assert count("incr_counter_by", delta=np.float32(5.0)) == 7.0
    assert count("get_counter") == 7.0
    assert count("reset_counter") == count("get_counter") == 0.0


def test_reference_variables_and_what_the_main_op_writes(server: Any) -> None:
    x = np.array([2.0, 4.0], np.float32)
    assert server.predict("half_plus_three", {"x": x})["y"].tolist() == [4.0, 5.0]
    answer = server.rest("/v1/models/half_plus_three:predict", {"instances": [2.0, 3.0, 4.0]})
    assert answer.body == {"predictions": [4.0, 4.5, 5.0]}


def test_an_input_that_is_its_own_output(server: Any) -> None:
    assert server.predict("half_plus_three", {"x": np.float32([7.0])}, "same")["y"].tolist() == [7.0]


@pytest.mark.parametrize(
    ("model", "name", "text"),
    [
        ("broken_signatures", "gone", "the graph has no tensor 'nowhere:0' for y"),
        ("broken_signatures", "resource", "tensor handle is of dtype resource"),
        ("without_a_function", "extra", "the model has no function for it"),
    ],
)
def test_a_broken_signature_leaves_the_others(server: Any, model: str, name: str, text: str) -> None:
    x = np.array([1.0, 2.0], np.float32)
    assert server.predict(model, {"x": x})["y"].tolist() == [2.0, 4.0]
    if not server.is_ours:
        pytest.skip("the codes and texts are our own")
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(model, {} if name == "resource" else {"x": x}, name)
    assert caught.value.code().name == "FAILED_PRECONDITION"
    assert f'Serving signature key "{name}" cannot be computed: ' in caught.value.details()
    assert text in caught.value.details()
    answer = server.rest(f"/v1/models/{model}:predict", {"instances": [1.0], "signature_name": name})
    assert (answer.status, text in answer.error) == (400, True)


def test_a_version_that_can_compute_nothing_does_not_replace_another(
    serve: Any, push: Any, wait_for: Any, tmp_path: Path
) -> None:
    base, broken = tmp_path / "m", tmp_path / "broken"
    push(base, 1)
    save_with_broken_signatures(broken)
    file = broken / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    del saved.meta_graphs[0].signature_def["serving_default"]
    file.write_bytes(saved.SerializeToString())
    server = serve(f"--model_base_path={base}", "--model_name=m", "--file_system_poll_wait_seconds=1")
    if not server.is_ours:
        pytest.skip("another server may load it, and answer with errors")
    broken.rename(base / "2")
    wait_for(lambda: server.states("m").get(2) == "END")
    (state,) = server.rest("/v1/models/m/versions/2").body["model_version_status"]
    said = state["status"]["error_message"]
    assert re.search(r"no signature of \S+/2 can be computed: .*gone: the graph has no tensor", said)
    assert server.half("m") == 4.0
