"""`mlplatform compile`: a pipeline as a package for Kubeflow Pipelines."""

from pathlib import Path

import click

from mlplatform.cli.options import echo_json, json_option, pipeline_options
from mlplatform.cli.quiet import quiet_libraries
from mlplatform.cli.run import FlagError, overrides_of, parse_parameter
from mlplatform.home import Home
from mlplatform.orchestration.local.reference import PipelineArgumentError, check_reference, make_pipeline


@click.command("compile")
@click.argument("pipeline")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default=None,
    help="Where the package is written; -: to stdout [default: the pipeline's name, .yaml].",
)
@pipeline_options
@json_option
def compile_(
    pipeline: str,
    output: str | None,
    data: str | None,
    root: str | None,
    settings: tuple[str, ...],
    config_file: Path | None,
    parameters: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compile PIPELINE, named as for run, for Kubeflow Pipelines 2.5 and newer.

    The package is a pipeline spec 2.1 and, beside it, what Kubernetes has to know of the nodes. Neither a
    server nor the root is asked.
    """
    overrides = overrides_of(config_file, settings)
    given = dict(parse_parameter(text) for text in parameters)
    check_reference(pipeline)
    quiet_libraries()
    try:
        made = make_pipeline(pipeline, data, Home.at(root).root, overrides)
    except PipelineArgumentError as error:
        raise FlagError(str(error), "--data PATH and --set NAME=VALUE give its arguments") from error

    from mlplatform.orchestration.kubeflow.compile import compile_pipeline

    package = compile_pipeline(made, root=root, parameters=given)
    for warning in package.warnings:
        click.echo(f"warning: {warning}", err=True)
    if output == "-":
        click.echo(package.text, nl=False)
        return
    file = output or f"{package.spec['pipelineInfo']['name']}.yaml"
    package.write(file)
    facts = {
        "file": file,
        "pipeline": package.pipeline,
        "name": package.spec["pipelineInfo"]["name"],
        "tasks": sorted(package.nodes),
        "parameters": sorted(package.parameters),
        "bytes": len(package.text.encode()),
        "warnings": list(package.warnings),
    }
    if as_json:
        echo_json(facts)
        return
    click.echo(f"{file}: {len(package.nodes)} tasks, {facts['bytes']:,} bytes")
