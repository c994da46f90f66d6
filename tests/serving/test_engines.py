"""Which engine computes a signature: what costs least, and the SavedModel unless another saves a tenth."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.e2e


class Clock:
    """Time that passes where a call says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def form(clock: Clock) -> Callable[..., Any]:
    """Make a form of a signature of which a call takes `seconds`, or so many for each number of rows."""
    from tensorflow.core.protobuf import meta_graph_pb2

    from mlplatform.serving.servable import Signature, TensorSpec
    from mlplatform.serving.tensors import DataType

    spec = TensorSpec(DataType.FLOAT, (None, 2))

    def form(engine: str, seconds: Any, **facts: Any) -> Signature:
        def run(inputs: Any) -> Any:
            if isinstance(seconds, Exception):
                raise seconds
            rows = len(inputs["x"])
            clock.now += seconds[rows] if isinstance(seconds, dict) else seconds
            return {"y": inputs["x"]}

        definition = meta_graph_pb2.SignatureDef()
        tensors = {"x": facts.pop("spec", spec)}
        return Signature("serving_default", definition, tensors, {"y": spec}, run, engine=engine, **facts)

    return form


ONE, EIGHT = ({"x": np.zeros((rows, 2), np.float32)} for rows in (1, 8))


@pytest.mark.parametrize(
    ("lite", "half", "chosen"),
    [
        (0.95, 2.0, "tensorflow"),  # too near
        (0.8, 2.0, "tflite"),
        (0.8, 0.7, "bfloat16"),
        (0.7, 0.8, "tflite"),
        (2.0, 1.2, "tensorflow"),
    ],
)
def test_the_cheapest_is_chosen(form: Any, clock: Clock, lite: float, half: float, chosen: str) -> None:
    from mlplatform.serving.engines import cheapest

    forms = [form("tflite", lite), form("bfloat16", half)]
    assert cheapest(form("tensorflow", 1.0), forms, [ONE], clock).engine == chosen


def test_an_engine_that_costs_more_in_batches_is_not_chosen(form: Any, clock: Clock) -> None:
    from mlplatform.serving.engines import cheapest

    reference, lite = form("tensorflow", {1: 1.0, 8: 3.0}), form("tflite", {1: 0.5, 8: 4.0})
    assert cheapest(reference, [lite], [ONE, EIGHT], clock) is reference
    assert cheapest(reference, [lite], [ONE], clock) is lite


def test_an_engine_that_fails_is_not_chosen(form: Any, clock: Clock) -> None:
    from mlplatform.serving.engines import cheapest
    from mlplatform.serving.status import Code, StatusError

    broken = form("tflite", StatusError(Code.INTERNAL, "no"))
    reference = form("tensorflow", 1.0)
    assert cheapest(reference, [broken, form("bfloat16", 0.5)], [ONE], clock).engine == "bfloat16"
    assert cheapest(reference, [broken], [ONE], clock) is reference
    assert cheapest(broken, [form("tflite", 1.0)], [ONE], clock).engine == "tflite"
    assert cheapest(broken, [form("tflite", StatusError(Code.INTERNAL, "no"))], [ONE], clock) is broken


