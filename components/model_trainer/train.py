"""Run a model's training code so that it can be killed at any time and resumes."""

import hashlib
import importlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mlplatform.components.model_trainer.errors import NoModelError, RunFunctionError
from mlplatform.components.model_trainer.unfinished import unfinished
from mlplatform.config import parse_config
from mlplatform.fingerprints.code_closure import Closure, closure_of
from mlplatform.taxonomy import Taxonomy
from mlplatform.training.search_settings import SearchSettings
from mlplatform.training.task import TrainingTask
from mlplatform.training.trained_on import write_trained_on

RunFunction = Callable[[TrainingTask], object]
_NO_SEARCH = SearchSettings()


def train(
    run_fn: str,
    *,
    train_files: Sequence[str],
    eval_files: Sequence[str],
    hyperparameters: Mapping[str, Any],
    work_root: str | Path,
    model_dir: Path,
    run_dir: Path,
    schema_file: Path | None = None,
    transform_dir: Path | None = None,
    base_model_dir: Path | None = None,
    name_of: Callable[[str], str] = str,
    taxonomy: Taxonomy | None = None,
    search: SearchSettings = _NO_SEARCH,
) -> None:
    """Call the model's training code and see that it wrote a model.

    Args:
        run_fn: Import path of a function that takes a `TrainingTask`.
        train_files: TFRecord files to train on.
        eval_files: TFRecord files to watch the training with.
        hyperparameters: The model's own settings; JSON values.
        work_root: Folder or URL where unfinished trainings are kept, each in a folder named by its code,
            inputs and hyperparameters.
        model_dir: Where the SavedModel goes.
        run_dir: Where history and logs go.
        schema_file: Schema of the Examples.
        transform_dir: Transform's output.
        base_model_dir: SavedModel to start from.
        name_of: What an input is called in the name of the training: where it really lies, if what is read
            is a copy with another path each time.
        taxonomy: The design of the dataset's classes.
        search: Which hyperparameters are searched, and how.

    Raises:
        RunFunctionError: `run_fn` leads to no function.
        TrainingInProgressError: Another process is at the same training.
        NoModelError: The training code wrote no model.
    """
    function = find_function(run_fn)
    code = closure_of([run_fn.partition(":")[0]])
    inputs = [*train_files, "", *eval_files, *map(str, (schema_file, transform_dir, base_model_dir))]
    settings = {**hyperparameters, "taxonomy": taxonomy.text} if taxonomy else dict(hyperparameters)
    if search.trials:
        settings["search"] = search.model_dump()
    key = training_key(run_fn, code, inputs, settings, name_of)
    with unfinished(os.fspath(work_root), key) as work:
        logs = work.folder / "run"
        logs.mkdir(exist_ok=True)
        task = TrainingTask(
            train_files=tuple(train_files),
            eval_files=tuple(eval_files),
            hyperparameters=hyperparameters,
            work_dir=work.folder,
            model_dir=model_dir,
            run_dir=logs,
            schema_file=schema_file,
            transform_dir=transform_dir,
            base_model_dir=base_model_dir,
            taxonomy=taxonomy,
            save=work.save,
        )
        chosen: Mapping[str, Any] = {}
        if search.trials:
            # Here, as few trainings search.
            from mlplatform.training.search import train_best

            chosen = train_best(function, task, search)
        else:
            function(task)
        if not (model_dir / "saved_model.pb").is_file():
            raise NoModelError(run_fn, str(model_dir))
        (logs / "hyperparameters.json").write_text(
            json.dumps({**hyperparameters, **chosen}, indent=2), "utf-8"
        )
        write_trained_on(logs, train_files)
        shutil.copytree(logs, run_dir, dirs_exist_ok=True)
        work.remove()


def parse_search(values: Mapping[str, Any]) -> SearchSettings:
    """Return the settings of a search.

    Raises:
        ConfigError: A key is unknown, or a value does not fit.
    """
    return parse_config(SearchSettings, values, source="ModelTrainer's search")


def check_path(path: str) -> None:
    """See that an import path can be one; imports nothing.

    Raises:
        RunFunctionError: It is not `package.module:function`.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", path):
        raise RunFunctionError(path, "it is not 'package.module:function'")


def find_function(path: str) -> RunFunction:
    """Return the function that `package.module:function` names.

    Raises:
        RunFunctionError: There is none.
    """
    check_path(path)
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise RunFunctionError(path, f"there is no module {error.name!r}") from error
        raise
    function = getattr(module, name, None)
    if not callable(function):
        raise RunFunctionError(path, f"module {module_name!r} has no function {name!r}")
    return cast(RunFunction, function)


def training_key(
    run_fn: str,
    code: Closure,
    inputs: Sequence[str],
    hyperparameters: Mapping[str, Any],
    name_of: Callable[[str], str] = str,
) -> str:
    """Return the name of a training: equal for equal code, libraries, files and hyperparameters."""
    sizes = [Path(name).stat().st_size if Path(name).is_file() else 0 for name in inputs]
    facts = [
        run_fn,
        code.files,
        code.libraries,
        [name_of(name) for name in inputs],
        sizes,
        dict(hyperparameters),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
