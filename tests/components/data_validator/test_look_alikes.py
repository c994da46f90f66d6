"""Photos that look alike are found within and between splits, without comparing each with each."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from mlplatform.components.data_validator.look_alikes import Look, groups_of
from mlplatform.components.data_validator.repetitions import Sighting

Gate = Callable[..., Any]
Shop = Callable[..., dict[str, list[dict[str, Any]]]]


def scene(number: int) -> Image.Image:
    tiles = np.random.default_rng(number).integers(0, 255, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(tiles).resize((120, 120), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def plain(grey: int) -> bytes:
    return encoded(Image.new("RGB", (40, 40), (grey, grey, grey)))


def test_altered_copies_are_found_shown_and_can_block(shop: Shop, gate: Gate) -> None:
    data = shop()
    train, evaluation = data["train"], data["eval"]
    train[0]["image/encoded"] = encoded(scene(1))
    train[9]["image/encoded"] = encoded(scene(1).resize((64, 64)))  # within the split
    train[1]["image/encoded"] = encoded(scene(2))
    evaluation[3]["image/encoded"] = encoded(scene(2), 40)  # between splits
    # The same bytes are not a look-alike, and photos of one colour are not compared.
    train[4] |= {name: train[5][name] for name in ("image/encoded", "label")}
    train[6]["image/encoded"], evaluation[6]["image/encoded"] = plain(250), plain(130)
    done = gate(data, policy={"near_leak": "block"})
    assert done.verdict.duplicates == {"within": 1, "near_leaks": 1, "near_within": 1}
    problems = {p.kind: p for p in done.verdict.problems}
    assert {kind: p.action for kind, p in problems.items()} == {
        "duplicate": "warn", "near_leak": "block", "near_duplicate": "warn",
    }  # fmt: skip
    assert not done.verdict.accepted
    leak, within = problems["near_leak"], problems["near_duplicate"]
    assert (leak.feature, leak.split) == ("image/encoded", "train, eval")
    assert leak.description == "1 groups of photos that look alike are in several splits"
    assert {(o.split, o.item_id) for o in leak.offenders} == {("train", "item-01"), ("eval", "item-33")}
    assert {o.item_id for o in within.offenders} == {"item-00", "item-09"}
    assert all(o.thumbnail for p in (leak, within) for o in p.offenders)
    ignored = gate(data, policy={"near_leak": "ignore", "near_duplicate": "ignore"})
    assert ignored.verdict.duplicates == {"within": 1}


def look(number: int, name: str, split: str, *, bits: int = 0) -> Look:
    """A look whose hash differs in so many bits from that of its number."""
    found = np.unpackbits(np.frombuffer(np.random.default_rng(number).bytes(16), np.uint8))
    found[:bits] ^= 1
    return Look(np.packbits(found).tobytes(), name.encode(), Sighting(split, f"{name}-{split}", ""))


def test_groups_are_of_different_photos_in_one_split_or_in_several() -> None:
    found = [
        look(1, "a", "train"), look(1, "a", "eval"),  # the same bytes: no look-alike by itself
        look(1, "b", "train", bits=9), look(1, "c", "test", bits=20),  # through the other one
        look(2, "p", "train"), look(2, "q", "train", bits=3),
        look(3, "r", "eval"), look(3, "s", "test"),
        look(4, "alone", "eval"), look(4, "alone", "train"),
        look(5, "x", "train"), look(5, "y", "train", bits=16),  # too far
    ]  # fmt: skip
    groups = groups_of(found)
    assert groups == groups_of(found[::-1])
    by_names = {
        "".join(sorted({s.item_id[0] for photo in group.photos for s in photo})): group for group in groups
    }
    assert {names: (group.is_leak, group.is_within) for names, group in by_names.items()} == {
        "abc": (True, True), "pq": (False, True), "rs": (True, False),
    }  # fmt: skip
    assert {s.item_id for s in by_names["abc"].within_shown()} == {"a-train", "b-train"}
    assert {s.item_id for s in by_names["rs"].leak_shown()} == {"r-eval", "s-test"}
