"""What a training leaves for reports."""

import json
from pathlib import Path

import pytest

from mlplatform.training.fit import FitState
from mlplatform.training.history import read_history, write_history


def test_what_is_written_is_read(tmp_path: Path) -> None:
    progress = FitState(epoch=2, history=[{"loss": 2.0}, {"loss": 1.0}], best_epoch=1, monitor="loss")
    write_history(tmp_path, {"head": progress}, photos=7)
    fit = read_history(tmp_path)["head"]
    assert (fit.best_epoch, fit.epochs) == (1, [{"loss": 2.0}, {"loss": 1.0}])
    assert json.loads((tmp_path / "history.json").read_text())["photos"] == 7


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fits": 3}', '{"fits": {"a": {"epochs": [1]}}}'])
def test_a_history_of_another_form_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.json").write_text(text)
    assert read_history(tmp_path) == {}
    assert read_history(tmp_path / "nowhere") == {}
