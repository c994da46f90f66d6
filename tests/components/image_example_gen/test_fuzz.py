"""Broken photos and listings, seeded: each is taken or refused with a reason; nothing fails or is lost."""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from mlplatform.components.image_example_gen.entries import REJECTED, Entry, FollowRows, ReadListing, Reject
from mlplatform.components.image_example_gen.errors import ListingError
from mlplatform.components.image_example_gen.listing import check_listing
from mlplatform.components.image_example_gen.photo import Photo, PhotoRefusal, look_at

ODD = [0, 1, 2, 8, 0x2A, 0x7F, 0x80, 0xFE, 0xFF]


def whole_images() -> list[bytes]:
    """An image in each format that this Pillow writes."""
    Image.init()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    found = []
    for kind in sorted(Image.SAVE):
        for mode in ("RGB", "L", "1"):
            file = io.BytesIO()
            try:
                noise.convert(mode).save(file, kind)
            except Exception:  # noqa: BLE001 - not of this mode, or its encoder is not installed
                continue
            found.append(file.getvalue())
            break
    return found


def broken(whole: bytes, random_: random.Random) -> bytes:
    """Change, cut, insert or repeat a few bytes, mostly in the header."""
    content = bytearray(whole)
    for _ in range(random_.randrange(1, 8)):
        if not content:
            break
        place = random_.randrange(min(len(content), random_.choice([32, 256, len(content)])))
        kind = random_.randrange(10)
        if kind < 7:
            content[place] = random_.choice([*ODD, random_.randrange(256)])
        elif kind == 7:
            del content[place : place + random_.randrange(1, 16)]
        elif kind == 8:
            content[place:place] = bytes(random_.choices(ODD, k=random_.randrange(1, 9)))
        else:
            del content[random_.randrange(len(content)) :]
    return bytes(content)


def _check_images(seed: int, count: int) -> None:
    random_, whole = random.Random(seed), whole_images()
    assert len(whole) > 15
    found = []
    for _ in range(count):
        encoded = broken(random_.choice(whole), random_)
        seen = look_at(encoded, max_pixels=1_000_000)
        assert isinstance(seen, Photo | PhotoRefusal), encoded
        if isinstance(seen, Photo):
            assert 0 < seen.height * seen.width <= 1_000_000
        else:
            assert seen.reason
            assert seen.detail
        found.append(seen.format if isinstance(seen, Photo) else seen.reason)
    assert {"damaged", "truncated", "unsupported_format"} <= set(found)
    assert {"jpeg", "png"} & set(found)


@pytest.mark.filterwarnings("ignore")
def test_broken_images_are_photos_or_refused() -> None:
    _check_images(seed=1, count=600)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(2, 12))
def test_very_many_broken_images_are_photos_or_refused(seed: int) -> None:
    _check_images(seed, count=6_000)


def whole_listings(folder: Path) -> list[tuple[str, bytes]]:
    rows: list[dict[str, Any]] = [
        {"path": f"{n}.jpg", "label": "hat", "item_id": f"i{n}", "price": n / 2, "tags": ["a", "b"]}
        for n in range(6)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "whole.parquet")
    csv = "path,label,item_id,price\n" + "".join(f'{n}.jpg,"hat",i{n},{n}\n' for n in range(6))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    return [
        ("a.csv", csv.encode()),
        ("a.jsonl", lines.encode()),
        ("a.parquet", (folder / "whole.parquet").read_bytes()),
    ]


def followed(file: str, kinds: Any) -> Iterator[Any]:
    """What the ingest makes of a listing's rows."""
    rows: dict[str, list[Any]] = {}
    for item, row in ReadListing().process(file):
        rows.setdefault(item, []).append(row)
    follow = FollowRows("/photos", None, None, "item_id", kinds)
    for item in rows.items():
        yield from follow.process(item)


def _check_listings(seed: int, count: int, folder: Path) -> None:
    random_ = random.Random(seed)
    whole = whole_listings(folder)
    outcomes, texts = set(), []
    for number in range(count):
        # A Parquet file is tried in a process of its own, which takes a second.
        name, content = whole[2] if number % 30 == 0 else whole[number % 2]
        (folder / name).write_bytes(broken(content, random_))
        try:
            looked = check_listing(str(folder / name), ("path", "label"))
            found = list(followed(str(folder / name), looked.kinds))
        except ListingError as error:
            outcomes.add("refused")
            texts.append(str(error))
            continue
        rejects = [one.value for one in found if isinstance(one, beam.pvalue.TaggedOutput)]
        assert all(isinstance(reject, Reject) and reject.reason for reject in rejects)
        assert all(one.tag == REJECTED for one in found if isinstance(one, beam.pvalue.TaggedOutput))
        entries = [one for one in found if isinstance(one, Entry)]
        assert len(entries) + len(rejects) == looked.rows, name  # in = out + rejects
        outcomes |= {"entry"} if entries else set()
        outcomes |= {reject.reason for reject in rejects}
    assert {"refused", "entry", "malformed_row"} <= outcomes
    assert all("listing" in text and len(text) < 1_000 for text in texts)


def test_broken_listings_are_rows_rejects_or_one_clear_error(tmp_path: Path) -> None:
    _check_listings(1, 300, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_very_many_broken_listings_are_rows_rejects_or_one_clear_error(seed: int, tmp_path: Path) -> None:
    _check_listings(seed, 6_000, tmp_path)
