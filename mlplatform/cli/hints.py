"""What to give on the command line where an error of the library asks for something.

The library names arguments of Python; only the command line knows its own options.
"""

from mlplatform.errors import MlplatformError

_HINTS = {
    "NoKeyError": "--key FEATURE",
    "KeyMissingError": "--key FEATURE",
    "NoTrainingSplitError": "--train-split NAME, or --no-firewall",
    "SplitFirewallError": "--no-firewall",
}


def hint(error: MlplatformError) -> str:
    """Return the options that an error's text is about, in brackets; empty where there are none."""
    options = _HINTS.get(type(error).__name__)
    return f" (here: {options})" if options else ""
