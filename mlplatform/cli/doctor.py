"""`mlplatform doctor`: what this machine can run, and what is missing."""

from dataclasses import asdict

import click

from mlplatform.cli.options import echo_json, json_option, root_option
from mlplatform.home import Home
from mlplatform.machine import look, possible_stacks

_MARKS = {"ok": "ok     ", "warning": "warning", "missing": "MISSING"}


@click.command()
@root_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, root: str | None, as_json: bool) -> None:
    """Say which stack this machine can have and what is missing. Exit code 1 if something is."""
    checks = list(look(Home.at(root).machine))
    is_fit = all(check.status != "missing" for check in checks)
    stacks = possible_stacks()
    if as_json:
        echo_json(
            {"is_fit": is_fit, "possible_stacks": stacks, "checks": [asdict(check) for check in checks]}
        )
    else:
        for check in checks:
            click.echo(f"{_MARKS[check.status]}  {check.name:<34} {check.found}")
            if check.todo:
                click.echo(f"         -> {check.todo}")
        click.echo(
            f"\nThis machine can have{': ' + ', '.join(stacks) if stacks else ' no stack'}. "
            + ("All is there." if is_fit else "Not all is there.")
        )
    ctx.exit(0 if is_fit else 1)
