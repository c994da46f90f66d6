"""What the pages read, and how they are asked: a page is a function from a request to plain data.

The data is what `?format=json` returns; a template of the same name shows it.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from mlplatform.datasets import DatasetStore
from mlplatform.errors import UsageError
from mlplatform.home import Home
from mlplatform.orchestration.local.ledger_runs import KeptRun
from mlplatform.registry import ModelStore
from mlplatform.registry.approvals import Approvals
from mlplatform.registry.event import Event
from mlplatform.registry.events import VERDICT, run_stream
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.lineage_graph import LineageGraph
from mlplatform.registry.model_ledger import ModelLedger
from mlplatform.storage.urls import is_local
from mlplatform.ui.disk import DiskUse
from mlplatform.ui.index import RunFilter, RunIndex, is_young
from mlplatform.ui.lineage import read_graph
from mlplatform.ui.servers import Servers

MAX_NUMBER = 1_000_000_000
_LATER_RUNS = 100  # of a pipeline that are looked at for a later verdict


class PageNotFoundError(UsageError):
    """There is no such page, or nothing of that name for it to show."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"there is no {self.what} here."


class BadQueryError(UsageError):
    """A value of a request cannot be meant."""

    def __init__(self, name: str, value: str, wanted: str) -> None:
        super().__init__(name, value, wanted)
        self.name, self.value, self.wanted = name, value, wanted

    def __str__(self) -> str:
        return f"{self.name} is {self.value[:80]!r}: give {self.wanted}."


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        names: The parts of the path that name something, by what they name.
        query: The values of the query by their name, each with all that were given.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, list[str]] = field(default_factory=dict)

    def get(self, name: str, default: str = "") -> str:
        """Return the last value of a query parameter."""
        return (self.query.get(name) or [default])[-1]

    def all(self, name: str) -> list[str]:
        """Return all values of a query parameter."""
        return list(self.query.get(name, ()))

    def number(self, name: str, default: int) -> int:
        """Return a query parameter as a whole number, 0 or more. Raises BadQueryError."""
        text = self.get(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= MAX_NUMBER):
            raise BadQueryError(name, text, f"a whole number from 0 to {MAX_NUMBER:,}")
        return int(text)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Return a query parameter that is one of some values, the first by default. Raises BadQueryError."""
        value = self.get(name) or choices[0]
        if value not in choices:
            raise BadQueryError(name, value, f"one of {', '.join(choices)}")
        return value


Data = dict[str, Any]


class Site:
    """Everything of one root that pages show; threads may share it.

    Args:
        home: The root.
        every_s: Seconds between two looks for new runs, 0 or more.
    """

    def __init__(
        self, home: Home, *, every_s: float = 0.5, may_approve: bool = False, servers: Sequence[str] = ()
    ) -> None:
        self.home, self.may_approve = home, may_approve
        self.index = RunIndex(home, every_s=every_s)
        self.ledger = Ledger(home.ledger)
        self.servers = Servers(servers)
        self.disk = DiskUse(home)
        self.approvals = Approvals(self.ledger)
        self.models = ModelStore(home.models)
        self.datasets = DatasetStore(home.datasets)
        self._graph: tuple[object, LineageGraph] | None = None
        self._refusals: tuple[object, dict[tuple[str, str], list[str]]] | None = None
        self._waivers: tuple[object, list[Data]] | None = None
        self._reading_graph = threading.Lock()

    def run(self, run_id: str) -> KeptRun:
        """Return a run that was listed. Raises PageNotFoundError."""
        found = self.index.run(run_id)
        if found is None:
            raise PageNotFoundError(f"run {run_id[:80]!r}")
        return found

    def model_names(self) -> list[str]:
        """Return the names of the models."""
        return self.models.names()

    def dataset(self, request: Request) -> str:
        """Return the dataset that a request names. Raises PageNotFoundError."""
        name = request.names["dataset"]
        if name not in self.datasets.names():
            raise PageNotFoundError(f"dataset {name[:80]!r}")
        return name

    def model(self, request: Request) -> str:
        """Return the model that a request names. Raises PageNotFoundError."""
        name = request.names["model"]
        if name not in self.model_names():
            raise PageNotFoundError(f"model {name[:80]!r}")
        return name

    def graph(self) -> LineageGraph:
        """Return the lineage of the root as it is now; of a local one, runs are read from their table."""
        if not is_local(self.home.root):
            return read_graph(self.home)
        self.index.refresh()
        with self._reading_graph:
            stamp = self._ledger_stamp()
            if self._graph is None or stamp is None or self._graph[0] != stamp:
                self._graph = (stamp, self.index.lineage(ModelLedger(self.home.models).all_events()))
            return self._graph[1]

    def refusals(self) -> dict[tuple[str, str], list[str]]:
        """Return why gates refused, by run and node; read again where something happened since."""
        with self._reading_graph:
            stamp = self._ledger_stamp()
            if self._refusals is None or stamp is None or self._refusals[0] != stamp:
                self._refusals = (stamp, _refusals(self.ledger))
            return self._refusals[1]

    def waivers(self) -> list[Data]:
        """Return the waivers of gates' last verdicts, also those that are over meanwhile."""
        self.index.refresh()
        with self._reading_graph:
            stamp = self._ledger_stamp()
            if self._waivers is None or stamp is None or self._waivers[0] != stamp:
                self._waivers = (stamp, _waivers(self.ledger, self.index))
            return self._waivers[1]

    def _ledger_stamp(self) -> object:
        """Return what differs when the ledger has more; None where that costs as much as reading it."""
        if not is_local(self.home.root):
            return None
        times = []
        place = Path(self.home.ledger)
        for folder in (place / "index", place / "index" / "open", place / "runs", place / "models"):
            try:
                times.append(folder.stat().st_mtime_ns)
            except FileNotFoundError:
                times.append(0)
        times += [mtime for _, mtime in _mtimes(place / "models")]
        return object() if is_young(*times) else tuple(times)


