"""Recurring runs, as the server's controller starts them."""

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from mlplatform.testing.kubeflow.simulator import SimulatedRun, Simulator

_MACRO = re.compile(r"\[\[(.*?)\]\]")
_DEFAULT_FORMAT = "20060102150405"
# Go writes a format as the time that is 1 2 3 4 5 6 in it; these are the parts that dates are made of.
_GO_TIME = (("2006", "%Y"), ("01", "%m"), ("02", "%d"), ("15", "%H"), ("04", "%M"), ("05", "%S"))


class RecurringRun:
    """A package that is run at each time of a schedule; the times are given, so a test waits for none.

    Args:
        simulator: The cluster.
        package: The package's text, or its file.
        parameters: Parameters of each run. In texts, `[[ScheduledTime]]` and `[[CurrentTime]]`, each also
            with a format of Go's as in `[[ScheduledTime.2006-01-02]]`, `[[Index]]` and `[[RunUUID]]` are
            replaced.

    Attributes:
        runs: The runs so far, the first one first.
    """

    def __init__(
        self, simulator: Simulator, package: str, parameters: Mapping[str, Any] | None = None
    ) -> None:
        self._simulator, self._package, self._parameters = simulator, package, dict(parameters or {})
        self._is_enabled, self._is_deleted = True, False
        self.runs: list[SimulatedRun] = []

    def pause(self) -> None:
        """Start no runs until `resume`; the times that pass are not made up for."""
        self._is_enabled = False

    def resume(self) -> None:
        """Start runs again."""
        self._is_enabled = True

    def delete(self) -> None:
        """Start no runs any more; those that were started stay."""
        self._is_deleted = True

    def start(self, scheduled: datetime) -> SimulatedRun | None:
        """Let a time of the schedule come, and return the run that it starts, ended; None for none.

        Args:
            scheduled: The time, with its zone.

        Raises:
            RefusedError: The server refuses the run.
        """
        if self._is_deleted or not self._is_enabled:
            return None
        index = len(self.runs) + 1
        run = self._simulator.run(
            self._package, lambda run_id: with_macros(self._parameters, scheduled, index, run_id)
        )
        self.runs.append(run)
        return run


def with_macros(
    parameters: Mapping[str, Any], scheduled: datetime, index: int, run_id: str
) -> dict[str, Any]:
    """Return the parameters of one run: what texts have in double brackets is replaced, in UTC."""
    moment = scheduled.astimezone(timezone.utc)

    def value(found: re.Match[str]) -> str:
        name, _, form = found[1].partition(".")
        if name in ("ScheduledTime", "CurrentTime"):
            return moment.strftime(_strftime(form or _DEFAULT_FORMAT))
        return {"Index": str(index), "RunUUID": run_id}.get(found[1], found[0])

    return {
        name: _MACRO.sub(value, given) if isinstance(given, str) else given
        for name, given in parameters.items()
    }


def _strftime(form: str) -> str:
    """Return a format of Go's as one of Python's."""
    form = form.replace("%", "%%")
    for go, python in _GO_TIME:
        form = form.replace(go, python)
    return form