def test_what_cannot_be_measured_stays(form: Any, clock: Clock, tmp_path: Path) -> None:
    from mlplatform.serving.engines import by_cost
    from mlplatform.serving.servable import TensorSpec
    from mlplatform.serving.tensors import DataType

    choose = by_cost(tmp_path, shares_runs=True, clock=clock)
    for spec in (TensorSpec(DataType.STRING, (None,)), TensorSpec(DataType.FLOAT, (None, None))):
        reference = form("tensorflow", 1.0, spec=spec)
        assert choose(reference, [form("tflite", 0.1, spec=spec)]) is reference
    reference = form("tensorflow", 1.0)
    assert choose(reference, [form("tflite", 0.1)]).engine == "tflite"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution whose weights bfloat16 does not hold, and signatures with state and without a network."""
    import tensorflow as tf

    class Network(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            rng = tf.random.Generator.from_seed(1)
            self.kernel = tf.Variable(rng.normal([3, 3, 3, 16]))
            self.calls = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32, name="images")])
        def scores(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
            hidden = tf.nn.relu(tf.nn.conv2d(images, self.kernel, 1, "SAME"))
            return {"scores": tf.nn.softmax(tf.reduce_mean(hidden, [1, 2]))}

        @tf.function(input_signature=[])
        def count(self) -> dict[str, tf.Tensor]:
            return {"calls": self.calls.assign_add(1.0)}

    module = Network()
    folder = tmp_path_factory.mktemp("network") / "1"
    signatures = {"serving_default": module.scores, "count": module.count}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def images(rows: int) -> Any:
    return {"images": np.random.default_rng(2).uniform(0, 1, (rows, 32, 32, 3)).astype(np.float32)}


def test_bfloat16_answers_nearly_the_same(network: Path) -> None:
    from mlplatform.serving.saved_model import load

    plain, half = (load(network, "m", 1, mixed_precision=p) for p in ("", "bfloat16"))
    engines = {name: signature.engine for name, signature in half.signatures.items()}
    assert engines == {"serving_default": "tensorflow-bfloat16", "count": "tensorflow"}
    wanted, found = (m.signatures["serving_default"].run(images(3))["scores"] for m in (plain, half))
    assert found.dtype == np.float32
    assert np.abs(wanted - found).max() < 0.02
    assert [float(half.signatures["count"].run({})["calls"]) for _ in range(2)] == [1.0, 2.0]


def test_a_version_asks_for_it_and_the_server_may_forbid_it(network: Path, tmp_path: Path) -> None:
    from mlplatform.serving.mixed_precision import ask_for_bfloat16
    from mlplatform.serving.saved_model import load
    from mlplatform.serving.status import StatusError

    folder = tmp_path / "1"
    shutil.copytree(network, folder)
    file = ask_for_bfloat16(folder)
    assert load(folder, "m", 1).signatures["serving_default"].engine == "tensorflow-bfloat16"
    assert load(folder, "m", 1, mixed_precision="none").signatures["serving_default"].engine == "tensorflow"
    file.write_text("float8")
    with pytest.raises(StatusError, match="'float8', not 'bfloat16' or 'none'"):
        load(folder, "m", 1)


def test_the_server_takes_the_flag(network: Path) -> None:
    from mlplatform.serving import Client, ModelServer
    from mlplatform.serving.settings import ServerSettings, SettingsError

    with pytest.raises(SettingsError, match="'float16' is not bfloat16 or none"):
        ServerSettings(mixed_precision="float16")
    with (
        ModelServer(
            model_name="m",
            model_base_path=network.parent,
            mixed_precision="bfloat16",
            port=0,
            rest_api_port=-1,
            lame_duck_s=0.0,
        ) as server,
        Client(f"127.0.0.1:{server.grpc_port}") as client,
    ):
        assert client.predict("m", images(2))["scores"].shape == (2, 16)


def test_an_error_that_quotes_bytes_is_reported_with_them(tmp_path: Path) -> None:
    """TensorFlow puts the bytes of a request into its text, which Python cannot decode."""
    import tensorflow as tf

    from mlplatform.serving.saved_model import load
    from mlplatform.serving.status import Code, StatusError

    module = tf.Module()
    module.weight = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def parsed(text: Any) -> dict[str, Any]:
        return {"y": module.weight * tf.strings.to_number(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def stateless(text: Any) -> dict[str, Any]:
        return {"y": tf.strings.to_number(text)}

    tf.saved_model.save(module, str(tmp_path), signatures={"parsed": parsed, "stateless": stateless})
    signatures = load(tmp_path, "numbers", 1).signatures
    for signature in signatures.values():
        with pytest.raises(StatusError) as caught:
            signature.run({"text": np.array([b"1.5 \xff"], object)})
        assert caught.value.code == Code.INVALID_ARGUMENT
        assert r"could not correctly convert string: 1.5 \xff" in caught.value.text
