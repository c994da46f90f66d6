"""Curves over the epochs: where a value lies, and what is left out."""

import math

from mlplatform.reports.training_curve import HEIGHT, WIDTH, curve_chart


def test_a_chart_has_a_line_for_training_and_one_for_validation() -> None:
    epochs = [
        {"loss": 2.0, "val_loss": 4.0},
        {"loss": 1.0, "val_loss": math.nan},
        {"loss": 0.0, "val_loss": 3.0},
    ]

    chart = curve_chart("loss", epochs, best_epoch=2)

    assert chart is not None
    training, validation = chart.curves
    assert (training.name, len(training.dots), training.last) == ("training", 3, 0.0)
    assert (validation.name, len(validation.dots), validation.last) == ("validation", 2, 3.0)
    heights = [y for _, y in training.dots]
    assert heights == sorted(heights)  # a loss that falls goes down the page
    assert [text for _, text in chart.ticks] == ["0", "2", "4"]
    assert chart.best_x == training.dots[2][0]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for curve in chart.curves for x, y in curve.dots)


def test_one_epoch_and_equal_values_are_drawn_and_nothing_is_not() -> None:
    one = curve_chart("accuracy", [{"accuracy": 0.5}], best_epoch=-1)
    assert one is not None
    assert (len(one.curves), one.best_x) == (1, None)
    assert curve_chart("accuracy", [{"loss": 1.0}], best_epoch=0) is None
    assert curve_chart("accuracy", [], best_epoch=0) is None
