"""`make demo`: the whole trip in one command, and the page that it leaves."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.demo.trip import read_unseen

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Command = Callable[..., "Finished"]  # noqa: F821 - see tests/conftest.py


def test_the_demo_shows_predictions_beside_the_truth_and_writes_a_page(
    command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "demo-out"
    words = ("demo", "run", "--out", out, "--categories", 6, "--per-category", 15)
    done = command(*words)
    assert done.code == 0, done.err
    unseen = list(read_unseen(out / "photos"))
    assert len(unseen) == 24
    for photo in unseen:
        line = next(line for line in done.out.splitlines() if photo.path.name in line)
        assert f"it is: {photo.truth}" in line
    right = int(re.search(r"(\d+) of 24 right", done.out)[1])
    assert right == 24 - done.out.count("   wrong")
    assert right >= 16
    page = (out / "page.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 24
    assert not re.search(r"""(src|href)=["']?(http|//)""", page), "the page needs the network"
    for place in (out / "page.html", out / "photos", out / "home"):
        assert str(place) in done.out
    assert (out / "home" / "models" / "item_category" / "1" / "saved_model.pb").is_file()

    again = command(*words)
    assert again.code == 0, again.err
    assert f"{right} of 24 right" in again.out
    assert [p.name for p in (out / "home" / "models" / "item_category").iterdir() if p.name.isdigit()] == [
        "1"
    ]
