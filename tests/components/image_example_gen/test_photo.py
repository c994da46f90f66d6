"""What is a photo and what is not, by its bytes alone."""

import io
import random
from collections.abc import Callable

import pytest
from PIL import Image

from mlplatform.components.image_example_gen.photo import Photo, PhotoRefusal, format_by_extension, look_at

MakePhoto = Callable[..., bytes]


def looked(encoded: bytes, max_pixels: int = 10_000) -> Photo | PhotoRefusal:
    return look_at(encoded, max_pixels=max_pixels)


@pytest.mark.parametrize(("kind", "name"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp")])
def test_a_photo_is_what_its_bytes_are(kind: str, name: str, make_photo: MakePhoto) -> None:
    assert looked(make_photo(kind, (24, 16))) == Photo(name, height=16, width=24, is_turned=False)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_every_colour_mode_is_a_photo(mode: str) -> None:
    file = io.BytesIO()
    Image.new(mode, (5, 4)).save(file, "JPEG" if mode == "CMYK" else "PNG")
    assert isinstance(looked(file.getvalue()), Photo)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_photo_is_refused_as_such(kind: str, kept: float, make_photo: MakePhoto) -> None:
    whole = make_photo(kind, (80, 80))
    refusal = looked(whole[: max(16, int(len(whole) * kept))])
    assert isinstance(refusal, PhotoRefusal)
    assert refusal.reason == "truncated"
    assert refusal.detail


def test_a_png_is_whole_where_tensorflow_says_so(make_photo: MakePhoto) -> None:
    import tensorflow as tf

    whole, other = (make_photo("PNG", seed=seed) for seed in range(2))
    end = whole[-12:]  # the chunk IEND
    cases = [whole[:-cut] for cut in range(1, 24)]
    cases += [whole[:-4] + bytes(4), whole[:-12] + b"\0\0\0\4tEXtIEND\0\0\0\0"]
    cases += [whole, whole + b"\n", whole + bytes(70_000), whole + other, whole + end]
    for encoded in cases:
        found = looked(encoded)
        try:
            tf.io.decode_image(encoded)
        except tf.errors.InvalidArgumentError:
            assert isinstance(found, PhotoRefusal)
            assert found.reason == "truncated"
        else:
            assert isinstance(found, Photo)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty_file"),
        (b"hello, I am a text file named .jpg", "not_an_image"),
        (b"<html><body>404</body></html>", "not_an_image"),
        (b"\x00" * 4096, "not_an_image"),
        (b"%PDF-1.7 ...", "not_an_image"),
        (b"\x89PNG\r\n\x1a\n" + b"garbage" * 20, "truncated"),
    ],
)
def test_bytes_that_are_no_photo_are_refused(encoded: bytes, reason: str) -> None:
    refusal = looked(encoded)
    assert isinstance(refusal, PhotoRefusal)
    assert refusal.reason == reason


@pytest.mark.parametrize("place", [17, 60])  # in the header; in the pixels
def test_a_damaged_photo_is_refused(place: int, make_photo: MakePhoto) -> None:
    encoded = bytearray(make_photo("PNG"))
    encoded[place] ^= 0xFF
    refusal = looked(bytes(encoded))
    assert isinstance(refusal, PhotoRefusal)
    assert refusal.reason == "damaged"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_refused_by_name(kind: str, make_photo: MakePhoto) -> None:
    refusal = looked(make_photo(kind))
    assert isinstance(refusal, PhotoRefusal)
    assert refusal.reason == "unsupported_format"
    assert kind in refusal.detail


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_of_every_format_are_photos_or_refusals(seed: int, make_photo: MakePhoto) -> None:
    """AVIF and DDS too, whose readers raise what no other does; nothing but the formats we take is opened."""
    chance = random.Random(seed)
    file = io.BytesIO()
    Image.new("RGBA", (16, 16)).save(file, "DDS")
    avif = b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + chance.randbytes(200)
    whole = [make_photo(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
    reasons = set()
    for encoded in [*whole, file.getvalue(), avif] * 20:
        damaged = bytearray(encoded)
        for _ in range(chance.randint(0, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        found = looked(bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])]))
        reasons.add(found.reason if isinstance(found, PhotoRefusal) else "photo")
    assert reasons >= {"photo", "truncated", "not_an_image", "unsupported_format"}
    assert isinstance(looked(file.getvalue()), PhotoRefusal)
    assert isinstance(looked(avif), PhotoRefusal)


def test_a_photo_with_too_many_pixels_is_refused_before_it_is_decoded(make_photo: MakePhoto) -> None:
    assert isinstance(looked(make_photo(size=(100, 100)), max_pixels=10_000), Photo)
    refusal = looked(make_photo(size=(101, 100)), max_pixels=10_000)
    assert isinstance(refusal, PhotoRefusal)
    assert refusal.reason == "too_many_pixels"
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")  # a decompression bomb: 50 kB, 400 million pixels
    bomb = looked(file.getvalue(), max_pixels=50_000_000)
    assert isinstance(bomb, PhotoRefusal)
    assert bomb.reason == "too_many_pixels"


@pytest.mark.parametrize(
    ("path", "promised"),
    [
        ("a/b.JPG", "jpeg"),
        ("b.jpeg", "jpeg"),
        ("c.png", "png"),
        ("d.webp", "webp"),
        ("e.txt", None),
        ("f", None),
    ],
)
def test_a_name_promises_a_format(path: str, promised: str | None) -> None:
    assert format_by_extension(path) == promised
