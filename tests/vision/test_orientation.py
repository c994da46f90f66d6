"""A photo is upright wherever it is decoded: in training, in exported models, in the ingest and on pages."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mlplatform.components.image_example_gen.photo import Photo, look_at
from mlplatform.exif import orientation, upright
from mlplatform.vision.decoding import READS_WEBP, decode_batch, decode_image
from mlplatform.vision.examples import parse_example
from mlplatform.vision.orientation import orientation as orientation_in_graph
from mlplatform.vision.signatures import export_image_classifier

SIDE = 8
KINDS = ("JPEG", "PNG", "WEBP")
LOSSLESS = {"JPEG": {"quality": 100, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}


def picture(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """No two of its turns are alike."""
    across = np.linspace(0, 200, width)[None, :, None] * [1, 0, 0]
    down = np.linspace(0, 255, height)[:, None, None] * [0, 1, 0]
    return Image.fromarray((across + down).astype(np.uint8))


def held(turn: int, kind: str = "JPEG", endian: str = "<", size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    """A photo with an EXIF orientation, among other notes."""
    notes = Image.Exif()
    notes.endian = endian
    notes[0x010F], notes[0x0112], notes[0x0132] = "Maker", turn, "2026:01:01 00:00:00"
    file = io.BytesIO()
    picture(*size).save(file, kind, exif=notes.tobytes(), **LOSSLESS[kind])
    return file.getvalue()


def shown(encoded: bytes) -> Image.Image:
    """What Pillow takes for upright."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")


in_graph = tf.function(orientation_in_graph, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turn", range(1, 9))
def test_all_orientations_are_read_and_turned_as_pillow_does(turn: int, kind: str, endian: str) -> None:
    encoded = held(turn, kind, endian, size=(6, 9))
    assert orientation(encoded) == turn
    assert in_graph(encoded) == turn
    turned = upright(Image.open(io.BytesIO(encoded)), encoded).convert("RGB")
    assert turned.tobytes() == shown(encoded).tobytes()
    width, height = shown(encoded).size
    assert look_at(encoded, max_pixels=100) == Photo(kind.lower(), height, width, is_turned=turn != 1)


@pytest.mark.parametrize("kind", KINDS if READS_WEBP else KINDS[:2])
@pytest.mark.parametrize("turn", range(1, 9))
def test_training_sees_photos_upright(turn: int, kind: str) -> None:
    encoded = held(turn, kind)
    np.testing.assert_array_equal(decode_image(encoded, SIDE), _reference(encoded))
    # Scaled first and turned then, as here, or the other way round: but for rounding the same.
    oblong = held(turn, "PNG", size=(40, 24))
    pixels = np.asarray(shown(oblong), np.float32)
    np.testing.assert_allclose(
        decode_image(oblong, SIDE), tf.image.resize(pixels, [SIDE, SIDE], antialias=True), atol=1e-3
    )


def _reference(encoded: bytes) -> NDArray[np.float32]:
    """What TensorFlow decodes, turned by Pillow."""
    plain = Image.fromarray(tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy())
    return np.asarray(upright(plain, encoded), np.float32)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_webp_photo_is_upright_where_tensorflow_reads_none(turn: int) -> None:
    encoded = held(turn, "WEBP")
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        "label": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"hat"])),
    }
    record = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    pixels = decode_image(parse_example(record)["image/encoded"], SIDE)
    np.testing.assert_array_equal(pixels, np.asarray(shown(encoded), np.float32))


def test_photos_without_a_note_keep_their_pixels_to_the_bit() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 31, 3), np.uint8))
    saved = {
        "JFIF": ("JPEG", {}),
        "progressive": ("JPEG", {"progressive": True}),
        "comment": ("JPEG", {"comment": b"Exif\0\0II*\0 in words"}),
        "profile": ("JPEG", {"icc_profile": b"x" * 100_000}),
        "resolution": ("PNG", {"dpi": (72, 72)}),
        "PNG": ("PNG", {}),
        "GIF": ("GIF", {}),
        "BMP": ("BMP", {}),
    }
    for name, (kind, options) in saved.items():
        file = io.BytesIO()
        noise.save(file, kind, **options)
        pixels = tf.io.decode_image(file.getvalue(), channels=3, expand_animations=False)
        scaled = tf.image.resize(tf.cast(pixels, tf.float32), [SIDE, SIDE], antialias=True)
        wanted = tf.clip_by_value(scaled, 0.0, 255.0)
        np.testing.assert_array_equal(decode_image(file.getvalue(), SIDE), wanted, err_msg=name)


