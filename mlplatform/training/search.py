"""Search for hyperparameters: each trial is a training of its own, and the best is the training that counts.

Trials are proposed by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011). What is done lies in
the task's `work_dir`: a search that is killed resumes within the trial that it was at.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.files import write_json
from mlplatform.progress import report_line
from mlplatform.training.errors import NoSearchLibraryError, NoTrialFigureError
from mlplatform.training.history import read_history
from mlplatform.training.monitoring import Direction, direction_of, is_better, worst
from mlplatform.training.search_settings import Range, SearchSettings
from mlplatform.training.task import TrainingTask

if TYPE_CHECKING:
    import optuna

TRIALS_FILE = "trials.json"
_TRIALS = "trials"


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        hyperparameters: The values that were tried.
        value: The monitored metric; None while it is trained.
        seconds: What it took, in the process that ended it.
    """

    hyperparameters: Mapping[str, Any]
    value: float | None = None
    seconds: float = 0.0


def train_best(
    function: Callable[[TrainingTask], object], task: TrainingTask, search: SearchSettings
) -> Mapping[str, Any]:
    """Train with several hyperparameters, and once more with the best, which are returned.

    What the best trial kept in its folder is used again, so that the last training takes little time.

    Args:
        function: Trains as a task says, and writes a history (`write_history`).
        task: Hyperparameters that are not searched, files and folders. `run_dir` gets `trials.json` beside
            what the training writes.
        search: What is tried.

    Raises:
        NoSearchLibraryError: Optuna is not installed.
        NoTrialFigureError: A training reports no metric of the monitored name.
        UnknownDirectionError: The metric's name does not say which value is better, nor does `mode`.
    """
    direction = direction_of(search.monitor, search.mode)
    file = task.work_dir / TRIALS_FILE
    trials = _read(file)
    for number in range(search.trials):
        if number == len(trials):
            trials.append(Trial(_propose(search, direction, trials)))
            _write(file, trials, search.monitor, direction)
        if trials[number].value is None:
            trials[number] = _try(function, task, search, trials[number], number)
            _write(file, trials, search.monitor, direction)
            task.save()
    best = _best(trials, direction)
    report_line(f"trial {best + 1} of {len(trials)} is the best: {search.monitor} {trials[best].value:.4f}")
    shutil.copyfile(file, task.run_dir / TRIALS_FILE)
    function(_of_trial(task, trials[best], best, model_dir=task.model_dir, run_dir=task.run_dir))
    return trials[best].hyperparameters


def read_trials(run_dir: Path) -> tuple[list[tuple[int, Trial]], str]:
    """Return the trials of a training with their numbers (from 1), the best first, and the monitored metric.

    Empty where there was no search.
    """
    file = run_dir / TRIALS_FILE
    if not file.is_file():
        return [], ""
    try:
        facts = json.loads(file.read_text("utf-8"))
        sign = -1 if facts["direction"] == "max" else 1
        numbered = enumerate((Trial(**trial) for trial in facts["trials"]), start=1)
        order = sorted(numbered, key=lambda item: math.inf if item[1].value is None else sign * item[1].value)
        return order, str(facts["monitor"])
    except (ValueError, KeyError, TypeError):  # a training program may write what it likes
        return [], ""


def _try(
    function: Callable[[TrainingTask], object],
    task: TrainingTask,
    search: SearchSettings,
    trial: Trial,
    number: int,
) -> Trial:
    """Train once, and keep nothing but the figure and what a later training of the same can use."""
    values = ", ".join(f"{name} {value}" for name, value in trial.hyperparameters.items())
    report_line(f"trial {number + 1} of {search.trials}: {values}")
    started = time.monotonic()
    scratch = _folder(task, number) / "tried"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "run").mkdir(parents=True)
    function(_of_trial(task, trial, number, model_dir=scratch / "model", run_dir=scratch / "run"))
    value = _figure(scratch / "run", search.monitor)
    shutil.rmtree(scratch)
    return replace(trial, value=value, seconds=round(time.monotonic() - started, 1))


def _of_trial(
    task: TrainingTask, trial: Trial, number: int, *, model_dir: Path, run_dir: Path
) -> TrainingTask:
    work = _folder(task, number) / "work"
    work.mkdir(parents=True, exist_ok=True)
    values = {**task.hyperparameters, **trial.hyperparameters}
    return replace(task, hyperparameters=values, work_dir=work, model_dir=model_dir, run_dir=run_dir)


def _folder(task: TrainingTask, number: int) -> Path:
    return task.work_dir / _TRIALS / f"{number:04d}"


def _figure(run_dir: Path, monitor: str) -> float:
    """Return the metric of the epoch that the last fit kept; of the fit before where it kept none."""
    fits = list(read_history(run_dir).values())
    known: set[str] = set()
    for fit in reversed(fits):
        epoch = fit.epochs[fit.best_epoch] if fit.best_epoch >= 0 else {}
        if monitor in epoch:
            return epoch[monitor]
        known |= {*epoch}
    raise NoTrialFigureError(monitor, sorted(known))


def _best(trials: Sequence[Trial], direction: Direction) -> int:
    best, value = 0, worst(direction)
    for number, trial in enumerate(trials):
        if trial.value is not None and is_better(trial.value, value, direction):
            best, value = number, trial.value
    return best


def _propose(search: SearchSettings, direction: Direction, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return values for the next trial."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise NoSearchLibraryError from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: _distribution(optuna, values) for name, values in search.space.items()}
    sampler = optuna.samplers.TPESampler(seed=search.seed + len(trials))
    study = optuna.create_study(direction="maximize" if direction == "max" else "minimize", sampler=sampler)
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(trial.hyperparameters), distributions=space, value=trial.value
            )
        )
    return dict(study.ask(fixed_distributions=space).params)


def _distribution(optuna: Any, values: Range | Sequence[Any]) -> "optuna.distributions.BaseDistribution":
    kinds = optuna.distributions
    if not isinstance(values, Range):
        return kinds.CategoricalDistribution(list(values))
    if values.is_whole:
        return kinds.IntDistribution(values.low, values.high, log=values.log, step=values.step or 1)
    return kinds.FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _read(file: Path) -> list[Trial]:
    return (
        [Trial(**trial) for trial in json.loads(file.read_text("utf-8"))["trials"]] if file.is_file() else []
    )


def _write(file: Path, trials: Sequence[Trial], monitor: str, direction: Direction) -> None:
    described = [asdict(trial) for trial in trials]
    write_json(file, {"monitor": monitor, "direction": direction, "trials": described})
