"""`mlplatform demo`: embedded photos, and the whole trip on them."""

from pathlib import Path

import click

from mlplatform.cli.options import echo_json, json_option


@click.group()
def demo() -> None:
    """Make demo photos, or run the whole trip on them."""


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