def test_exported_models_answer_for_the_upright_photo(tmp_path: Path) -> None:
    images = keras.Input((SIDE, SIDE, 3))
    # Tells the corners apart, so each turn of the picture gets scores of its own.
    places = ((0, 0, 0), (0, -1, 0), (-1, 0, 1))  # row, column, channel
    corners = keras.layers.Lambda(lambda x: tf.stack([x[:, r, c, d] for r, c, d in places], -1) / 64)
    network = keras.Model(images, corners(images))
    photos = [held(turn, kind) for turn in range(1, 9) for kind in ("JPEG", "PNG")]
    sample = tf.train.Example()
    sample.features.feature["image/encoded"].bytes_list.value.append(photos[0])
    export_image_classifier(
        network, ["a", "b", "c"], SIDE, tmp_path / "m", samples=[sample.SerializeToString()]
    )
    model = tf.saved_model.load(str(tmp_path / "m"))
    pixels = np.stack([_reference(photo) for photo in photos])
    wanted = model.signatures["pixels"](images=tf.constant(pixels))
    assert len({tuple(np.round(row, 3)) for row in wanted["scores"].numpy()[::2].tolist()}) > 2
    requests = []
    for photo in photos:
        example = tf.train.Example()
        example.features.feature["image/encoded"].bytes_list.value.append(photo)
        requests.append(example.SerializeToString())
    for found in (
        model.signatures["image_bytes"](image_bytes=tf.constant(photos)),
        model.signatures["serving_default"](examples=tf.constant(requests)),
    ):
        np.testing.assert_array_equal(found["scores"], wanted["scores"])
        np.testing.assert_array_equal(found["classes"], wanted["classes"])
    # Stock servers run the graph alone: nothing in it calls back into Python.
    assert not {name for name in _operations(tmp_path / "m") if "PyFunc" in name}


def _operations(folder: Path) -> set[str]:
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return {node.op for f in model.meta_graphs[0].graph_def.library.function for node in f.node_def}


def _tiff(entries: bytes, order: bytes = b"II", at: int = 8) -> bytes:
    count = len(entries) // 12
    code = "<" if order == b"II" else ">"
    return order + struct.pack(f"{code}HI", 42, at) + struct.pack(f"{code}H", count) + entries + bytes(4)


def _entry(tag: int = 0x0112, kind: int = 3, count: int = 1, value: int = 6) -> bytes:
    return struct.pack("<HHIHH", tag, kind, count, value, 0)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _jpeg(*segments: bytes) -> bytes:
    plain = io.BytesIO()
    picture().save(plain, "JPEG")
    return b"\xff\xd8" + b"".join(segments) + plain.getvalue()[2:]


def _exif(tiff: bytes) -> bytes:
    return _segment(0xE1, b"Exif\0\0" + tiff)


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    plain = io.BytesIO()
    picture().save(plain, "PNG")
    made = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return plain.getvalue()[:33] + made + plain.getvalue()[33:]


