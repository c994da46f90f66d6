"""A search for hyperparameters: what is tried, what is kept, and that a killed one resumes."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlplatform.components.model_trainer.train import parse_search, train
from mlplatform.config_file import ConfigError
from mlplatform.training.errors import NoTrialFigureError
from mlplatform.training.image_classifier_settings import ClassifierSettings
from mlplatform.training.search import read_trials, train_best
from mlplatform.training.search_settings import SearchSettings, check_space
from mlplatform.training.task import TrainingTask

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: the extra [tune]")
SPACE = {"rate": {"low": 0.001, "high": 1.0, "log": True}, "width": {"low": 1, "high": 9}, "kind": ["a", "b"]}


def searched(**changes: Any) -> SearchSettings:
    return parse_search({"trials": 12, "space": SPACE, **changes})


def task(tmp_path: Path) -> TrainingTask:
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "work").mkdir(exist_ok=True)
    return TrainingTask(
        train_files=("train",),
        eval_files=("eval",),
        hyperparameters={"rate": 0.5, "fixed": 7},
        work_dir=tmp_path / "work",
        model_dir=tmp_path / "model",
        run_dir=tmp_path / "run",
    )


class Program:
    """Is best at a width of 5 and kind b; `dies_at` is the training that it does not survive."""

    def __init__(self, dies_at: int = -1) -> None:
        self.dies_at = dies_at
        self.seen: list[dict[str, Any]] = []
        self.resumed: list[bool] = []

    def __call__(self, task: TrainingTask) -> None:
        self.seen.append(dict(task.hyperparameters))
        began = task.work_dir / "began"
        self.resumed.append(began.exists())
        began.touch()
        if len(self.seen) - 1 == self.dies_at:
            raise KeyboardInterrupt
        values = task.hyperparameters
        figure = 1 - abs(values["width"] - 5) / 10 - (values["kind"] == "a") / 4
        epochs = [{"val_accuracy": 0.0}, {"val_accuracy": figure}]
        fits = {"network": {"best_epoch": 1, "epochs": epochs}, "later": {"best_epoch": -1, "epochs": []}}
        (task.run_dir / "history.json").write_text(json.dumps({"fits": fits}))
        task.model_dir.mkdir(parents=True)


def test_the_best_of_the_trials_is_trained_as_the_model(tmp_path: Path) -> None:
    program = Program()
    chosen = train_best(program, task(tmp_path), searched())
    trials, monitor = read_trials(tmp_path / "run")
    assert monitor == "val_accuracy"
    assert len(trials) == 12
    values = [trial.value for _, trial in trials]
    assert values == sorted(values, reverse=True)
    assert chosen == trials[0][1].hyperparameters
    assert program.seen[-1] == {**chosen, "fixed": 7}
    assert program.resumed == [False] * 12 + [True]  # the last one finds what the best trial kept
    assert (tmp_path / "model").is_dir()
    assert not [*tmp_path.glob("work/trials/*/tried")]
    assert all(0.001 <= seen["rate"] <= 1 and seen["width"] in range(1, 10) for seen in program.seen)
    assert len({seen["rate"] for seen in program.seen}) == 12


def test_a_lower_figure_can_be_the_better_one(tmp_path: Path) -> None:
    train_best(Program(), task(tmp_path), searched(mode="min"))
    values = [trial.value for _, trial in read_trials(tmp_path / "run")[0]]
    assert values == sorted(values)


def test_a_killed_search_resumes_within_its_trial(tmp_path: Path) -> None:
    whole = Program()
    other = tmp_path / "other"
    other.mkdir()
    train_best(whole, task(other), searched())
    killed, resumed = Program(dies_at=5), Program()
    with pytest.raises(KeyboardInterrupt):
        train_best(killed, task(tmp_path), searched())
    train_best(resumed, task(tmp_path), searched())
    assert resumed.resumed[0]
    assert [*killed.seen[:5], *resumed.seen] == whole.seen


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"trials": 2}, "trials without a space"),
        ({"trials": 2, "space": {"rate": []}}, "rate: give a list of values"),
        ({"trials": 2, "space": {"rate": 0.1}}, "rate: give a list of values"),
        ({"trials": 2, "space": {"rate": {"low": 1, "hihg": 2}}}, "rate: high Field required; hihg"),
        ({"trials": 2, "space": {"rate": {"low": 2, "high": 1}}}, "low must be below high"),
        ({"trials": 2, "space": {"rate": {"low": 0, "high": 1, "log": True}}}, "low must be above 0"),
        ({"trails": 2}, "did you mean 'trials'?"),
    ],
)
def test_a_wrong_search_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_search(values)
    assert says in str(caught.value)


def test_a_space_holds_what_the_program_takes() -> None:
    search = searched(space={"epochs": {"low": 0, "high": 5}})
    with pytest.raises(ConfigError, match="epochs is 0"):
        check_space(search, ClassifierSettings(), source="the space")
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        check_space(searched(space={"epoch": [1]}), ClassifierSettings(), source="the space")


def test_a_metric_that_no_trial_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoTrialFigureError, match=r"no metric 'val_auc'.*it has val_accuracy"):
        train_best(Program(), task(tmp_path), searched(monitor="val_auc"))


def test_without_a_search_there_are_no_trials(tmp_path: Path) -> None:
    assert read_trials(tmp_path) == ([], "")


PROGRAM = """
import json

def train(task):
    figure = 1 - abs(task.hyperparameters["width"] - 5) / 10
    fits = {"network": {"best_epoch": 0, "epochs": [{"val_accuracy": figure}]}}
    (task.run_dir / "history.json").write_text(json.dumps({"fits": fits}))
    task.model_dir.mkdir(parents=True)
    (task.model_dir / "saved_model.pb").write_text(str(task.hyperparameters["width"]))
"""


def test_what_model_trainer_leaves_is_the_best_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "searched_program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    search = searched(space={"width": [1, 5, 9]}, trials=8)
    records = tmp_path / "records"
    records.touch()  # none, which this program does not mind
    train(
        "searched_program:train",
        train_files=[str(records)],
        eval_files=[str(records)],
        hyperparameters={"width": 2, "fixed": 7},
        work_root=tmp_path / "work",
        model_dir=tmp_path / "model",
        run_dir=tmp_path / "run",
        search=search,
    )
    assert (tmp_path / "model" / "saved_model.pb").read_text() == "5"
    assert json.loads((tmp_path / "run" / "hyperparameters.json").read_text()) == {"width": 5, "fixed": 7}
    trials, _ = read_trials(tmp_path / "run")
    assert trials[0][1].value == 1
    assert not [*(tmp_path / "work").glob("*/trials")]
