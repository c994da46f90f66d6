"""Several devices learn what one learns, and bfloat16 nearly that. Two logical CPUs stand for GPUs."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

# A process of its own: devices are divided before TensorFlow is used. It has to end by itself, too.
LEARNING = """
import sys, tempfile
from pathlib import Path
import keras, numpy as np, tensorflow as tf
from mlplatform.training.devices import trainable
from mlplatform.training.fit import fit

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
devices, precision, layers = sys.argv[1].split(), sys.argv[2], keras.layers
keras.utils.set_random_seed(0)

body = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(6, 3, activation="relu", name="frozen"),
    layers.BatchNormalization(), layers.GlobalAveragePooling2D()])
body.layers[0].trainable = body.layers[1].trainable = False
head = keras.Sequential([keras.Input((6,)), layers.Dense(3, name="logits", dtype="float32")])
network = keras.Model(body.inputs, head(body.outputs[0]))
frozen, before = network.get_weights()[0], network.get_weights()[-2]

random = np.random.default_rng(0)
images, labels = random.normal(size=(64, 8, 8, 3)).astype(np.float32), random.integers(0, 3, 64)
rows = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
with trainable(network, precision, devices) as model, tempfile.TemporaryDirectory() as folder:
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")], jit_compile=False)
    done = fit(model, lambda epoch: rows, rows, epochs=3, steps=4, folder=Path(folder, "c"),
        logs=Path(folder, "l"), description="fit")
weights = network.get_weights()
assert np.array_equal(weights[0], frozen) and not np.allclose(weights[-2], before, atol=1e-3)
np.savez(sys.argv[3], *weights, losses=[each["val_loss"] for each in done.history])
assert {layer.compute_dtype for layer in network.layers} == {"float32"}
"""


Learn = Callable[[str, str], list[Any]]


@pytest.fixture(scope="module")
def learn(warm_processes: Any, tmp_path_factory: pytest.TempPathFactory) -> Learn:
    """Return the weights, and the losses, that devices end with."""

    def learn(devices: str, precision: str) -> list[Any]:
        folder = tmp_path_factory.mktemp("learned")
        command = [sys.executable, "-c", LEARNING, devices, precision, str(folder / "arrays.npz")]
        with (folder / "log").open("wb") as log:
            assert warm_processes.Popen(command, stdout=log).wait() == 0, (folder / "log").read_text()
        with np.load(folder / "arrays.npz") as arrays:
            return [arrays[name] for name in arrays.files]

    return learn


@pytest.fixture(scope="module")
def of_one_device(learn: Learn) -> list[Any]:
    return learn("", "float32")


@pytest.mark.parametrize(
    ("devices", "precision", "nearness"),
    [("CPU:0 CPU:1", "float32", 1e-5), ("", "bfloat16", 0.02), ("CPU:0 CPU:1", "bfloat16", 0.02)],
)
def test_it_learns_what_one_device_learns(
    learn: Learn, of_one_device: list[Any], devices: str, precision: str, nearness: float
) -> None:
    for found, wanted in zip(learn(devices, precision), of_one_device, strict=True):
        np.testing.assert_allclose(found, wanted, atol=nearness)
