"""Photos whose class is their colour, and a network that sees it: exact answers without any training."""

import io
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}


def encode(colour: str, number: int = 0, kind: str = "JPEG", side: int = 40) -> bytes:
    """Return a photo of a colour with noise of its own."""
    noise = np.random.default_rng(number).integers(-15, 16, (side, side, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def example(image: bytes, label: str, item_id: str) -> bytes:
    """Return a serialized image Example."""
    values = {"image/encoded": image, "label": label.encode(), "item_id": item_id.encode()}
    features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(
        deterministic=True
    )


def examples(per_colour: int, colours: Sequence[str] = tuple(COLOURS)) -> list[bytes]:
    """Return Examples of all colours in turn, each rightly labelled."""
    return [
        example(encode(colour, number), colour, f"{colour}-{number}")
        for number in range(per_colour)
        for colour in colours
    ]


def write(path: Path, records: Sequence[bytes]) -> str:
    """Write a GZIP TFRecord file where the name ends in .gz; return its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else "") as writer:
        for record in records:
            writer.write(record)
    return str(path)


def colour_network(image_size: int, labels: Sequence[str]) -> keras.Model:
    """Return a network whose logit of a class is how much of its colour the image holds."""
    images = keras.Input((image_size, image_size, 3))
    means = keras.layers.GlobalAveragePooling2D()(images)
    logits = keras.layers.Dense(len(labels), name="logits")
    network = keras.Model(images, logits(means))
    kernel = np.zeros((3, len(labels)), np.float32)
    for place, label in enumerate(labels):
        if label in COLOURS:
            kernel[:, place] = (np.array(COLOURS[label]) - 90) / 4000
    logits.set_weights([kernel, np.zeros(len(labels), np.float32)])
    return network
