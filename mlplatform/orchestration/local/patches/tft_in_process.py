"""TensorFlow Transform inside a node's process.

What is replaced is replaced in this process alone, which ends with its node.
"""

import sys
from typing import Any

from mlplatform.private_names import Patch, apply_patches

_LAYER = "tensorflow_transform:TransformFeaturesLayer.__call__"


def prepare() -> None:
    """Have AutoGraph leave the layer that applies a transformation as it is.

    A model that is exported with its transformation calls the layer in a `tf.function`. AutoGraph would
    rewrite the code of the layer, of `tf_keras` and of TensorFlow Transform: some fifty functions, a third of
    a small Trainer's time. They branch on no tensor, run as they are in Transform, and build the same graph.

    Nothing is done where TensorFlow Transform is not imported yet.
    """
    if "tensorflow_transform" in sys.modules:
        apply_patches((Patch(_apply_the_layer_as_it_is, (_LAYER,)),))


def _apply_the_layer_as_it_is() -> None:
    import tensorflow as tf

    layer: Any = sys.modules["tensorflow_transform"].TransformFeaturesLayer
    layer.__call__ = tf.autograph.experimental.do_not_convert(layer.__call__)
