"""Write the models of the serving benchmark: `make_models.py CACHE ITEM_PX MOBILE_PX`.

Each model is written twice, with its TensorFlow Lite form in float32, and as `<name>-int8`.
"""

import io
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from mlplatform.exported_model.tflite_export import export_tflite
from mlplatform.vision.efficientnet_lite import efficientnet_lite0
from mlplatform.vision.signatures import export_image_classifier

CALIBRATION_PHOTOS = 50


def jpeg(seed: int) -> bytes:
    small = (np.random.default_rng(seed).random((12, 12, 3)) * 255).astype("uint8")
    out = io.BytesIO()
    Image.fromarray(small).resize((224, 224)).save(out, "JPEG", quality=90)
    return out.getvalue()


def example(photo: bytes) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[photo]))
    features = tf.train.Features(feature={"image/encoded": feature})
    return tf.train.Example(features=features).SerializeToString()


def item_category(folder: Path, px: int) -> None:
    network = keras.Sequential([keras.Input((px, px, 3)), efficientnet_lite0(px), keras.layers.Dense(24)])
    labels = [f"class {n}" for n in range(24)]
    partial = folder.with_name("partial")
    export_image_classifier(network, labels, px, partial, samples=[example(jpeg(n)) for n in range(4)])
    export_forms(partial, folder, "pixels", px, np.float32)


def mobilenet(folder: Path, px: int) -> None:
    network = keras.applications.MobileNetV2((px, px, 3), alpha=0.5, weights=None, classes=100)

    @tf.function(input_signature=[tf.TensorSpec([None, px, px, 3], tf.uint8, name="images")])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": network(tf.cast(images, tf.float32) / 127.5 - 1.0, training=False)}

    module = tf.Module()
    module.network = network
    partial = folder.with_name("partial")
    tf.saved_model.save(module, str(partial), signatures={"serving_default": serve})
    export_forms(partial, folder, "serving_default", px, np.uint8)


def export_forms(partial: Path, folder: Path, signature: str, px: int, dtype: type) -> None:
    export_tflite(partial, signature)
    int8 = folder.parent.with_name(f"{folder.parent.name}-int8") / folder.name
    shutil.rmtree(int8, ignore_errors=True)
    shutil.copytree(partial, int8)
    photos = [Image.open(io.BytesIO(jpeg(n))).resize((px, px)) for n in range(CALIBRATION_PHOTOS)]
    export_tflite(int8, signature, calibration=[{"images": np.asarray(p, dtype)[None]} for p in photos])
    partial.rename(folder)


def main() -> None:
    cache, item_px, mobile_px = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    keras.utils.set_random_seed(1)
    for name, write, px in (("item_category", item_category, item_px), ("mobilenet", mobilenet, mobile_px)):
        folder = cache / name / "1"
        if not folder.exists():
            shutil.rmtree(folder.with_name("partial"), ignore_errors=True)
            write(folder, px)
    (cache / "photo.jpg").write_bytes(jpeg(7))


if __name__ == "__main__":
    main()
