"""`mlplatform ui`: the dashboard."""

import click

from mlplatform.cli.options import root_option


def _rest_addresses(_: click.Context, option: click.Parameter, urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise click.BadParameter(f"{url!r}: give a URL, such as http://10.0.0.7:8501", param=option)
    return urls


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--allowed-host",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="A name that people use for this server beyond loopback (repeatable).",
)
@click.option("--token", envvar="MLPLATFORM_UI_TOKEN", default="", help="What must be known to see anything.")
@click.option(
    "--approve", "may_approve", is_flag=True, help="Let whoever knows the token approve and refuse pushes."
)
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="URL",
    callback=_rest_addresses,
    help="REST address of a model server, to show what it serves (repeatable).",
)
@root_option
def ui(
    port: int,
    host: str,
    allowed: tuple[str, ...],
    token: str,
    may_approve: bool,
    servers: tuple[str, ...],
    root: str | None,
) -> None:
    """Show runs, datasets and models in a browser, until Ctrl-C.

    Nothing can be changed there; with --approve, the pushes that runs wait with are approved and refused.
    Listens on loopback alone; beyond it, every name that people use must be allowed. There, and with
    --approve, a token is asked for: where none is given, a new one is printed.
    """
    from mlplatform.home import Home
    from mlplatform.ui.process import serve_until_stopped

    serve_until_stopped(
        Home.at(root),
        host,
        port,
        allowed=allowed,
        token=token,
        say=click.echo,
        may_approve=may_approve,
        servers=servers,
    )
