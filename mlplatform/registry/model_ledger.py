"""What happened to the models of one folder: their streams in the ledger that belongs to it."""

from collections.abc import Callable
from pathlib import Path

from mlplatform.registry.event import Draft
from mlplatform.registry.events import MODEL_IMPORTED, model_stream
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.model_events import KINDS, model_events
from mlplatform.registry.old_ledger import OLD_LEDGER_FILE, old_events
from mlplatform.storage.urls import absolute, is_local, join, name, parent

MODELS = "models"


def ledger_of(models_dir: str) -> str:
    """Return where the ledger of a folder of models lies.

    That of the folder `models` of a root is the root's; any other folder has one of its own in it.
    """
    place = absolute(models_dir)
    return join(parent(place), "ledger") if name(place) == MODELS else join(place, ".ledger")


def draft(event: str, *, run: str = "", **facts: object) -> Draft:
    """Return an event of a model (`push`, `promote`, ...) that is to be written."""
    return Draft(KINDS[event], run, facts)


class ModelLedger:
    """The streams of models.

    Args:
        models_dir: The folder of models, a local path or a URL.

    Attributes:
        ledger: The ledger that they are in.
    """

    def __init__(self, models_dir: str) -> None:
        self._models_dir = models_dir
        self.ledger = Ledger(ledger_of(models_dir))

    def names(self) -> list[str]:
        """Return the names of the models that something happened to."""
        return [stream.partition("/")[2] for stream in self.ledger.streams(MODELS)]

    def events(self, model: str) -> list[dict[str, object]]:
        """Return everything that happened to a model, oldest first.

        Raises:
            LedgerAccessError: It cannot be read.
        """
        written = self.ledger.events(model_stream(model))
        return list(model_events(written)) if written else self._old(model)

    def all_events(self) -> dict[str, list[dict[str, object]]]:
        """Return everything that happened to every model, by its name.

        Raises:
            LedgerAccessError: It cannot be read.
        """
        found = {
            stream.partition("/")[2]: list(model_events(written))
            for stream, written in self.ledger.all_events(MODELS).items()
        }
        if is_local(self._models_dir):
            for file in sorted(Path(self._models_dir).glob(f"*/{OLD_LEDGER_FILE}")):
                if file.parent.name not in found:
                    found[file.parent.name] = old_events(file.parent)
        return found

    def decide(self, model: str, decision: Callable[[list[dict[str, object]]], Draft | None]) -> bool:
        """Write the event that follows from those before it, as `Ledger.decide`; return whether one does.

        Raises:
            LedgerAccessError: The ledger cannot be read or written.
        """
        stream = model_stream(model)
        if not self.ledger.events(stream) and (old := self._old(model)):
            imported = Draft(MODEL_IMPORTED, facts={"events": old})  # in one step, whoever is killed
            self.ledger.decide(stream, lambda events: None if events else imported)
        return bool(self.ledger.decide(stream, lambda events: decision(list(model_events(events)))))

    def _old(self, model: str) -> list[dict[str, object]]:
        return old_events(Path(self._models_dir) / model) if is_local(self._models_dir) else []
