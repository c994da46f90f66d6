"""Finding a pipeline by name: a packaged one, a file, or a module, each with a function that makes it."""

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mlplatform.errors import UsageError

DEFAULT_FUNCTION = "create_pipeline"
CHECK_FUNCTION = "check_arguments"
PACKAGED = "mlplatform.pipelines"
NODE_OPTIONS = "kubernetes"


class PipelineNotFoundError(UsageError):
    """No pipeline has this name."""

    def __init__(self, reference: str, reason: str, near: list[str]) -> None:
        super().__init__(reference, reason, near)
        self.reference, self.reason, self.near = reference, reason, near

    def __str__(self) -> str:
        meant = f"; did you mean {' or '.join(map(repr, self.near))}?" if self.near else "."
        return (
            f"no pipeline {self.reference!r}: {self.reason}{meant} A pipeline is a packaged name, "
            "path/to/file.py[:function] or package.module:function"
        )


class PipelineArgumentError(UsageError):
    """The function that makes the pipeline does not take what was given."""

    def __init__(self, reference: str, problem: str, taken: list[str]) -> None:
        super().__init__(reference, problem, taken)
        self.reference, self.problem, self.taken = reference, problem, taken

    def __str__(self) -> str:
        return f"pipeline {self.reference!r} {self.problem}; it takes {', '.join(self.taken) or 'nothing'}"


def packaged_names() -> list[str]:
    """Return the names of the packaged pipelines."""
    folder = Path(__file__).parents[2] / "pipelines"
    return sorted(path.parent.name for path in folder.glob("*/__init__.py"))


def split_reference(reference: str) -> tuple[str, str]:
    """Return the place (file, module or packaged name) and the function of a reference."""
    place, colon, function = reference.rpartition(":")
    if colon and function.isidentifier():
        return place, function
    return (place if colon and not function else reference), DEFAULT_FUNCTION


def provisional_name(reference: str) -> str:
    """Return what a run is called until its pipeline says its own name."""
    place, _ = split_reference(reference)
    return Path(place).stem if is_file(place) else place.rpartition(".")[2]


def check_reference(reference: str) -> None:
    """Find the pipeline's module without importing it.

    Raises:
        PipelineNotFoundError: There is none; near names are named.
    """
    place, _ = split_reference(reference)
    if is_file(place):
        path = Path(place)
        if not path.is_file():
            beside = [str(entry) for entry in path.parent.glob("*.py")] if path.parent.is_dir() else []
            near = difflib.get_close_matches(place, beside, n=2)
            raise PipelineNotFoundError(reference, f"there is no file {place}", near)
    elif "." not in place and place not in packaged_names() and ":" not in reference:
        names = packaged_names()
        near = difflib.get_close_matches(place, names, n=2) or names
        raise PipelineNotFoundError(reference, "none of the packaged pipelines has this name", near)
    elif place not in packaged_names() and not _is_module(place):
        raise PipelineNotFoundError(reference, f"there is no module {place.partition('.')[0]!r}", [])


def is_file(place: str) -> bool:
    """Say whether a place is a path, rather than a module or a packaged name."""
    return place.endswith(".py") or "/" in place


def load_module(reference: str) -> ModuleType:
    """Import the module that a reference names.

    Raises:
        PipelineNotFoundError: There is none.
    """
    check_reference(reference)
    place, _ = split_reference(reference)
    if is_file(place):
        return _load_file(Path(place).resolve())
    name = f"{PACKAGED}.{place}" if place in packaged_names() else place
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise PipelineNotFoundError(reference, f"there is no module {error.name!r}", []) from None
        raise


def find_function(reference: str) -> Callable[..., Any]:
    """Import the module and return the function that makes the pipeline.

    Raises:
        PipelineNotFoundError: The module or the function is not there.
    """
    module = load_module(reference)
    _, name = split_reference(reference)
    function = getattr(module, name, None)
    if not callable(function):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, public, n=2)
        raise PipelineNotFoundError(reference, f"{module.__name__} has no function {name!r}", near)
    return function  # type: ignore[no-any-return]


def make_pipeline(reference: str, data: str | None, root: str, overrides: Mapping[str, Any]) -> Any:
    """Call the function with `data` and `root`, where its signature takes them, and with the overrides.

    The override `kubernetes` holds options of the nodes; of a function that does not take it, they are kept
    with the pipeline that it makes.

    Raises:
        PipelineNotFoundError: There is no such pipeline.
        PipelineArgumentError: `data`, or an override, is not what the function takes.
        ConfigError: The options of the nodes do not fit the pipeline.
    """
    function, options = find_function(reference), None
    if NODE_OPTIONS in overrides and not _takes(function, NODE_OPTIONS):
        overrides = dict(overrides)
        options = overrides.pop(NODE_OPTIONS)
    pipeline = _call(function, reference, data, root, overrides)
    if options is not None:
        from mlplatform.orchestration.kubeflow.options import with_options

        with_options(pipeline, options)
    return pipeline


def check_where_it_runs(reference: str, data: str | None, root: str, overrides: Mapping[str, Any]) -> None:
    """Call the function `check_arguments` beside the one that makes the pipeline, where there is one.

    A pipeline is made where it is compiled, which may be another machine than the ones that run it. So the
    function that makes it does not ask for files; this one, which takes the same arguments, does.

    Raises:
        PipelineNotFoundError: There is no such pipeline.
        MlplatformError: What the function finds wrong.
    """
    function = getattr(load_module(reference), CHECK_FUNCTION, None)
    if callable(function):
        _call(function, reference, data, root, overrides)


def _takes(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _call(
    function: Callable[..., Any], reference: str, data: str | None, root: str, overrides: Mapping[str, Any]
) -> Any:
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    arguments = dict(overrides)
    if data is not None:
        if "data" not in parameters:
            raise PipelineArgumentError(reference, "takes no argument 'data'", list(parameters))
        arguments["data"] = data
    if "root" in parameters:
        arguments["root"] = root
    unknown = [name for name in arguments if name not in parameters and not takes_any]
    if unknown:
        raise PipelineArgumentError(reference, f"takes no {', '.join(unknown)}", list(parameters))
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name not in arguments
    ]
    if needed:
        raise PipelineArgumentError(reference, f"needs a value for {', '.join(needed)}", list(parameters))
    return function(**arguments)


def _is_module(name: str) -> bool:
    """Say whether there may be such a module, without importing one, so by its first part alone."""
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    except ValueError:  # one that was made by hand
        return True


def _load_file(path: Path) -> ModuleType:
    """Import a file under the name that its own package, or its folder on the import path, gives it."""
    folder, names = path.parent, [path.stem]
    packaged = (Path(__file__).parents[2] / "pipelines").resolve()
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        if folder == packaged:  # one import name for each module
            return importlib.import_module(".".join(["mlplatform", *names]))
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(".".join(names))
