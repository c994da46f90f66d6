"""The `mlplatform` command: finds the command, loads its file alone, and maps errors to exit codes."""

import importlib
import sys
from typing import cast

import click

import mlplatform
from mlplatform.errors import GateError, MlplatformError, UsageError

EXIT_FAILED, EXIT_USAGE, EXIT_GATE = 1, 2, 3

# Command, the module and attribute that hold it, and its line in `mlplatform --help`.
COMMANDS = {
    "run": ("mlplatform.cli.run:run", "Run a pipeline."),
    "compile": ("mlplatform.cli.compile:compile_", "Compile a pipeline for Kubeflow Pipelines."),
    "runs": ("mlplatform.cli.runs:runs", "List, show, compare and explain runs."),
    "datasets": (
        "mlplatform.cli.datasets:datasets",
        "Commit, compare, trace and check out dataset versions.",
    ),
    "models": ("mlplatform.cli.models:models", "List, push, promote and roll back models."),
    "approve": ("mlplatform.cli.approve:approve", "Approve or refuse the push that a run waits with."),
    "serve": ("mlplatform.cli.serve:serve", "Serve pushed models over gRPC and REST."),
    "predict": ("mlplatform.cli.predict:predict", "Write a model's answers to many records to a file."),
    "search": ("mlplatform.cli.search:search", "Find items by photo; add, remove and export items."),
    "lineage": ("mlplatform.cli.lineage:lineage", "Show what was made from what."),
    "ui": ("mlplatform.cli.ui:ui", "Show runs, datasets and models in a browser."),
    "image": ("mlplatform.cli.image:image", "Build container images for clusters."),
    "gc": ("mlplatform.cli.gc:gc", "Remove old runs, artifacts, reports and withdrawn models."),
    "demo": ("mlplatform.cli.demo:demo", "Show a pushed model in a browser or as a page; make demo photos."),
    "doctor": ("mlplatform.cli.doctor:doctor", "Say what this machine can run and what is missing."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and help lines and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; print an expected error, with its traceback for `--verbose` alone."""
        try:
            return super().invoke(ctx)
        except (MlplatformError, OSError) as error:  # OSError: disk full, permission denied
            if ctx.params.get("verbose"):
                raise
            click.echo(f"mlplatform: {_text(error)}", err=True)
            sys.exit(exit_code(error))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mlplatform.__version__, prog_name="mlplatform")
@click.option("--verbose", is_flag=True, help="Show the traceback of an error.")
def cli(verbose: bool) -> None:
    """Version training data, train, validate and push models: TFX components, composed into pipelines.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a gate said no.
    """
    del verbose  # `LazyGroup.invoke` reads it


def exit_code(error: BaseException) -> int:
    """Return the process exit code that stands for `error`."""
    if isinstance(error, GateError):
        return EXIT_GATE
    if isinstance(error, UsageError):
        return EXIT_USAGE
    return EXIT_FAILED


def _text(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}"
    if not isinstance(error, MlplatformError):
        return str(error)
    from mlplatform.cli.hints import hint, with_root  # only errors need it

    return f"{with_root(str(error))}{hint(error)}"


def main() -> None:
    """Run the command line; an expected error is its own text on stderr and a non-zero exit code."""
    cli()


if __name__ == "__main__":
    main()
