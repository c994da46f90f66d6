"""`mlplatform run`: run a pipeline."""

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mlplatform.cli.hints import with_root
from mlplatform.cli.options import echo_json, engine_option, json_option, pipeline_options
from mlplatform.config_file import merged, parse_yaml, read_yaml
from mlplatform.errors import UsageError
from mlplatform.orchestration.choices import ENGINES, RUNNERS
from mlplatform.orchestration.local.errors import NodeFailedError, NothingToReuseError, RuntimeParameterError
from mlplatform.orchestration.local.reference import PipelineArgumentError
from mlplatform.orchestration.runner import Runner

INTERRUPTED = 130  # what shells give for Ctrl-C
STOPPED = "mlplatform: stopped; run the same again to go on: finished nodes are reused"

NOT_WAITING = "mlplatform: stopped; a run that was submitted continues: mlplatform runs cancel RUN ends it"


class OverrideError(UsageError):
    """A `--set` or `--engine-option` is not KEY=VALUE, or a `--parameter` not NAME=VALUE."""

    def __init__(self, text: str, problem: str, option: str = "--set") -> None:
        super().__init__(text, problem, option)
        self.text, self.problem, self.option = text, problem, option

    def __str__(self) -> str:
        form = {
            "--set": "KEY=VALUE, such as --set model.epochs=5",
            "--parameter": "NAME=VALUE",
            "--engine-option": "KEY=VALUE, such as --engine-option parallelism=4",
        }
        return f"{self.option} {self.text!r}: {self.problem}; give {form[self.option]}"


class OnlyOneNodeError(UsageError):
    """`--only` was given more than once, or beside `--from` or `--to`."""

    def __init__(self, nodes: tuple[str, ...]) -> None:
        super().__init__(nodes)
        self.nodes = nodes

    def __str__(self) -> str:
        return (
            f"--only {' --only '.join(self.nodes)}: it runs one node alone, and here more is asked for. Give "
            "it once, or give --from and --to: all nodes between these run."
        )


class RunnerOptionError(UsageError):
    """An option was given that the chosen runner does not have."""

    def __init__(self, runner: str, options: list[str]) -> None:
        super().__init__(runner, options)
        self.runner, self.options = runner, options

    def __str__(self) -> str:
        names = ", ".join(f"--{name}" for name in self.options)
        return f"{names}: the runner {self.runner!r} has no such option; give --runner kubeflow"


# Errors of the library, which knows no flags, and the flag that helps.
FLAGS: dict[type[Exception], str] = {
    NothingToReuseError: "--to NODE runs a pipeline up to a node",
    PipelineArgumentError: "--data PATH and --set NAME=VALUE give its arguments",
    RuntimeParameterError: "--parameter NAME=VALUE gives the value of a runtime parameter",
}


class FlagError(UsageError):
    """An error of the library, and the flag that helps."""

    def __init__(self, problem: str, flags: str) -> None:
        super().__init__(problem, flags)
        self.problem, self.flags = problem, flags

    def __str__(self) -> str:
        return f"{self.problem} ({self.flags})"


