"""The palette that a colour model answers, on the page of the demo."""

from pathlib import Path

from mlplatform.demo.trip import swatches
from mlplatform.reports.run_page import Prediction, RunPage, Swatch, write_run_page

ANSWER = {
    "classes": ["blue", "white"],
    "scores": [0.9, 0.1],
    "palette_rgb": [[10.4, 20.6, 200.0], [250.0, 250.0, 250.0], [10.4, 20.6, 200.0]],
    "palette_share": [0.75, 0.25, 0.0],
}


def test_a_palette_becomes_swatches_of_the_colours_that_are_there() -> None:
    assert swatches(ANSWER) == [Swatch((10, 21, 200), 0.75), Swatch((250, 250, 250), 0.25)]
    assert swatches({"classes": ["hat"], "scores": [1.0]}) == []


def test_the_page_shows_swatches_as_wide_as_their_shares(tmp_path: Path) -> None:
    said = Prediction("data:,", "blue", ANSWER["classes"], ANSWER["scores"], swatches(ANSWER))
    page = RunPage("item_color", "run", "now", 1.0, [], predictions=[said])
    text = write_run_page(tmp_path / "page.html", page).read_text("utf-8")
    assert "background: rgb(10,21,200); flex: 0.750" in text
    assert text.count('<i style="background') == 2
