"""The local runner: any TFX pipeline on one machine, each node in a process of its own."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.orchestration.local.runner import LocalRunner as LocalRunner

__all__ = ["LocalRunner"]


def __getattr__(name: str) -> object:
    if name != "LocalRunner":
        raise AttributeError(f"module 'mlplatform.orchestration.local' has no attribute {name!r}")
    from mlplatform.orchestration.local.runner import LocalRunner

    return LocalRunner