@click.command()
@click.argument("pipeline")
@pipeline_options
@click.option("--from", "from_nodes", metavar="NODE", multiple=True, help="Run this node and those after it.")
@click.option("--to", "to_nodes", metavar="NODE", multiple=True, help="Run this node and those before it.")
@click.option("--only", "only_nodes", metavar="NODE", multiple=True, help="Run this node alone.")
@click.option(
    "--force", metavar="NODE", multiple=True, help="Run this node even if an earlier result is there."
)
@click.option(
    "--parallelism",
    metavar="N",
    type=click.IntRange(min=1),
    default=None,
    help="Nodes at the same time [default: from cores and memory].",
)
@click.option(
    "--runner",
    metavar=f"[{'|'.join(RUNNERS.own)}|NAME|MODULE:CLASS]",
    default="local",
    show_default=True,
    help="Who runs it: a runner of this package, a registered one, or an import string.",
)
@click.option(
    "--engine",
    metavar=f"[{'|'.join(ENGINES.own)}|NAME|MODULE:FUNCTION]",
    default=None,
    help="What Beam runs on, likewise [default: what the pipeline's own Beam arguments say].",
)
@engine_option
@click.option("--host", metavar="URL", default=None, help="--runner kubeflow: the Kubeflow Pipelines server.")
@click.option("--experiment", metavar="NAME", default=None, help="--runner kubeflow: the run's experiment.")
@click.option("--namespace", metavar="NAME", default=None, help="--runner kubeflow: the run's namespace.")
@click.option("--wait", is_flag=True, help="--runner kubeflow: wait for the end of the run.")
@click.option(
    "--schedule",
    metavar="CRON",
    default=None,
    help="--runner kubeflow: start a run at these times, such as '0 2 * * *', and none now.",
)
@json_option
def run(
    pipeline: str,
    data: str | None,
    root: str | None,
    settings: tuple[str, ...],
    config_file: Path | None,
    parameters: tuple[str, ...],
    from_nodes: tuple[str, ...],
    to_nodes: tuple[str, ...],
    only_nodes: tuple[str, ...],
    force: tuple[str, ...],
    parallelism: int | None,
    runner: str,
    engine: str | None,
    engine_options: tuple[str, ...],
    host: str | None,
    experiment: str | None,
    namespace: str | None,
    wait: bool,
    schedule: str | None,
    as_json: bool,
) -> None:
    """Run PIPELINE: a packaged name, path/to/file.py[:function] or package.module:function.

    A run that failed or was stopped resumes: run the same command again. --json prints the run's
    record however the run ended.
    """
    if only_nodes:
        if len(only_nodes) > 1 or from_nodes or to_nodes:
            raise OnlyOneNodeError(only_nodes)
        from_nodes = to_nodes = only_nodes
    overrides = overrides_of(config_file, settings)
    own: dict[str, Any] = {
        "host": host,
        "experiment": experiment,
        "namespace": namespace,
        "schedule": schedule,
    }
    own = {name: value for name, value in {**own, "wait": wait or None}.items() if value is not None}
    kind = RUNNERS.load(runner)
    if unknown := sorted(own.keys() - getattr(kind, "OPTIONS", frozenset())):
        raise RunnerOptionError(runner, unknown)
    chosen: Runner = kind(root, parallelism=parallelism, force=force, **own)
    try:
        chosen.run_reference(
            pipeline,
            data=data,
            overrides=overrides,
            from_nodes=from_nodes,
            to_nodes=to_nodes,
            parameters=dict(parse_parameter(text) for text in parameters),
            engine=parse_engine_options(engine, engine_options),
        )
    except KeyboardInterrupt:
        _say_stopped(STOPPED if runner == "local" else NOT_WAITING)
        raise SystemExit(INTERRUPTED) from None
    except SystemExit:  # SIGTERM, SIGHUP
        _say_stopped(STOPPED if runner == "local" else NOT_WAITING)
        raise
    except Exception as error:
        failed = error if isinstance(error, NodeFailedError) else error.__cause__
        if isinstance(failed, NodeFailedError):
            more = f"mlplatform runs logs {failed.run_id} {failed.node}"
            click.echo(f"mlplatform: {with_root(str(failed))}\n  whole log: {with_root(more)}", err=True)
            raise SystemExit(failed.exit_code) from error
        if flags := FLAGS.get(type(error)):
            raise FlagError(str(error), flags) from error
        raise
    finally:
        if as_json and chosen.record is not None:
            echo_json(asdict(chosen.record))
        elif chosen.record is not None and own:
            _say_submitted(chosen.record, schedule)


def _say_submitted(record: Any, schedule: str | None) -> None:
    if schedule is not None:
        click.echo(f"recurring run {record.run_id} of {record.pipeline}: {record.options['schedule']}")
    else:
        click.echo(f"run {record.run_id} of {record.pipeline}: {record.state}")


def overrides_of(config_file: Path | None, settings: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments of a pipeline in a file, with those of `--set` on top.

    Raises:
        ConfigError: The file cannot be read, or is not YAML.
        OverrideError: A `--set` is not KEY=VALUE.
    """
    overrides = read_yaml(config_file) if config_file else {}
    for text in settings:
        overrides = merged(overrides, parse_override(text))
    return overrides


def _say_stopped(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be what is gone
        click.echo(text, err=True)


def parse_parameter(text: str) -> tuple[str, str]:
    """Return `NAME=VALUE` as its two parts.

    Raises:
        OverrideError: It is not of this form.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise OverrideError(text, "there is no name and value", "--parameter")
    return name.strip(), value


def parse_engine_options(engine: str | None, options: tuple[str, ...]) -> dict[str, Any] | None:
    """Return an engine's name and options, as `--engine` and `--engine-option` give them, as one block.

    Raises:
        OverrideError: An option is not KEY=VALUE, or there are options of no engine.
    """
    if engine is None:
        if options:
            problem = "it is an option of no engine: give --engine, too"
            raise OverrideError(options[0], problem, "--engine-option")
        return None
    block: dict[str, Any] = {"name": engine}
    for text in options:
        block = merged(block, parse_override(text, "--engine-option"))
    return block


def parse_override(text: str, option: str = "--set") -> dict[str, Any]:
    """Return `a.b=VALUE` as `{"a": {"b": value}}`.

    Raises:
        OverrideError: It is not of this form.
    """
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise OverrideError(text, "there is no key and value", option)
    try:
        parsed = parse_yaml(value)
    except ValueError as error:
        raise OverrideError(text, f"the value is not YAML ({error})", option) from error
    for part in reversed(parts):
        parsed = {part: parsed}
    return dict(parsed)
