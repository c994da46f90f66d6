"""What a request may become: counted before it is inflated, parsed, filled in or decoded."""

import gzip
import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, predict_pb2

from mlplatform.serving.compressed import inflated
from mlplatform.serving.http_connection import is_allowed_host
from mlplatform.serving.image_headers import ENDLESS, ImageSize, declared_size
from mlplatform.serving.inference import serialized_examples
from mlplatform.serving.pixel_limits import PixelLimits
from mlplatform.serving.request_size import RequestBudget, Reservation, json_size, message_size
from mlplatform.serving.status import Code, StatusError, TooLargeError, limited
from mlplatform.serving.tensors import Filling, to_array

FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP"]


def encoded(width: int, height: int, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 70)).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    """The file that was served with gigabytes: all of one colour, a few kilobytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND")


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def texts(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def refused(call: Any, *arguments: Any, **options: Any) -> StatusError:
    with pytest.raises(StatusError) as caught:
        call(*arguments, **options)
    return caught.value


class TestHeaders:
    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 300), (641, 2)])
    def test_as_pillow_reads_them(self, kind: str, width: int, height: int) -> None:
        assert declared_size(encoded(width, height, kind)) == ImageSize(width, height)

    @pytest.mark.parametrize("options", [{"progressive": True}, {"exif": b"Exif\0\0" + bytes(9000)}])
    def test_jpegs_with_more_before_their_size(self, options: Any) -> None:
        assert declared_size(encoded(33, 44, "JPEG", **options)) == ImageSize(33, 44)

    def test_webp_of_each_kind(self) -> None:
        assert declared_size(encoded(33, 44, "WEBP", lossless=True)) == ImageSize(33, 44)
        assert declared_size(encoded(33, 44, "WEBP", exif=b"Exif\0\0" + bytes(30))) == ImageSize(33, 44)

    @pytest.mark.parametrize("kind", ["GIF", "WEBP"])
    def test_animations_count_every_frame(self, kind: str) -> None:
        file = io.BytesIO()
        first, *others = [Image.effect_noise((40, 30), n + 20).convert("RGB") for n in range(5)]
        first.save(file, kind, save_all=True, append_images=others)
        assert declared_size(file.getvalue()) == ImageSize(40, 30, 5)

    def test_what_tensorflow_reads_past_is_read_past(self) -> None:
        plain = png(3, 2)
        with_chunk = plain[:8] + chunk(b"abCd", b"12345") + plain[8:]
        assert declared_size(with_chunk) == ImageSize(3, 2)
        jpeg = encoded(5, 6, "JPEG")
        between = jpeg[:20] + b"between" + b"\xff\xff" + jpeg[20:]
        assert declared_size(between) == ImageSize(5, 6)
        assert tf.io.decode_image(between).shape == (6, 5, 3)

    def test_tensorflow_decodes_no_image_whose_size_is_not_read(self) -> None:
        """Damaged at random: what TensorFlow decodes has the size that was read before, or less."""
        chance = random.Random(7)
        samples = [encoded(9, 7, kind) for kind in FORMATS if kind != "WEBP"]
        decoded = 0
        for _ in range(300):
            content = bytearray(chance.choice(samples))
            for _ in range(chance.randint(1, 3)):
                content[chance.randrange(len(content))] = chance.randrange(256)
            size = declared_size(bytes(content))
            if size is not None and size.pixels > 1 << 22:
                continue
            try:
                shape = tf.io.decode_image(bytes(content)).shape
            except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
                continue
            decoded += 1
            assert size is not None
            assert np.prod(shape[:-1]) <= size.pixels
        assert decoded > 50

    def test_blocks_without_end_are_not_walked_to_it(self) -> None:
        assert declared_size(b"\xff\xd8\xff" + b"\xff\xe0\0\2" * 50_000) == ENDLESS
        assert declared_size(b"\x89PNG\r\n\x1a\n" + chunk(b"abCd") * 50_000) == ENDLESS
        assert declared_size(b"GIF89a" + bytes(7) + b"\x21\xf9\0" * 1_100_000) == ENDLESS

    @pytest.mark.parametrize("text", [b"GIF89a is a format", b"BMW cars, " * 9, b"RIFFs", b"", b"\xff"])
    def test_texts_are_no_images(self, text: bytes) -> None:
        assert declared_size(text) is None

    def test_cut_at_every_byte(self) -> None:
        for kind in FORMATS:
            whole = encoded(30, 20, kind)
            for end in range(min(len(whole), 400)):
                assert declared_size(whole[:end]) in (None, ImageSize(30, 20))


class TestPixels:
    limits = PixelLimits(max_image_pixels=10_000, max_request_pixels=300_000)

    def test_one_image(self) -> None:
        error = refused(self.limits.check, {"image": texts(b"text", png(100_000, 5_000))})
        assert error.code == Code.INVALID_ARGUMENT
        assert "input image, place 1: an image of 100000 x 5000 pixels; at most 10,000" in error.text
        self.limits.check({"image": texts(png(100, 100)), "x": np.zeros(3, np.float32)})

    @pytest.mark.parametrize("is_sequence", [False, True])
    def test_inside_examples(self, is_sequence: bool) -> None:
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x", png(200, 200)]))
        message = tf.train.Example(features=tf.train.Features(feature={"image": feature}))
        if is_sequence:
            lists = tf.train.FeatureLists(feature_list={"image": tf.train.FeatureList(feature=[feature])})
            message = tf.train.SequenceExample(feature_lists=lists)
        error = refused(self.limits.check, {"examples": texts(message.SerializeToString())})
        assert "200 x 200" in error.text

    def test_many_small_images(self) -> None:
        """Each becomes as large as the model wants it: a thousand pixels of one pixel each are not few."""
        self.limits.check({"images": texts(*[png(1, 1)] * 4)})
        error = refused(self.limits.check, {"images": texts(*[png(1, 1)] * 5)})
        assert isinstance(error, TooLargeError)


class TestFilling:
    def tensor(self, dtype: int, *sizes: int, **values: Any) -> Any:
        proto = tensor_pb2.TensorProto(dtype=dtype, **values)
        for size in sizes:
            proto.tensor_shape.dim.add().size = size
        return proto

    def test_a_text_is_not_repeated_without_end(self) -> None:
        assert len(to_array(self.tensor(7, 1000, string_val=[b"a"]), "x")) == 1000
        assert refused(to_array, self.tensor(7, 2_000_000, string_val=[b"a"]), "x").code == 3
        assert refused(to_array, self.tensor(7, 200, string_val=[bytes(100_000)]), "x").code == 3

    def test_the_inputs_of_a_request_share_the_limit(self) -> None:
        filling = Filling(10_000)
        to_array(self.tensor(1, 2_000, float_val=[1.0]), "a", filling)
        assert refused(to_array, self.tensor(1, 2_000, float_val=[1.0]), "b", filling).text.endswith(": b")

    def test_rows_without_columns_count_too(self) -> None:
        assert to_array(self.tensor(1, 5, 0), "x").shape == (5, 0)
        assert refused(to_array, self.tensor(1, 1 << 31, 0), "x").code == Code.INVALID_ARGUMENT

    def test_a_context_is_not_repeated_without_end(self) -> None:
        message = input_pb2.Input()
        context = message.example_list_with_context.context
        context.features.feature["x"].bytes_list.value.append(bytes(1 << 20))
        for _ in range(100):
            message.example_list_with_context.examples.add()
        assert isinstance(refused(serialized_examples, message), TooLargeError)
        del message.example_list_with_context.examples[10:]
        assert len(serialized_examples(message)) == 10


class TestBudget:
    def test_the_bound_holds_for_many_small_objects(self) -> None:
        request = predict_pb2.PredictRequest()
        request.inputs["x"].string_val.extend([b""] * 100_000)
        size = message_size(request.SerializeToString(), request.DESCRIPTOR, 1 << 40)
        assert size > 100_000 * 100
        request = predict_pb2.PredictRequest()
        request.inputs["x"].int64_val.extend([1] * 100_000)
        assert message_size(request.SerializeToString(), request.DESCRIPTOR, 1 << 40) > 1_600_000
        examples = classification_pb2.ClassificationRequest()
        for _ in range(50_000):
            examples.input.example_list.examples.add()
        assert message_size(examples.SerializeToString(), examples.DESCRIPTOR, 1 << 40) > 50_000 * 100

    @pytest.mark.parametrize("size", [100, 150_528, 20_000_000])
    def test_raw_numbers_count_as_they_are(self, size: int) -> None:
        request = predict_pb2.PredictRequest()
        request.inputs["x"].tensor_content = b"B" * size
        assert (
            message_size(request.SerializeToString(), request.DESCRIPTOR, 1 << 30) < 2.1 * size + 1000
        )  # received, and parsed

    def test_counting_ends_at_the_limit(self) -> None:
        many = b"\x1a\0" * 4_000_000
        assert (
            1 << 20
            < message_size(many, predict_pb2.PredictRequest.DESCRIPTOR, 1 << 20)
            < (1 << 20) + 10_000_000
        )

    def test_one_request_too_many_and_one_too_large(self) -> None:
        budget = RequestBudget(1000)
        with budget.reservation() as first:
            first.add(600)
            with budget.reservation() as second:
                assert not isinstance(refused(second.add, 600), TooLargeError)  # later it may fit
                assert isinstance(refused(second.add, 1200), TooLargeError)
        with budget.reservation() as third:
            third.add(1000)

    def test_json(self) -> None:
        for document in (
            b"[" * 1000 + b"]" * 1000,
            b"[" + b"[]," * 1000 + b"[]]",
            b"[" + b"1.5," * 999 + b"1]",
        ):
            assert json_size(document) > 1000 * 40
        assert json_size(b" " * 10_000) < 11_000


class TestInflating:
    @pytest.mark.parametrize("kind", ["gzip", "x-gzip", "deflate", "raw", "identity", ""])
    def test_every_encoding(self, kind: str) -> None:
        content = b'{"instances": [1.0]}' * 100
        raw = zlib.compressobj(wbits=-15)
        bodies = {
            "gzip": gzip.compress(content, mtime=0),
            "x-gzip": gzip.compress(content, mtime=0),
            "deflate": zlib.compress(content),
            "raw": raw.compress(content) + raw.flush(),
        }
        encoding = "deflate" if kind == "raw" else kind.upper()
        held = Reservation(RequestBudget(1 << 20))
        assert inflated(bodies.get(kind, content), encoding, 1 << 20, held) == content

    def test_a_bomb(self) -> None:
        bomb = gzip.compress(bytes(50 << 20), mtime=0)
        assert isinstance(
            refused(inflated, bomb, "gzip", 1 << 20, Reservation(RequestBudget(1 << 40))), TooLargeError
        )
        error = refused(inflated, bomb, "gzip", 1 << 40, Reservation(RequestBudget(1 << 20)))
        assert isinstance(error, TooLargeError)

    @pytest.mark.parametrize(
        ("body", "encoding", "text"),
        [
            (b"no gzip", "gzip", "the body cannot be read"),
            (gzip.compress(b"{}" * 99, mtime=0)[:-9], "gzip", "ends too early"),
            (b"", "gzip", "ends too early"),
            (gzip.compress(b"{}", mtime=0) + b"more", "gzip", "4 bytes follow"),
            (gzip.compress(b"{}", mtime=0), "gzip, gzip", "gzip, gzip is not supported"),
            (b"{}", "br", "br is not supported"),
        ],
    )
    def test_broken(self, body: bytes, encoding: str, text: str) -> None:
        error = refused(inflated, body, encoding, 1000, Reservation(RequestBudget(1000)))
        assert (error.code, text in error.text) == (Code.INVALID_ARGUMENT, True)


@pytest.mark.parametrize(
    ("header", "listens_on", "allowed", "is_allowed"),
    [
        ("localhost:8501", "127.0.0.1", (), True),
        ("127.0.0.1:8501", "127.0.0.1", (), True),
        ("[::1]:8501", "::1", (), True),
        ("", "127.0.0.1", (), True),
        ("attacker.example:8501", "127.0.0.1", (), False),
        ("attacker.example", "::1", (), False),
        ("attacker.example", "localhost", (), False),
        ("localhost.attacker.example", "127.0.0.1", (), False),
        ("127.0.0.1.attacker.example", "127.0.0.1", (), False),
        ("[attacker.example]", "127.0.0.1", (), False),
        ("models.internal", "0.0.0.0", (), True),
        ("models.internal", "0.0.0.0", ("other",), False),
        ("Models.Internal.:80", "127.0.0.1", ("models.internal",), True),
        ("anything", "127.0.0.1", ("*",), True),
    ],
)
def test_hosts(header: str, listens_on: str, allowed: tuple[str, ...], is_allowed: bool) -> None:
    assert is_allowed_host(header, listens_on, allowed) == is_allowed


@pytest.mark.parametrize("name", ["m" * 1_000_000, "漢" * 100_000, "\ud800" * 5000])
def test_what_a_caller_sent_is_not_echoed_whole(name: str) -> None:
    text = limited(f"Servable not found for request: Latest({name})")
    assert text.startswith("Servable not found")
    assert text.endswith("...TRUNCATED")
    assert len(text) <= 1024
    assert limited("short") == "short"
