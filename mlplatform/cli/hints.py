"""What to give on the command line where an error of the library asks for something.

The library names arguments of Python; only the command line knows its own options, and the root folder that
was given to it.
"""

import re
import shlex

import click

from mlplatform.errors import MlplatformError
from mlplatform.home import Home

_HINTS = {
    "NoKeyError": "--key FEATURE",
    "KeyMissingError": "--key FEATURE",
    "NoTrainingSplitError": "--train-split NAME, or --no-firewall",
    "SplitFirewallError": "--no-firewall",
}
_ROOT = "mlplatform.root"  # in the context's `meta`, which all commands of one call share
# A command within a sentence, as far as its verb; `mlplatform serve: ...` is the name of a program.
_COMMAND = re.compile(r"\bmlplatform (?:(?:runs|datasets|models) [a-z-]+|run|serve)(?![\w:-])")


def hint(error: MlplatformError) -> str:
    """Return the options that an error's text is about, in brackets; empty where there are none."""
    options = _HINTS.get(type(error).__name__)
    return f" (here: {options})" if options else ""


def remember_root(context: click.Context, _: click.Parameter, root: str | None) -> str | None:
    """Keep the `--root` that was given, for `with_root`; return it."""
    context.meta[_ROOT] = root
    return root


def with_root(text: str) -> str:
    """Return a text whose commands name the `--root` that was given, where it is not the default one."""
    context = click.get_current_context(silent=True)
    root = context.meta.get(_ROOT) if context is not None else None
    if not root or Home.at(root) == Home.at():
        return text
    option = f" --root {shlex.quote(root)}"
    return _COMMAND.sub(lambda command: command.group() + option, text)
