"""Write docs/reference/command-line.md out of the commands' own help texts."""

from collections.abc import Iterator
from pathlib import Path

import click

from mlplatform.cli.main import cli

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "command-line.md"
HEAD = """# Command line

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a gate said no. `--json` prints one JSON document on stdout;
progress and logs go to stderr. An expected error is its text on stderr; `mlplatform --verbose COMMAND` shows
the traceback too.

This page is written by `tools/make_command_reference.py` from the help texts.
"""


def sections(command: click.Command, path: str, parent: click.Context | None = None) -> Iterator[str]:
    """Yield the help of a command, then that of its subcommands."""
    context = click.Context(
        command,
        info_name=path.rpartition(" ")[2],
        parent=parent,
        max_content_width=100,
        **command.context_settings,
    )
    yield f"## {path}\n\n```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            if subcommand is not None:
                yield from sections(subcommand, f"{path} {name}", context)


def reference() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *sections(cli, "mlplatform")])


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
    print(f"wrote {PAGE}")
