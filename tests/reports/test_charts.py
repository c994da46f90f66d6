"""Charts on the data gate's page: bars where the values are, centred, of the heights that the shares have."""

import re

import pytest

from mlplatform.reports.charts import BINS, Bucket, histogram, top_values

WIDTH, HEIGHT = 240, 80


def bars(drawing: str) -> list[tuple[float, float, float]]:
    """Return place, height and share of each bar."""
    pattern = r'<rect x="([\d.]+)" y="[\d.]+" width="[\d.]+" height="([\d.]+)"><title>([\d.]+)%</title>'
    return [(float(x), float(height), float(share)) for x, height, share in re.findall(pattern, drawing)]


def test_a_histogram_has_a_bar_per_bin_with_its_share() -> None:
    found = bars(histogram([Bucket(0.0, 12.0, 30.0), Bucket(12.0, 24.0, 10.0)]))
    assert len(found) == BINS
    assert sum(share for _, _, share in found) == pytest.approx(100.0, abs=1.5)  # printed to a tenth
    assert {height for _, height, _ in found[: BINS // 2]} == {HEIGHT}
    assert found[-1][1] == pytest.approx(HEIGHT / 3, abs=0.1)
    step = WIDTH / BINS
    assert [x % step for x, _, _ in found] == [0.5] * BINS  # each bar is in the middle of its bin


def test_what_it_is_compared_with_is_a_line_over_the_bars() -> None:
    here, there = [Bucket(0.0, 1.0, 5.0)], [Bucket(1.0, 2.0, 70.0)]
    drawing = histogram(here, there, names=("serving", "training"))
    assert [x < WIDTH / 2 for x, _, _ in bars(drawing)] == [True] * (BINS // 2)
    (points,) = re.findall(r'<polyline points="([^"]+)"', drawing)
    heights = {float(x): HEIGHT - float(y) for x, y in (point.split(",") for point in points.split())}
    assert heights[WIDTH / 4] == 0.0
    assert heights[WIDTH * 3 / 4] == HEIGHT  # as high as the bars: both are shares of their own records
    assert "serving" in drawing
    assert "training" in drawing


def test_nothing_to_draw_is_no_drawing() -> None:
    assert histogram([]) == ""


def test_values_are_bars_the_most_frequent_first_and_texts_are_texts() -> None:
    drawing = top_values([("<b>rare", 0.1), ("often", 0.9)], [("elsewhere", 0.5)], most=2)
    assert drawing.index("often") < drawing.index("elsewhere")
    assert "rare" not in drawing
    assert "&lt;b&gt;rare" in top_values([("<b>rare", 0.1)])
