"""Asks a model in the environment of a server: a script that needs nothing but TensorFlow there.

Run as `PYTHON -I asked_elsewhere.py MODEL_DIR REQUESTS_FILE`. The file holds one JSON object per line,
`{"signature": NAME, "inputs": {NAME: TENSOR}, ...}`, each tensor a TensorProto in base 64. It prints one JSON
object per line, so that whoever started it knows how far it came when it dies: `{"tensorflow": VERSION}`,
`{"doing": ...}` before each step, `{"outputs": {NAME: TENSOR}}` for each request, in their order.
"""

import json
import sys
from base64 import b64decode, b64encode
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2


def main() -> None:
    """Load the model that the command line names, and ask it."""
    _say(tensorflow=tf.__version__)
    model_dir, requests_file = sys.argv[1:]
    _say(doing="load the model")
    model = tf.saved_model.load(model_dir)
    with open(requests_file, encoding="utf-8") as lines:
        requests = [json.loads(line) for line in lines]
    for request in requests:
        _say(doing="ask " + request["signature"])
        inputs = {name: tf.constant(from_text(text)) for name, text in request["inputs"].items()}
        outputs = model.signatures[request["signature"]](**inputs)
        _say(outputs={name: to_text(value.numpy()) for name, value in outputs.items()})


def to_text(array: Any) -> str:
    """Return an array as text."""
    return b64encode(tf.make_tensor_proto(array).SerializeToString()).decode()


def from_text(text: str) -> Any:
    """Return the array that `to_text` was given."""
    return tf.make_ndarray(tensor_pb2.TensorProto.FromString(b64decode(text)))


def _say(**fact: Any) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
