"""What every runner does: run pipelines by name, and say what became of them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mlplatform.orchestration.local.records import RunRecord


class Runner(Protocol):
    """Runs pipelines; made as `Runner(root, parallelism=..., force=...)`.

    Whatever happens in a run, a runner writes into the root's ledger (`mlplatform.registry.events`): there,
    `mlplatform runs` reads it on any machine.

    Attributes:
        record: The record of the newest run, also while it runs and where it failed; None before the first.
    """

    record: RunRecord | None

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        parallelism: int | None = None,
        force: Sequence[str] = (),
    ) -> None:
        """Make a runner for a root.

        Args:
            root: The root, as for `Home.at`.
            parallelism: Nodes at the same time, 1 or more; None: as many as there is room for.
            force: Nodes whose earlier results are not reused.
        """

    def run_reference(
        self,
        reference: str,
        *,
        data: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        from_nodes: Sequence[str] = (),
        to_nodes: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        engine: str | Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Run a pipeline by name to its end, and return the record.

        Args:
            reference: A packaged name, `path/to/file.py[:function]` or `package.module:function`.
            data: What the function takes as `data`.
            overrides: Further keyword arguments of the function.
            from_nodes: Run these nodes and those after them.
            to_nodes: Run these nodes and those before them.
            parameters: Values of the pipeline's runtime parameters.
            engine: The engine of Beam: a name, or a block (`{"name": "flink", "parallelism": 4}`); None: as
                the pipeline's own arguments say.
        """

    def status(self, run: str = "latest") -> RunRecord:
        """Return the record of a run, named by its id, the beginning of it, or `latest`."""

    def logs(self, run: str, node: str) -> str:
        """Return what a node of a run has printed so far."""

    def cancel(self, run: str = "latest") -> None:
        """Have a run that is in progress end as by Ctrl-C."""
