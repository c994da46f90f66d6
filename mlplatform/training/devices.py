"""What a network learns on: all GPUs of the machine, in bfloat16 where they have instructions for it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import keras
import tensorflow as tf

Precision = Literal["auto", "float32", "bfloat16"]

_BFLOAT16_CAPABILITY = (8, 0)  # compute capability of NVIDIA's Ampere, the first with bfloat16


def gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as TensorFlow knows them."""
    return [device.name for device in tf.config.list_logical_devices("GPU")]


def policy_for(precision: Precision) -> str:
    """Return the dtype policy of a training: Keras's `mixed_bfloat16` or `float32`.

    Args:
        precision: `auto` takes bfloat16 where there are GPUs and all have instructions for it.
    """
    if precision == "auto":
        found = [tf.config.experimental.get_device_details(d) for d in tf.config.list_physical_devices("GPU")]
        capabilities = [details.get("compute_capability") or (0, 0) for details in found]
        has_bfloat16 = bool(found) and min(capabilities) >= _BFLOAT16_CAPABILITY
        precision = "bfloat16" if has_bfloat16 else "float32"
    return "mixed_bfloat16" if precision == "bfloat16" else "float32"


@contextmanager
def trainable(network: keras.Model, precision: Precision, devices: Sequence[str]) -> Iterator[keras.Model]:
    """Yield a model to compile and fit within; what it has learned is in `network` afterwards.

    With several devices each batch is divided among them, and their gradients are summed
    (`tf.distribute.MirroredStrategy`). Weights, their updates and the layer `logits` stay in float32.

    Args:
        network: A functional model in float32. Which layers are trainable is kept.
        precision: What it computes in.
        devices: Names of TensorFlow's logical devices; one or none: TensorFlow chooses.
    """
    policy = policy_for(precision)
    if len(devices) <= 1 and policy == "float32":
        yield keras.Model(network.inputs, network.outputs)  # the same layers
        return
    strategy = _strategy(devices)
    with strategy.scope():
        copy = keras.models.clone_model(network, clone_function=_in(policy), recursive=True)
        copy.set_weights(network.get_weights())
        yield copy
    network.set_weights(copy.get_weights())


def _strategy(devices: Sequence[str]) -> tf.distribute.Strategy:
    if len(devices) <= 1:
        return tf.distribute.get_strategy()
    # NCCL sums between GPUs alone.
    is_nccl = all("GPU" in device for device in devices)
    sums = None if is_nccl else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(list(devices), cross_device_ops=sums)


def _in(policy: str) -> Callable[[keras.layers.Layer], keras.layers.Layer]:
    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name != "logits":
            config["dtype"] = policy
        return layer.__class__.from_config(config)

    return clone
