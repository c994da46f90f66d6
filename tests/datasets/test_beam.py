"""The Beam path makes the same version as the other one."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import CorruptRecordsError, ForgottenRecordError, SplitFirewallError

Write = Callable[..., Path]
IN_PROCESS = ["--runner=DirectRunner"]


@pytest.mark.slow
def test_beam_makes_the_same_versions(
    tmp_path: Path,
    write_examples: Write,
    make_example: Callable[..., bytes],
    read_examples: Callable[..., Any],
) -> None:
    rng = random.Random(5)
    rows = [make_example({"id": f"{n}", "label": f"{n % 3}", "x": os.urandom(30)}, n) for n in range(3000)]
    train, held = rows[:2400], rows[2400:2700]
    contents: list[tuple[dict[str, list[list[bytes]]], bool]] = [
        ({"train": [train[:1000], train[1000:2000], train[2000:] + train[:7]], "eval": [held]}, False),
        ({"train": [train[1500:], train[:1300]], "eval": [held, []]}, False),  # reshuffled, some removed
        ({"train": [rng.sample(train, 2000) + rows[2800:] + [b"raw"]], "eval": [held[:50] * 2]}, True),
        (
            {"train": [train[:1000], train[1000:2000], train[2000:] + train[:7]], "eval": [held]},
            True,
        ),  # the first
        ({"train": [[]], "other": [[rows[0]]]}, False),
    ]
    plain, on_beam = DatasetStore(tmp_path / "plain"), DatasetStore(tmp_path / "beam")
    for number, (content, gz) in enumerate(contents):
        source = write_examples(tmp_path / f"in{number}", content, gz)
        one = plain.commit("d", source, key=["id"])
        two = on_beam.commit("d", source, key=["id"], beam_options=IN_PROCESS)
        assert two.is_new == one.is_new == (number != 3)
        for name in ("digest", "number", "added", "removed", "splits", "packs", "bitmaps", "stored_bytes"):
            assert getattr(two.manifest, name) == getattr(one.manifest, name), (number, name)
    assert on_beam.verify("d").is_whole
    assert on_beam.gc("d", grace_s=0) == []
    for version in ("v1", "v3"):
        assert read_examples(on_beam.checkout("d", version, tmp_path / f"b{version}")) == read_examples(
            plain.checkout("d", version, tmp_path / f"p{version}")
        )
    leak = write_examples(tmp_path / "leak", {"train": [[held[60]]]})
    with pytest.raises(SplitFirewallError):
        on_beam.commit("d", leak, beam_options=IN_PROCESS)
    on_beam.forget("d", "2", is_erasing=True)
    with pytest.raises(ForgottenRecordError):
        on_beam.commit("d", write_examples(tmp_path / "back", {"train": [rows[:5]]}), beam_options=IN_PROCESS)

    damaged = write_examples(tmp_path / "damaged", {"train": [[b"a"], [b"b"]]})
    (damaged / "Split-train" / "data_tfrecord-00001-of-00002").write_bytes(b"half")
    untouched = DatasetStore(tmp_path / "untouched")
    with pytest.raises((CorruptRecordsError, RuntimeError), match="ends inside a record"):
        untouched.commit("d", damaged, beam_options=IN_PROCESS)
    assert untouched.names() == []
    assert not (tmp_path / "untouched" / "d" / "packs").exists()