SIX = _tiff(_entry())
ODD_BLOCKS = {
    "as it should be": (_jpeg(_exif(SIX)), 6),
    "after a comment and XMP": (_jpeg(_segment(0xFE, b"hi"), _segment(0xE1, b"http://ns"), _exif(SIX)), 6),
    "the first of two blocks": (_jpeg(_exif(SIX), _exif(_tiff(_entry(value=3)))), 6),
    "the first of two notes": (_jpeg(_exif(_tiff(_entry(value=8) + _entry(value=3)))), 8),
    "after other tags": (_jpeg(_exif(_tiff(_entry(0x0100) * 200 + _entry()))), 6),
    "within a profile": (_jpeg(_segment(0xE2, b"\xff\xe1\0\x40Exif\0\0" + SIX)), 1),
    "behind the tables": (_jpeg(_segment(0xDB, bytes(65)), _exif(SIX)), 1),
    "behind 70 segments": (_jpeg(*[_segment(0xE5, b"")] * 70, _exif(SIX)), 1),
    "behind 300 KB": (_jpeg(*[_segment(0xE5, bytes(60_000))] * 5, _exif(SIX)), 1),
    "no tags": (_jpeg(_exif(_tiff(b""))), 1),
    "no TIFF": (_jpeg(_exif(b"")), 1),
    "half a header": (_jpeg(_exif(SIX[:6])), 1),
    "half a tag": (_jpeg(_exif(SIX[:18])), 1),
    "another order": (_jpeg(_exif(b"XX" + SIX[2:])), 1),
    "big TIFF": (_jpeg(_exif(b"II+\0" + SIX[4:])), 1),
    "a directory that is far away": (_jpeg(_exif(SIX[:4] + b"\xff\xff\xff\xff" + SIX[8:])), 1),
    "a directory at the end": (_jpeg(_exif(SIX[:4] + struct.pack("<I", len(SIX)) + SIX[8:])), 1),
    "a directory that is the header": (_jpeg(_exif(b"II*\0" + bytes(4) + SIX[8:])), 1),
    "more tags than there are": (_jpeg(_exif(SIX[:8] + b"\xff\xff" + SIX[10:])), 6),
    "a next directory that is this one": (_jpeg(_exif(SIX[:-4] + struct.pack("<I", 8))), 6),
    "value 0": (_jpeg(_exif(_tiff(_entry(value=0)))), 1),
    "value 9": (_jpeg(_exif(_tiff(_entry(value=9)))), 1),
    "two values": (_jpeg(_exif(_tiff(_entry(count=2)))), 1),
    "of another type": (_jpeg(_exif(_tiff(_entry(kind=4)))), 1),
    "marked twice": (_jpeg(_exif(b"Exif\0\0" + SIX)), 6),
    "PNG": (_png((b"eXIf", SIX)), 6),
    "PNG, after text": (_png((b"tEXt", b"a\0b"), (b"eXIf", SIX)), 6),
    "PNG, empty": (_png((b"eXIf", b"")), 1),
}


@pytest.mark.parametrize("name", ODD_BLOCKS)
def test_odd_blocks_neither_fail_nor_differ(name: str) -> None:
    encoded, turn = ODD_BLOCKS[name]
    assert orientation(encoded) == turn
    assert in_graph(encoded) == turn
    np.testing.assert_array_equal(decode_image(encoded, SIDE), _reference(encoded))


def _broken(seed: int, count: int) -> Iterator[bytes]:
    """Photos with notes whose first bytes are changed, cut, repeated; seeded."""
    random_ = random.Random(seed)
    whole = [held(6, kind, endian) for kind in KINDS for endian in "<>"]
    whole += [encoded for encoded, _ in ODD_BLOCKS.values() if len(encoded) < 5_000]
    for _ in range(count):
        encoded = bytearray(random_.choice(whole))
        for _ in range(random_.randrange(1, 6)):
            place = random_.randrange(min(len(encoded), 160))
            encoded[place] = random_.choice([0, 1, 8, 0x2A, 0xFF, random_.randrange(256)])
        if random_.random() < 0.3:
            del encoded[random_.randrange(len(encoded)) :]
        if random_.random() < 0.1:
            encoded = encoded * 2
        yield bytes(encoded)


def _check_broken(seed: int, count: int) -> None:
    found = []
    for encoded in _broken(seed, count):
        found.append(orientation(encoded))
        assert in_graph(encoded) == found[-1], encoded
        try:
            pixels = decode_image(encoded, SIDE)
        except tf.errors.InvalidArgumentError:
            continue
        assert pixels.shape == (SIDE, SIDE, 3)
    assert len(set(found)) > 2  # some are whole, and some say something else


def test_broken_blocks_neither_fail_nor_differ() -> None:
    _check_broken(seed=1, count=400)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_very_many_broken_blocks_neither_fail_nor_differ(seed: int) -> None:
    _check_broken(seed, count=3_000)


def test_a_batch_names_the_unreadable_alone() -> None:
    encoded = [held(6), b"\xff\xd8", b"", held(6)[:40], held(8, "PNG")]
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="unreadable image at place 1, 2, 3 of the batch"
    ):
        decode_batch(tf.constant(encoded), SIDE)
