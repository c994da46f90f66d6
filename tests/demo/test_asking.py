"""Every kind of signature, asked through a real model server: what is asked for, and what comes back."""

import io
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlplatform.demo import forms
from mlplatform.demo.errors import FieldError, PhotoError
from mlplatform.demo.photos_seen import read_photo, seen_pixels
from mlplatform.serving.client import Client

Ask = Callable[..., Any]


def test_photo_bytes_are_answered_with_classes_and_the_pixels_that_were_seen(
    ask_about: Ask, colours: ModuleType, server: Any
) -> None:
    asking = ask_about("colour", beside="colour@stable")
    form = asking.shown.forms[0]
    assert (form.kind, form.signature) == (forms.PHOTO, "image_bytes")
    found = asking.about_photo(form, read_photo("a.jpg", colours.encode("red", 5)))
    new, old = found["answers"]
    assert [new["version"], old["version"]] == [2, 1]
    assert old["labels"] == ["stable"]
    assert new["classes"][0]["name"] == "red"
    assert old["classes"][0]["name"] == "green", "the other version knows red by another name"
    assert sum(one["score"] for one in new["classes"]) == pytest.approx(1, abs=1e-5)
    # In the evaluation three photos of red are labelled blue.
    assert new["known"]["label"] == "red"
    assert new["known"]["precision"] == pytest.approx(8 / 11)
    assert new["known"]["support"] == 8
    assert new["confused_with"] == [{"truth": "blue", "answer": "red", "records": 3}]
    # The pixels that are shown are those that the model sees: asked with them, it answers alike.
    seen = Image.open(io.BytesIO(asking.pictures.take(found["seen"])))
    assert seen.size == (16, 16)
    pixels = np.asarray(seen, np.float32)[None]
    with Client(server.address) as client:
        by_pixels = client.predict("colour", {"images": pixels}, signature="pixels")
    assert by_pixels["scores"][0][0] == pytest.approx(new["classes"][0]["score"], abs=5e-3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_the_pixels_shown_are_those_of_the_decoder(kind: str, turn: int, mode: str) -> None:
    import tensorflow as tf

    from mlplatform.vision.decoding import decode_image

    if (kind, mode) in {("JPEG", "RGBA"), ("JPEG", "P"), ("PNG", "CMYK")}:
        pytest.skip("there is no such file")
    shades = np.random.default_rng(turn).integers(0, 256, (9, 7, 3), np.uint8)
    image = Image.fromarray(shades).resize((70, 90), Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = turn
    out = io.BytesIO()
    image.save(out, kind, exif=exif)
    shown = seen_pixels(read_photo("p", out.getvalue()), 24, 24).astype(np.float32)
    seen = decode_image(tf.constant(out.getvalue()), 24).numpy()
    assert np.abs(shown - seen).max() <= 3, "of 255"


def test_pixels_are_what_the_page_made_of_the_photo(ask_about: Ask, colours: ModuleType) -> None:
    asking = ask_about("pixels")
    form = asking.shown.forms[0]
    assert (form.kind, form.height, form.width) == (forms.PIXELS, 8, 8)
    found = asking.about_photo(form, read_photo("a.png", colours.encode("green", 1, "PNG")))
    assert found["seen_size"] == [8, 8]
    assert Image.open(io.BytesIO(asking.pictures.take(found["seen"]))).size == (8, 8)
    assert asking.pictures.take(found["seen"]) == b"", "it was given out"
    assert found["answers"][0]["classes"][0]["name"] == "green"
    assert found["answers"][0]["known"] is None, "nothing was measured of it"


def test_photos_in_other_formats_are_converted(ask_about: Ask, colours: ModuleType) -> None:
    photo = read_photo("a.webp", colours.encode("blue", 1, "WEBP"))
    assert "WEBP was converted to PNG" in photo.note
    asking = ask_about("colour")
    found = asking.about_photo(asking.shown.forms[0], photo)
    assert found["answers"][0]["classes"][0]["name"] == "blue"


def test_serialized_examples_get_a_form_of_the_schema(ask_about: Ask) -> None:
    asking = ask_about("fare")
    form = asking.shown.forms[0]
    assert form.kind == forms.EXAMPLE
    fields = {field.name: field for field in form.fields}
    assert list(fields) == ["miles", "payment", "hour"], "the truth is not asked for"
    assert fields["payment"].choices == ("card", "cash", "voucher"), "as the schema has them"
    assert (fields["miles"].kind, fields["hour"].kind) == (forms.NUMBER, forms.WHOLE)
    assert fields["miles"].is_needed
    assert not fields["hour"].is_needed
    found = asking.about_values(form, {"miles": "4.5", "payment": "cash", "hour": ""})
    assert found["answers"][0]["number"] == pytest.approx((3 + 2 * 4.5 + 0.1) / 2)
    for values, wanted in (
        ({"miles": "far", "payment": "cash"}, "a number"),
        ({"miles": "", "payment": "cash"}, "a number"),
        ({"miles": "1", "payment": "cash", "hour": "1.5"}, "a whole number"),
        ({"miles": "1", "payment": "cash", "hour": "9" * 30}, "64"),
        ({"miles": "1e300", "payment": "cash"}, "32 bits"),
    ):
        with pytest.raises(FieldError, match=wanted):
            asking.about_values(form, values)


def test_a_held_out_record_is_asked_about_without_its_truth(ask_about: Ask) -> None:
    asking = ask_about("fare")
    form = asking.shown.forms[0]
    assert asking.samples
    for sample in asking.samples[:3]:
        assert sample.split == "test"
        found = asking.about_sample(form, sample)
        assert found["answers"][0]["number"] == pytest.approx(float(found["truth"]), abs=0.11)
    filled = forms.filled(form, asking.samples[1].payload)
    values = {field.name: field.value for field in filled.fields}
    again = asking.about_values(form, values)["answers"][0]["number"]
    assert again == pytest.approx(asking.about_sample(form, asking.samples[1])["answers"][0]["number"])


def test_plain_columns_get_a_field_each(ask_about: Ask) -> None:
    asking = ask_about("columns")
    form = asking.shown.forms[0]
    assert form.kind == forms.COLUMNS
    assert {field.name: field.kind for field in form.fields} == {
        "miles": forms.NUMBER, "payment": forms.TEXT, "night": forms.YES_NO
    }  # fmt: skip
    found = asking.about_values(form, {"miles": "-2", "payment": "card", "night": "yes"})
    assert found["answers"][0]["number"] == pytest.approx(0.5)


def test_other_signatures_get_json(ask_about: Ask) -> None:
    asking = ask_about("columns")
    form = asking.shown.form("other")
    assert form.kind == forms.JSON
    assert json.loads(form.skeleton) == {"inputs": {"pairs": [[[0, 0]]]}}
    found = asking.about_json(form, '{"inputs": {"pairs": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}}')
    assert found["answers"][0]["outputs"]["sums"] == [10, 26]
    refused = asking.about_json(form, '{"pairs": [[1, 2, 3]]}')["answers"][0]
    assert refused["problem"], "the model server says why"
    assert refused["outputs"] is None
    for text in ("", "[]", "{", '{"inputs": {"x": 1}}', '{"pairs": [[1], [2, 3]]}', '{"pairs": ["a"]}',
                 '{"pairs": ' + "[" * 2000 + "]" * 2000 + "}", '{"pairs": [{"b64": "?"}]}'):  # fmt: skip
        with pytest.raises(FieldError):
            asking.about_json(form, text)


def test_examples_may_be_given_as_json(ask_about: Ask) -> None:
    asking = ask_about("fare")
    form = asking.shown.forms[0]
    document = {"examples": [{"miles": 1.0, "payment": "card"}, {"miles": [2.0], "payment": ["cash"]}]}
    outputs = asking.about_json(form, json.dumps(document))["answers"][0]["outputs"]
    assert np.ravel(outputs["predictions"]).tolist() == pytest.approx([5.1, 3.55])
    assert json.loads(form.skeleton)["examples"][0].keys() == {"miles", "payment", "hour"}


def test_an_unreadable_photo_is_refused(ask_about: Ask, colours: ModuleType) -> None:
    for data in (b"", b"no photo", colours.encode("red")[:40], b"\x89PNG\r\n\x1a\n" + b"\0" * 40):
        with pytest.raises(PhotoError):
            read_photo("x", data)
    cut = colours.encode("red", 1, "PNG")[:-200]
    asking = ask_about("colour")
    found = asking.about_photo(asking.shown.forms[0], read_photo("cut", cut))
    assert "PNG" in found["answers"][0]["problem"], "as the model says"
    assert found["seen"] == "", "it saw nothing"


def test_what_the_model_cannot_do_is_said(ask_about: Ask) -> None:
    facts = ask_about("colour").shown.facts
    said = " ".join(facts.limits())
    assert "knows 3 classes and nothing else" in said
    assert "worst class is blue: 72.7 % of 11 records are answered right, the others mostly as red" in said
    assert "Of 3 classes there were fewer than 20 records" in said
    assert "a note of the gate" in said
    assert facts.data is not None
    assert facts.dataset == "items@v1"
    assert "off by 0." in " ".join(ask_about("fare").shown.facts.limits())
    assert "No evaluation of this version is recorded" in " ".join(ask_about("columns").shown.facts.limits())
