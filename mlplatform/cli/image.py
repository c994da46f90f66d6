"""`mlplatform image`: container images for clusters."""

import tempfile
from pathlib import Path

import click

from mlplatform.cli.options import echo_json, json_option

_BUILDERS = ("buildah", "podman", "docker")
_BASE = "python:3.12-slim"


@click.group()
def image() -> None:
    """Build container images that hold mlplatform and your own code."""


@image.command()
@click.argument("code", nargs=-1, type=click.Path(path_type=Path))
@click.option("-t", "--tag", metavar="NAME", default=None, help="The image's name, REGISTRY/NAME:TAG.")
@click.option(
    "--base",
    metavar="IMAGE",
    default=None,
    help=f"The image to build on; one with CUDA's libraries for pods that have GPUs [default: {_BASE}].",
)
@click.option(
    "--update",
    metavar="IMAGE",
    default=None,
    help="Build on the image of an earlier build instead, and install only what differs.",
)
@click.option(
    "--extra",
    "extras",
    metavar="NAME",
    multiple=True,
    default=("kubeflow", "s3"),
    show_default=True,
    help="An extra of mlplatform to install (repeatable).",
)
@click.option(
    "--requirements",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Requirements file of what else to install (repeatable).",
)
@click.option(
    "--constraints",
    metavar="FILE",
    default=None,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Pinned versions [default: the tested ones, in a checkout of mlplatform].",
)
@click.option(
    "--context",
    metavar="DIR",
    default=None,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the build context is written and kept [default: a temporary folder].",
)
@click.option("--context-only", is_flag=True, help="Write the build context, and build nothing.")
@click.option(
    "--builder",
    type=click.Choice(_BUILDERS),
    default=None,
    help="What builds it [default: the first of these that can].",
)
@click.option(
    "--builder-option",
    "builder_options",
    metavar="OPTION",
    multiple=True,
    help="An option of the builder, as it takes it (repeatable), such as --builder-option=--network=host.",
)
@json_option
def build(
    code: tuple[Path, ...],
    tag: str | None,
    base: str | None,
    update: str | None,
    extras: tuple[str, ...],
    requirements: tuple[Path, ...],
    constraints: Path | None,
    context: Path | None,
    context_only: bool,
    builder: str | None,
    builder_options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build an image of mlplatform and CODE: projects, folders of modules, .py files, wheels.

    The image runs as any user, its Python files are byte-compiled, and nothing is installed when it starts.
    """
    if context_only and context is None:
        raise click.UsageError("--context-only needs --context DIR, where the context is kept")
    if not context_only and tag is None:
        raise click.UsageError("an image needs a name: --tag REGISTRY/NAME:TAG")
    if base is not None and update is not None:
        raise click.UsageError("--update names the image to build on: leave --base out")
    on = update or base or _BASE
    from mlplatform.orchestration.container_image.build import BUILDERS, build_image, find_builder
    from mlplatform.orchestration.container_image.context import write_context

    chosen = next((each for each in BUILDERS if each == builder), None)
    if not context_only:
        if tag is not None:
            _check_tag(tag)
        chosen = find_builder(chosen)
    with tempfile.TemporaryDirectory(prefix="mlplatform-image-") as tmp:
        made = write_context(
            context or Path(tmp) / "context",
            base=on,
            code=code,
            extras=extras,
            requirements=requirements,
            constraints=constraints,
            is_update=update is not None,
        )
        if chosen is not None and tag is not None and not context_only:
            build_image(made.folder, tag, chosen, builder_options)
    facts = {
        "image": None if context_only else tag,
        "builder": None if context_only else chosen,
        "context": str(context) if context else None,
        "base": on,
        "wheels": list(made.wheels),
        "code": list(made.code),
        "requirements": list(made.requirements),
    }
    if as_json:
        echo_json(facts)
    elif context_only:
        click.echo(f"{made.folder}: {len(made.wheels)} wheels, {len(made.code)} files and folders of code")
    else:
        click.echo(f"{tag}: built by {chosen} on {on}")


def _check_tag(tag: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    from mlplatform.orchestration.kubeflow.options import Image

    try:
        TypeAdapter(Image).validate_python(tag)
    except ValidationError as error:
        raise click.UsageError(
            f"--tag {tag}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
        ) from error
