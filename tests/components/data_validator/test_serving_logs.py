"""What a model was asked in service, compared with what it is trained on."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.components.data_validator.serving_logs import ReadRequests
from mlplatform.serving.logged_requests import RequestLogError, log_files

Shop = Callable[..., dict[str, list[dict[str, Any]]]]


def example(**features: Any) -> bytes:
    import tensorflow as tf

    made = tf.train.Example()
    for name, value in features.items():
        kinds = {bytes: "bytes_list", float: "float_list", int: "int64_list"}
        getattr(made.features.feature[name], kinds[type(value)]).value.append(value)
    serialized: bytes = made.SerializeToString(deterministic=True)
    return serialized


def read(folder: Path) -> list[Any]:
    return [found for file in log_files(str(folder)) for found in ReadRequests("image/encoded").process(file)]


def test_examples_photos_and_columns_become_examples(
    request_log: Callable[..., Path], photo: Callable[..., bytes]
) -> None:
    sent = [example(price=1.5, color=b"red"), example(price=2.5)]
    folder = request_log(
        {"examples": sent},
        {"image_bytes": [photo(1), photo(2)]},
        {"miles": [[3.0], [4.0]], "company": [[b"blue"], [b"red"]], "seats": [[2], [4]]},
        {"images": [[[[0.5] * 3] * 64] * 64]},
    )
    expected = [
        *sent,
        *(example(**{"image/encoded": photo(number)}) for number in (1, 2)),
        example(miles=3.0, company=b"blue", seats=2),
        example(miles=4.0, company=b"red", seats=4),
    ]
    *examples, unread = read(folder)
    assert examples == expected
    assert (unread.tag, unread.value) == ("unread", "images")


def test_classify_requests_become_examples_with_their_context(tmp_path: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import classification_pb2

    from mlplatform.serving.request_log import RequestLog

    request = classification_pb2.ClassificationRequest()
    held = request.input.example_list_with_context
    held.context.features.feature["shop"].bytes_list.value.append(b"a")
    held.examples.add().MergeFrom(tf.train.Example.FromString(example(price=1.5)))
    log = RequestLog(tmp_path, sampling_rate=1.0, max_bytes=1 << 20)
    log.write("classify_log", "shop", request, classification_pb2.ClassificationResponse())
    log.close()
    assert read(tmp_path) == [example(price=1.5, shop=b"a")]


def test_a_file_that_is_cut_off_is_read_up_to_there_and_told(request_log: Callable[..., Path]) -> None:
    folder = request_log(*({"price": [[float(number)]]} for number in range(5)))
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-10])
    *examples, damaged = read(folder)
    assert examples == [example(price=float(number)) for number in range(4)]
    assert (damaged.tag, damaged.value) == ("damaged", 1)


def test_features_that_requests_lack_or_add_are_skew(
    shop: Shop, gate: Any, request_log: Callable[..., Path]
) -> None:
    """The case that data validation is known for: training has a feature that the serving log lacks."""
    usual = shop()["train"]
    sent = [
        example(**{
            "image/encoded": record["image/encoded"],
            "price": record["price"],
            **({"color": record["color"].encode()} if number % 3 else {}),
            **({"coupon": b"x"} if number < 6 else {}),
        })
        for number, record in enumerate(usual)
    ]  # fmt: skip
    for record in usual:
        record["weight"] = 7 + len(record["label"])
    logs = log_files(str(request_log({"examples": sent})))
    data = {"train": usual}
    done = gate(data, serving_logs=logs)
    skewed = {p.feature: p for p in done.verdict.problems}
    assert {name: (p.kind, p.action) for name, p in skewed.items()} == {
        "color": ("skew", "warn"),
        "coupon": ("skew", "warn"),
        "weight": ("skew", "warn"),
    }, "neither the label, nor the id, nor what follows from the photo"
    assert skewed["weight"].description == (
        "missing in 30 of 30 (100.0 %) requests and in 0 of 30 (0.0 %) records here"
    )
    assert "missing in 10 of 30 (33.3 %) requests" in skewed["color"].description
    assert "missing in 24 of 30 (80.0 %) requests" in skewed["coupon"].description

    schema = done.schema  # environments declare what is not expected
    schema.default_environment.extend(["TRAINING", "SERVING"])
    for feature in schema.feature:
        if feature.name == "weight":
            feature.not_in_environment.append("SERVING")
    coupon = schema.feature.add(name="coupon", type=1)
    coupon.not_in_environment.append("TRAINING")
    coupon.presence.min_fraction = 1.0
    again = gate(data, serving_logs=logs, schema=schema, policy={"skew": "block"})
    assert {(p.kind, p.feature, p.action) for p in again.verdict.problems} == {("skew", "color", "block")}
    named = gate(data, serving_logs=logs, serving_features=["image/encoded", "prise"])
    assert {p.feature for p in named.verdict.problems} == {"coupon", "prise"}


def test_skew_is_told_and_can_block(
    shop: Shop, gate: Any, photo: Callable[..., bytes], request_log: Callable[..., Path]
) -> None:
    usual = shop()["train"]
    asked = [
        {"image_bytes": [record["image/encoded"]], "price": [[record["price"]]], "color": [[b"red"]]}
        for record in usual
    ]
    dark = [{"image_bytes": [photo(1000 + n, brightness=0.2)], "image/height": [["24"]]} for n in range(60)]
    random.Random(0).shuffle(asked)
    folder = request_log(*asked, *dark)
    done = gate(
        shop(),
        serving_logs=log_files(str(folder)),
        serving_features=["image/encoded"],
        policy={"features": {"color": {"skew": "block"}}},
    )
    found = {(p.kind, p.feature): p.action for p in done.verdict.problems}
    assert found == {
        ("skew", "color"): "block",
        ("skew", "image/encoded:brightness"): "warn",
        ("skew", "image/encoded:contrast"): "warn",
        ("skew", "image/height"): "warn",
    }
    assert not done.verdict.accepted
    assert done.verdict.serving_records == 90
    (height,) = [p for p in done.verdict.problems if p.feature == "image/height"]
    assert height.description == "it is text in service and a number here"


def test_requests_like_the_training_data_are_no_skew(
    shop: Shop, gate: Any, request_log: Callable[..., Path]
) -> None:
    columns = ("image/encoded", "price", "color")
    sent = [
        example(**{n: v.encode() if isinstance(v, str) else v for n, v in record.items() if n in columns})
        for record in shop()["train"]
    ]
    done = gate(shop(), serving_logs=log_files(str(request_log({"examples": sent}))))
    assert done.verdict.problems == ()
    assert done.verdict.serving_records == 30


def test_logs_that_are_not_there_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RequestLogError, match="there is no such folder"):
        log_files(str(tmp_path / "none"))
    (tmp_path / "20261124.tfrecord.open").write_bytes(b"")
    with pytest.raises(RequestLogError, match="no finished log file"):
        log_files(str(tmp_path))
