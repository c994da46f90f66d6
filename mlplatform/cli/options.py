"""Options and output that several commands share."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mlplatform.cli.hints import remember_root
from mlplatform.home import DEFAULT_ROOT, ROOT_VARIABLE

Command = TypeVar("Command", bound=Callable[..., Any])


def root_option(command: Command) -> Command:
    """Add `--root DIR`: the folder or URL that holds runs, datasets and models."""
    return click.option(
        "--root",
        metavar="DIR",
        default=None,
        callback=remember_root,
        help="Root of runs, datasets and models, a folder or a URL "
        f"[default: ${ROOT_VARIABLE}, else ./{DEFAULT_ROOT}].",
    )(command)


def pipeline_options(command: Command) -> Command:
    """Add what composes a pipeline: `--data`, `--root`, `--set`, `--config` and `--parameter`."""
    options: tuple[Callable[[Command], Command], ...] = (
        click.option("--data", metavar="PATH", default=None, help="The data that the pipeline ingests."),
        root_option,
        click.option(
            "--set",
            "settings",
            metavar="KEY=VALUE",
            multiple=True,
            help="An argument of the pipeline (repeatable); dots reach into it, the value is YAML.",
        ),
        click.option(
            "--config",
            "config_file",
            metavar="FILE",
            type=click.Path(path_type=Path),
            default=None,
            help="A YAML file of such arguments; --set goes on top.",
        ),
        click.option(
            "--parameter",
            "parameters",
            metavar="NAME=VALUE",
            multiple=True,
            help="The value of one of the pipeline's runtime parameters (repeatable).",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def host_option(command: Command) -> Command:
    """Add `--host URL`: a Kubeflow Pipelines server, whose runs are meant then."""
    return click.option(
        "--host", metavar="URL", default=None, help="Ask this Kubeflow Pipelines server, for its own runs."
    )(command)


def json_option(command: Command) -> Command:
    """Add `--json`: one JSON document on stdout, everything else on stderr."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)


def engine_option(command: Command) -> Command:
    """Add `--engine-option KEY=VALUE`: options of the engine that `--engine` names."""
    return click.option(
        "--engine-option",
        "engine_options",
        metavar="KEY=VALUE",
        multiple=True,
        help="An option of the engine (repeatable), such as parallelism=4; the value is YAML.",
    )(command)


def echo_json(document: object) -> None:
    """Print `document` as the one JSON document on stdout; numbers that JSON does not have are text."""
    click.echo(json.dumps(_strict(document), indent=2, sort_keys=False, default=str))


def _strict(value: object) -> object:
    if isinstance(value, dict):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)  # NaN, Infinity or -Infinity
    return value
