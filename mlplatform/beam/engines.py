"""Engines that Beam runs on: each a function that returns the arguments which choose it."""

from collections.abc import Sequence


def direct() -> Sequence[str]:
    """Return the arguments for Beam in the nodes' own processes, on this machine."""
    return ("--runner=DirectRunner",)
