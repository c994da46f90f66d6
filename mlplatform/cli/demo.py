"""`mlplatform demo`: a pushed model in a browser; embedded photos, and the whole trip on them."""

from pathlib import Path

import click

from mlplatform.cli.options import echo_json, json_option, root_option

_SERVE = "serve"


class ModelGroup(click.Group):
    """A group in which the name of a model stands for `serve` with that name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; `serve` for what looks like none."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = [_SERVE, *args]
        return super().resolve_command(ctx, args)


@click.group(cls=ModelGroup)
def demo() -> None:
    """Show a pushed model in a browser or as one page; make demo photos, or run the whole trip on them.

    `mlplatform demo MODEL` means `mlplatform demo serve MODEL`.
    """


@demo.command()
@click.argument("reference", metavar="MODEL[@VERSION]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0: any free one."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--beside",
    metavar="VERSION",
    default="",
    help="Another version whose answers stand beside [default: the one labelled stable].",
)
@click.option(
    "--allowed-host",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="A name that people use for this server beyond loopback (repeatable).",
)
@click.option("--token", envvar="MLPLATFORM_UI_TOKEN", default="", help="What must be known to see anything.")
@root_option
def serve(
    reference: str,
    port: int,
    host: str,
    beside: str,
    allowed: tuple[str, ...],
    token: str,
    root: str | None,
) -> None:
    """Let people ask MODEL in a browser, until Ctrl-C: photos, the camera, forms and held-out records.

    The page also shows what the model saw, what it is known to confuse, and what it cannot do. Nothing that
    is sent is kept. Listens on loopback alone; beyond it, every name that people use must be allowed, and a
    token is asked for: where none is given, a new one is printed. VERSION is a number, a label or latest.
    """
    from mlplatform.demo.server import show_until_stopped
    from mlplatform.home import Home

    show_until_stopped(
        Home.at(root), reference, host, port, beside=beside, allowed=allowed, token=token, say=click.echo
    )


@demo.command()
@click.argument("reference", metavar="MODEL[@VERSION]")
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The HTML file to write.",
)
@click.option(
    "--samples",
    type=click.IntRange(0, 2000),
    default=200,
    show_default=True,
    help="Held-out records to ask the model about.",
)
@click.option("--seed", default=1, show_default=True, help="The same seed chooses the same records.")
@root_option
@json_option
def page(reference: str, out: Path, samples: int, seed: int, root: str | None, as_json: bool) -> None:
    """Write MODEL as one HTML file of at most 5 MB that needs no server and no network.

    It shows held-out records with the model's answers, the worst errors, the classes, and the figures of the
    evaluation. VERSION is a number, a label or latest.
    """
    from mlplatform.demo.offline import write_demo_page
    from mlplatform.home import Home

    made = write_demo_page(Home.at(root), reference, out, samples=samples, seed=seed)
    if as_json:
        echo_json(made)
        return
    click.echo(f"{made['name']}: {made['records']} held-out records, {made['bytes']:,} bytes: {out}")


@demo.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--categories", default=24, show_default=True, help="How many categories.")
@click.option("--per-category", default=60, show_default=True, help="How many photos of each.")
@click.option(
    "--unseen", default=24, show_default=True, help="How many more photos, in unseen/, to ask a model about."
)
@click.option("--size", "size_px", default=112, show_default=True, help="Width and height in pixels.")
@click.option("--seed", default=1, show_default=True, help="The same seed draws the same photos.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME",
    help="Put a fault in (repeatable): docs/reference/demo-photos.md names them.",
)
@json_option
def photos(
    out: Path,
    categories: int,
    per_category: int,
    unseen: int,
    size_px: int,
    seed: int,
    faults: tuple[str, ...],
    as_json: bool,
) -> None:
    """Draw item photos with their listing into OUT, a folder that is not there yet."""
    from mlplatform.demo.photos import make_photos

    made = make_photos(
        out,
        categories=categories,
        per_category=per_category,
        unseen=unseen,
        size_px=size_px,
        seed=seed,
        faults=faults,
    )
    if as_json:
        echo_json(made)
    else:
        click.echo(f"{categories * per_category} photos in {categories} categories: {out}")


@demo.command()
@click.option(
    "--out",
    default="demo-out",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of everything that the demo makes.",
)
@click.option("--categories", default=24, show_default=True, help="How many categories of photos.")
@click.option("--per-category", default=60, show_default=True, help="How many photos of each.")
@click.option(
    "--pipeline",
    default="item_category",
    show_default=True,
    type=click.Choice(["item_category", "item_color"]),
    help="What the model says of a photo: its category, or its colour with a palette.",
)
def run(out: Path, categories: int, per_category: int, pipeline: str) -> None:
    """Take embedded photos to a served model, ask it about unseen ones, and write a page."""
    from mlplatform.demo.trip import run_trip

    run_trip(
        out.absolute(), say=click.echo, categories=categories, per_category=per_category, pipeline=pipeline
    )
