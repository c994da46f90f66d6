"""`mlplatform doctor`: what this machine can run, and what is missing."""

from dataclasses import asdict
from typing import Any

import click

from mlplatform.cli.options import echo_json, engine_option, json_option, root_option
from mlplatform.cli.quiet import quiet_libraries
from mlplatform.cli.run import parse_engine_options
from mlplatform.home import Home
from mlplatform.machine import Check, look, possible_stacks
from mlplatform.orchestration.engine import parse_engine

_MARKS = {"ok": "ok     ", "warning": "warning", "missing": "MISSING"}


@click.command()
@root_option
@click.option("--engine", metavar="NAME", default=None, help="Look at this engine of Beam.")
@engine_option
@json_option
@click.pass_context
def doctor(
    ctx: click.Context,
    root: str | None,
    engine: str | None,
    engine_options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say which stack this machine can have and what is missing. Exit code 1 if something is.

    With --engine, look at that engine alone: its job server, a job of ten records, the versions of its
    workers, and whether they see the root.
    """
    home = Home.at(root)
    block = parse_engine_options(engine, engine_options)
    checks = list(look(home.machine)) if block is None else _look_at_engine(block, home)
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
        if block is not None:
            ctx.exit(0 if is_fit else 1)
        click.echo(
            f"\nThis machine can have{': ' + ', '.join(stacks) if stacks else ' no stack'}. "
            + ("All is there." if is_fit else "Not all is there.")
        )
    ctx.exit(0 if is_fit else 1)


def _look_at_engine(block: dict[str, Any], home: Home) -> list[Check]:
    chosen = parse_engine(block)
    quiet_libraries()
    from mlplatform.beam.doctor import look_at_engine

    return list(look_at_engine(chosen.arguments if chosen else (), home.work))
