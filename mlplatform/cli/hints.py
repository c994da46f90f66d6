"""What to give on the command line where an error of the library asks for something.

The library names arguments of Python; only the command line knows its own options, and the root folder or the
dataset store that was given to it.
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
    "LookAlikeFirewallError": "without --near-duplicates-apart",
    "NoBuilderError": "--context DIR --context-only",
    "ContextFolderError": "--context DIR",
    **dict.fromkeys(("ApprovalRefusedError", "ApprovalExpiredError"), "--by NAME --why REASON"),
}
# In the context's `meta`, which all commands of one call share.
_ROOT, _STORE = "mlplatform.root", "mlplatform.store"
# A command within a sentence, as far as its verb; `mlplatform serve: ...` is the name of a program.
_COMMAND = re.compile(r"\bmlplatform (?:(?:runs|datasets|models) [a-z-]+|run|serve|approve)(?![\w:-])")


def hint(error: MlplatformError) -> str:
    """Return the options that an error's text is about, in brackets; empty where there are none."""
    options = _HINTS.get(type(error).__name__)
    return f" (here: {options})" if options else ""


def remember_root(context: click.Context, _: click.Parameter, root: str | None) -> str | None:
    """Keep the `--root` that was given, for `with_root`; return it."""
    context.meta[_ROOT] = root
    return root


def remember_store(context: click.Context, _: click.Parameter, store: str | None) -> str | None:
    """Keep the `--store` that was given, for `with_root`; return it."""
    context.meta[_STORE] = store
    return store


def with_root(text: str) -> str:
    """Return a text whose commands name the `--root` that was given, where it is not the default one.

    Commands on datasets name the `--store` that was given, which overrides the root.
    """
    context = click.get_current_context(silent=True)
    given = context.meta if context is not None else {}
    root, store = given.get(_ROOT), given.get(_STORE)
    root_option = "" if not root or Home.at(root) == Home.at() else f" --root {shlex.quote(root)}"
    store_option = f" --store {shlex.quote(store)}" if store else root_option

    def completed(command: re.Match[str]) -> str:
        is_of_datasets = command.group().startswith("mlplatform datasets")
        return command.group() + (store_option if is_of_datasets else root_option)

    return _COMMAND.sub(completed, text)
