"""`mlplatform lineage`: what was made from what. Reads the ledger and manifests; imports no TFX."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlplatform.cli.options import echo_json, json_option, root_option
from mlplatform.home import Home

if TYPE_CHECKING:
    from mlplatform.registry.lineage_graph import Direction


@click.command()
@click.argument("what")
@click.option("--up", "is_up", is_flag=True, help="Only what it was made from.")
@click.option("--down", "is_down", is_flag=True, help="Only what was made from it.")
@click.option("--hops", type=click.IntRange(min=1), default=None, help="At most this many steps away.")
@click.option("--html", type=click.Path(path_type=Path), default=None, help="Write a page to this file.")
@root_option
@json_option
def lineage(
    what: str,
    is_up: bool,
    is_down: bool,
    hops: int | None,
    html: Path | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Show what WHAT was made from, and what was made from it.

    WHAT is a run's id, MODEL@VERSION, DATASET@VERSION or the key of a record; where several things have that
    name, put the kind in front: model:NAME@VERSION, dataset:NAME@VERSION, run:ID, record:DATASET/KEY.
    """
    from mlplatform.ui.lineage import lineage as find_lineage

    direction: Direction = "up" if is_up and not is_down else "down" if is_down and not is_up else "both"
    named, part = find_lineage(Home.at(root), what, direction, hops=hops)
    document = part.as_json()
    if html is not None:
        from mlplatform.reports.lineage_page import write_lineage_page

        write_lineage_page(html, named.id, document)
    if as_json:
        echo_json(document)
        return
    click.echo(named.id)
    for edge in part.edges:
        click.echo(f"  {edge.source}  --{edge.how}-->  {edge.target}")
    if not part.edges:
        click.echo("  nothing is recorded that it was made from, or that was made from it")
    if html is not None:
        click.echo(f"page: {html}", err=True)