def _refusals(ledger: Ledger) -> dict[tuple[str, str], list[str]]:
    refused = ledger.overview("runs", containing='"is_accepted": false')
    return {
        (event.run, str(event.get("node"))): [str(reason) for reason in found]
        for happened in refused.values()
        for event in happened
        if event.kind == VERDICT and isinstance(found := event.get("reasons"), list)
    }


def _waivers(ledger: Ledger, index: RunIndex) -> list[Data]:
    """Return the waivers of the last verdict of each pipeline's gates, with the run that gave it."""
    last: dict[tuple[str, str], Event] = {}
    for stream, happened in ledger.overview("runs", containing='"waivers"').items():
        run = stream.partition("/")[2]
        pipeline = (index.summary(run) or {}).get("pipeline", "")
        for event in happened:
            if event.kind == VERDICT and isinstance(event.get("waivers"), list):
                gate = (pipeline, str(event.get("node")))
                if gate not in last or last[gate].run < run:
                    last[gate] = event
    found: list[Data] = []
    for (pipeline, node), event in last.items():
        if not _is_decided_since(ledger, index, pipeline, node, event.run):
            facts: Data = {"pipeline": pipeline, "node": node, "run": event.run}
            given = event.get("waivers")
            rows = given if isinstance(given, list) else []
            found += [facts | row for row in rows if isinstance(row, dict)]
    return found


def _is_decided_since(ledger: Ledger, index: RunIndex, pipeline: str, node: str, run: str) -> bool:
    """Say whether a gate gave a verdict in a later run; where its result was reused, it gave none."""
    later = index.page(RunFilter(pipeline=pipeline), count=_LATER_RUNS)
    return any(
        event.kind == VERDICT and event.get("node") == node
        for each in later
        if each["run_id"] > run
        for event in ledger.events(run_stream(each["run_id"]))
    )


def _mtimes(folder: Path) -> list[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries)
    except FileNotFoundError:
        return []


Page = Callable[[Site, Request], Data]


def link(*parts: object, **query: object) -> str:
    """Return the address of a page: the parts of its path, and a query without its empty values."""
    path = "/" + "/".join(quote(str(part), safe="", errors="replace") for part in parts)
    given = {name: value for name, value in query.items() if value not in ("", None)}
    return f"{path}?{urlencode(given, doseq=True, errors='replace')}" if given else path
