"""Which signatures may share runs: those whose rows get the same answers alone and in a batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tensorflow as tf

    def saved(name: str, dtype: Any, call: Callable[[Any], Any]) -> Any:
        function = tf.function(call, input_signature=[tf.TensorSpec([None, 2], dtype, name="x")])
        module.kept[name] = function
        return function

    weights = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    module = tf.Module()
    module.kept = {}
    signatures = {
        "serving_default": saved("double", tf.float32, lambda x: {"y": x @ weights}),
        "whole": saved("whole", tf.int32, lambda x: {"y": x + 1}),
        "centred": saved("centred", tf.float32, lambda x: {"y": x - tf.reduce_mean(x, 0)}),
        "sorted": saved("sorted", tf.float32, lambda x: {"y": tf.sort(x, 0)}),
        "position": saved("position", tf.float32, lambda x: {"y": tf.range(tf.shape(x)[0])}),
        "random": saved("random", tf.float32, lambda x: {"y": x + tf.random.uniform(tf.shape(x))}),
        "texts": saved("texts", tf.string, lambda x: {"y": tf.strings.length(x)}),
    }
    folder = tmp_path_factory.mktemp("rows") / "1"
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


SHOWN = {"serving_default", "whole"}


@pytest.mark.parametrize(("unless_shown", "shared"), [(False, SHOWN), (True, SHOWN | {"texts"})])
def test_only_independent_rows_share_runs(folder: Path, unless_shown: bool, shared: set[str]) -> None:
    from mlplatform.serving.row_check import keep_dependent_rows_apart
    from mlplatform.serving.saved_model import load

    servable = load(folder, "m", 1)
    keep_dependent_rows_apart(servable, unless_shown=unless_shown)
    assert {name for name, one in servable.signatures.items() if one.is_batchable} == shared


def test_recorded_requests_show_what_texts_do(folder: Path, tmp_path: Path) -> None:
    import shutil

    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from mlplatform.serving.row_check import keep_dependent_rows_apart
    from mlplatform.serving.saved_model import load

    recorded = tmp_path / "1"
    shutil.copytree(folder, recorded)
    entry = prediction_log_pb2.PredictionLog()
    request = entry.predict_log.request
    request.model_spec.signature_name = "texts"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([["a", "bb"], ["ccc", ""]]))
    (recorded / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(recorded / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(entry.SerializeToString())
    servable = load(recorded, "m", 1)
    keep_dependent_rows_apart(servable, unless_shown=False)
    assert servable.signatures["texts"].is_batchable

    (recorded / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"no record")
    servable = load(recorded, "m", 1)
    keep_dependent_rows_apart(servable, unless_shown=False)
    assert {name for name, one in servable.signatures.items() if one.is_batchable} == SHOWN


@pytest.mark.parametrize(
    ("flags", "shared"),
    [({}, False), ({"enable_batching": True}, True), ({"enable_batching": False}, False)],
)
def test_the_server_checks_unless_it_is_told(folder: Path, flags: dict[str, bool], shared: bool) -> None:
    from mlplatform.serving import ModelServer

    server = ModelServer(
        model_name="m",
        model_base_path=folder.parent,
        port=0,
        rest_api_port=-1,
        lame_duck_s=0.0,
        enable_model_warmup=False,
        **flags,
    )
    with server, server.manager.servable("m", None, None) as servable:
        can_share = servable.signatures["centred"].is_batchable
        assert can_share is (shared or flags.get("enable_batching") is False)
        sizes = server.settings.is_batching
        assert sizes is (flags.get("enable_batching") is not False)


def test_failing_rows_say_nothing(folder: Path) -> None:
    from dataclasses import replace

    from mlplatform.serving.row_check import rows_are_independent
    from mlplatform.serving.saved_model import load
    from mlplatform.serving.status import invalid_argument

    def refuse(inputs: Any) -> Any:
        raise invalid_argument("no")

    signature = load(folder, "m", 1).signatures["serving_default"]
    rows = [{"x": np.ones((1, 2), np.float32)}] * 2
    assert rows_are_independent(signature, rows) is True
    assert rows_are_independent(replace(signature, run=refuse), rows) is None
