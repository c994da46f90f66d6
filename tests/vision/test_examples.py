"""Reading image Examples."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from mlplatform.vision.decoding import READS_WEBP, decode_image
from mlplatform.vision.examples import (
    IMAGE,
    LABEL,
    UnreadablePhotoError,
    count_labels,
    find_unreadable,
    parse_example,
    read_records,
    sample_records,
)


def test_gzip_and_plain_files_are_read_in_order(colours: ModuleType, tmp_path: Path) -> None:
    records = colours.examples(2)
    files = [
        colours.write(tmp_path / "a.gz", records[:2]),
        colours.write(tmp_path / "b.gz", records[2:3]),
        colours.write(tmp_path / "c", records[3:]),
    ]

    assert list(read_records(files).as_numpy_iterator()) == records


def test_labels_are_counted_in_the_order_of_their_names(colours: ModuleType, tmp_path: Path) -> None:
    file = colours.write(tmp_path / "a.gz", [*colours.examples(3), *colours.examples(2, ["red"])])

    contents = count_labels([file])

    assert contents.records == 11
    assert list(contents.per_label.items()) == [("blue", 3), ("green", 3), ("red", 5)]


def test_webp_photos_can_be_trained_on_in_every_version(colours: ModuleType, tmp_path: Path) -> None:
    record = colours.example(colours.encode("green", kind="WEBP"), "green", "w")
    file = colours.write(tmp_path / "a.gz", [record])

    example = next(iter(read_records([file]).map(parse_example)))

    assert example[LABEL] == b"green"
    np.testing.assert_allclose(
        tf.reduce_mean(decode_image(example[IMAGE], 8), axis=[0, 1]), (20, 230, 20), atol=4
    )


def test_samples_are_photos_that_a_server_can_read(colours: ModuleType, tmp_path: Path) -> None:
    webp = colours.example(colours.encode("green", kind="WEBP"), "green", "w")
    jpegs = colours.examples(2)
    file = colours.write(tmp_path / "a.gz", [webp, *jpegs])

    samples = sample_records([file], 3)

    assert samples[1:] == jpegs[:2]
    if READS_WEBP:
        assert samples[0] == webp
    photo = tf.train.Example.FromString(samples[0]).features.feature[IMAGE].bytes_list.value[0]
    np.testing.assert_allclose(tf.reduce_mean(decode_image(photo, 8), axis=[0, 1]), (20, 230, 20), atol=4)


def test_unreadable_photos_are_named(colours: ModuleType, tmp_path: Path) -> None:
    good = colours.encode("red")
    records = [
        colours.example(good, "red", "good"),
        colours.example(good[:100], "red", "cut"),
        colours.example(b"text", "red", "text"),
    ]
    file = colours.write(tmp_path / "a.gz", records)

    assert find_unreadable([file]) == ["cut", "text"]
    assert "'cut', 'text'" in str(UnreadablePhotoError(["cut", "text"]))


def test_many_unreadable_photos_make_a_short_error() -> None:
    error = UnreadablePhotoError([str(number) for number in range(20)])

    assert "and 15 more" in str(error)


@pytest.mark.parametrize("empty", [[], ["nothing.gz"]])
def test_no_records_are_no_labels(colours: ModuleType, tmp_path: Path, empty: list[str]) -> None:
    files = [colours.write(tmp_path / name, []) for name in empty]

    assert count_labels(files).records == 0
    assert sample_records(files, 3) == []
    assert find_unreadable(files) == []
