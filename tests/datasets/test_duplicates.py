"""Photos that look alike are found, and no others."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from mlplatform.cli.main import cli
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.duplicates import NEAR, alike, find_duplicates, photo_hash
from mlplatform.datasets.errors import LookAlikeFirewallError
from mlplatform.datasets.format.tfrecord import frame


def scene(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    tiles = Image.fromarray(random.integers(0, 255, (7, 7, 3), dtype=np.uint8))
    return tiles.resize((120, 120), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, quality: int = 92) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_same_pairs_are_found_as_by_comparing_all(data: st.DataObject) -> None:
    base = data.draw(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=6))
    hashes = list(base)
    for _ in range(data.draw(st.integers(0, 8))):
        bits = np.unpackbits(np.frombuffer(data.draw(st.sampled_from(base)), np.uint8))
        bits[data.draw(st.lists(st.integers(0, 127), max_size=22, unique=True))] ^= 1
        hashes.append(np.packbits(bits).tobytes())
    near = data.draw(st.integers(0, NEAR))
    bits = np.unpackbits(np.array([np.frombuffer(one, np.uint8) for one in hashes]), axis=1)
    is_near = (bits[:, None] != bits[None]).sum(axis=2) <= near
    for _ in hashes:  # through others
        is_near = (is_near.astype(int) @ is_near.astype(int)) > 0
    wanted = {tuple(np.flatnonzero(row).tolist()) for row in is_near if row.sum() > 1}
    assert {tuple(group) for group in alike(hashes, near)} == wanted


def test_altered_copies_look_alike_and_other_photos_do_not() -> None:
    photo = scene(1)
    copies = [
        encoded(photo),
        encoded(photo, 30),
        encoded(photo.resize((64, 64))),
        encoded(ImageEnhance.Brightness(photo).enhance(0.8)),
        encoded(photo.convert("L")),
    ]
    others = [encoded(scene(number)) for number in range(2, 60)]
    hashes = [photo_hash(one) for one in (*copies, *others)]
    assert None not in hashes
    assert alike([one for one in hashes if one]) == [[0, 1, 2, 3, 4]]
    assert photo_hash(b"no photo") is None


def _example(item_id: str, photo: bytes) -> bytes:
    from tensorflow.core.example import example_pb2

    found = example_pb2.Example()
    for name, value in {"item_id": item_id.encode(), "image/encoded": photo, "label": b"hat"}.items():
        found.features.feature[name].bytes_list.value.append(value)
    return bytes(found.SerializeToString(deterministic=True))


def test_the_groups_of_a_version_are_listed_with_pictures(tmp_path: Path) -> None:
    splits: dict[str, list[bytes]] = {
        "train": [_example(f"item-{n}", encoded(scene(n))) for n in range(6)]
        + [_example("bad", b"no photo")],
        "eval": [_example("again", encoded(scene(3), 40)), _example("new", encoded(scene(9)))],
    }
    for split, records in splits.items():
        folder = tmp_path / "examples" / f"Split-{split}"
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"".join(frame(record) for record in records))
    store = DatasetStore(tmp_path / "root" / "datasets")
    store.commit("items", tmp_path / "examples", key=["item_id"], is_firewall_on=False)
    found = find_duplicates(store, "items")
    assert (found.photos, found.unreadable) == (8, 1)
    (group,) = found.groups
    assert {(photo.split, photo.item_id, photo.label) for photo in group} == {
        ("eval", "again", "hat"), ("train", "item-3", "hat"),
    }  # fmt: skip
    page = tmp_path / "page.html"
    words = ["datasets", "duplicates", "items@v1", "--root", str(tmp_path / "root"), "--html", str(page)]
    said: Any = CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False)
    assert json.loads(said.stdout)["photos"] == 8
    assert page.read_text().count("data:image/jpeg") == 2
    said = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert "2 photos, between splits eval and train" in said.stdout


def test_the_firewall_holds_look_alikes_apart(tmp_path: Path) -> None:
    def examples(name: str, **splits: list[bytes]) -> Path:
        for split, records in splits.items():
            folder = tmp_path / name / f"Split-{split}"
            folder.mkdir(parents=True)
            (folder / "data").write_bytes(b"".join(frame(record) for record in records))
        return tmp_path / name

    def item(name: str, number: int, quality: int = 92) -> bytes:
        return _example(name, encoded(scene(number), quality))

    store, apart = DatasetStore(tmp_path / "datasets"), {"key": ["item_id"], "near_duplicates_apart": True}
    mixed = examples("mixed", train=[item("a", 1), item("b", 2)], eval=[item("c", 2, 40), item("d", 3)])
    with pytest.raises(
        LookAlikeFirewallError, match=r"1 photo\(s\) that would be trained on[^\n]*\n  item_id=b "
    ):
        store.commit("items", mixed, **apart)
    assert store.names() == []
    first = examples("first", train=[item("a", 1)], eval=[item("c", 2), item("d", 3), item("e", 3, 50)])
    assert store.commit("items", first, **apart).is_new
    # What an earlier version held out counts, also where it is not there any more.
    later = examples("later", train=[item("a", 1), item("b", 2, 60)], eval=[item("d", 3)])
    with pytest.raises(LookAlikeFirewallError, match="item_id=b "):
        store.commit("items", later, **apart)
    assert store.commit("items", later, key=["item_id"]).manifest.version == "v2"
