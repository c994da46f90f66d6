"""The image-search pipeline: its settings, and the kind of answer that it is judged by."""

import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlplatform.config_file import ConfigError
from mlplatform.pipelines.image_search.config import load_config
from mlplatform.pipelines.image_search.kind import ItemEmbedding
from mlplatform.vision.alterations import ALTERATIONS, altered


def test_settings_are_checked_before_anything_runs() -> None:
    defaults = load_config({})
    assert defaults.index.kind == "auto"
    assert defaults.model.dimensions == 256
    changed = load_config({"index": {"kind": "ivf"}, "model": {"dimensions": 128}})
    assert (changed.index.kind, changed.model.dimensions) == ("ivf", 128)
    wrong = {
        "index": {"kind": "hnsw"},
        "model": {"backbone": "scratch"},
        "index_thresholds": {"recall": 1},
    }
    with pytest.raises(ConfigError) as error:
        load_config(wrong)
    for said in (
        "index.kind is 'hnsw'",
        "needs a pretrained backbone",
        "unknown key 'index_thresholds.recall'",
    ):
        assert said in str(error.value)
    with pytest.raises(ConfigError, match="top_1"):
        load_config({"thresholds": {"top_1": 0.5}})


def example(number: int) -> Any:
    from tensorflow.core.example import example_pb2

    random = np.random.default_rng(number)
    stream = io.BytesIO()
    tiles = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    tiles.resize((48, 48), Image.Resampling.BICUBIC).save(stream, "PNG")
    found = example_pb2.Example()
    found.features.feature["image/encoded"].bytes_list.value.append(stream.getvalue())
    return found


def test_every_alteration_changes_a_photo_and_is_the_same_each_time() -> None:
    photo = example(1).features.feature["image/encoded"].bytes_list.value[0]
    found = altered(photo)
    assert len(found) == len(ALTERATIONS) == 12
    assert len({*found, photo}) == 13
    assert altered(photo) == found


def pixels(examples: Sequence[Any]) -> dict[str, np.ndarray]:
    """Embed photos as their own few pixels."""
    rows = []
    for one in examples:
        with Image.open(io.BytesIO(one.features.feature["image/encoded"].bytes_list.value[0])) as image:
            rows.append(np.asarray(image.convert("RGB").resize((6, 6)), np.float32).ravel() - 127)
    return {"embedding": np.stack(rows)}


@pytest.mark.parametrize("forgets_the_item", [False, True])
def test_the_item_and_the_class_are_two_figures(forgets_the_item: bool) -> None:
    kind, examples = ItemEmbedding(), [example(number) for number in range(20)]

    def answer(some: Sequence[Any]) -> dict[str, np.ndarray]:
        if not forgets_the_item:
            return pixels(some)
        # As a classifier's scores: the class, and some noise that is not the item's.
        labels = np.array([zlib.crc32(one.SerializeToString(deterministic=True)) % 2 for one in some])
        return {
            "embedding": np.random.default_rng(len(some)).normal(size=(len(some), 4)) * 0.1 + labels[:, None]
        }

    tally = kind.tally([])
    outputs = {**answer(examples), **kind.more_outputs(examples, answer, 0)}
    assert outputs["altered"].shape[:2] == (20, 12)
    tally.add(outputs, [[b"even" if number % 2 == 0 else b"odd"] for number in range(20)])
    figures = tally.figures()
    assert {"map_at_10", "same_item"} <= set(figures)
    if forgets_the_item:
        assert figures["same_item"].value < 0.3
    else:
        assert figures["same_item"].value > 0.6
    (table,) = tally.sections()
    assert len(table.rows) == 12
    # Photos beyond the first ones are not altered.
    assert kind.more_outputs(examples, answer, 1000) == {}
    half = kind.more_outputs(examples, answer, 90)["altered"]
    assert np.isfinite(half[:6]).all()
    assert np.isnan(half[6:]).all()
