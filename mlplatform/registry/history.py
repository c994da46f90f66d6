"""What a ledger's events amount to: labels, withdrawals and what servers still have to confirm."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from mlplatform.registry.model_events import CLAIM, PROMOTE, PUSH, REMOVE, ROLLBACK, ModelEvent, versions_of


@dataclass
class History:
    """A model's ledger, replayed.

    Attributes:
        digests: The digest of each version that was pushed.
        withdrawn: The roll-back that is in force, by version.
        withheld: The roll-back that is in force, by digest: what was pushed, promoted or rolled back last of
            all versions that hold the same model decides.
        removed: Versions that were removed.
        claims: When a version's number was taken for an upload, by version.
        about: Every event, by version.
    """

    digests: dict[int, str] = field(default_factory=dict)
    withdrawn: dict[int, ModelEvent] = field(default_factory=dict)
    withheld: dict[str, ModelEvent] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    claims: dict[int, str] = field(default_factory=dict)
    about: dict[int, list[ModelEvent]] = field(default_factory=dict)
    # What each label named, the last one now. A roll-back takes its versions out: those before are uncovered.
    _named: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[ModelEvent]) -> "History":
        """Replay events, oldest first."""
        history = cls()
        for event in events:
            history._take(event)
        return history

    def labels(self, serving: Collection[int]) -> dict[str, int]:
        """Return the version that each label names, of those that serve."""
        named = {label: [v for v in versions if v in serving] for label, versions in self._named.items()}
        return {label: versions[-1] for label, versions in named.items() if versions}

    def labels_without(
        self, versions: Collection[int], serving: Collection[int], instead: int | None
    ) -> dict[str, int | None]:
        """Return where labels move when versions are withdrawn: what each named before, else `instead`."""
        before, after = self.labels(serving), self.labels(set(serving) - set(versions))
        return {label: after.get(label, instead) for label, version in before.items() if version in versions}

    def awaits_servers(self, version: int) -> bool:
        """The last push of a version asked servers to confirm it, and nothing decided about it since."""
        about = self.about.get(version, [])
        return bool(about) and all(e["event"] == PUSH for e in about) and bool(about[-1].get("servers"))

    def _take(self, event: ModelEvent) -> None:
        versions = versions_of(event)
        if event["event"] == CLAIM:
            self.claims[versions[0]] = str(event.get("at", ""))
            return
        for version in versions:
            self.about.setdefault(version, []).append(event)
        kind = event["event"]
        if kind == PUSH:
            self.digests[versions[0]] = str(event["digest"])
            self.withheld.pop(str(event["digest"]), None)
        elif kind == PROMOTE:
            self._name(str(event["label"]), versions[0])
            self.withdrawn.pop(versions[0], None)
            self.withheld.pop(self.digests.get(versions[0], ""), None)
        elif kind == ROLLBACK:
            self._withdraw(versions, event)
        elif kind == REMOVE:
            self.removed.update(versions)
            self._forget(versions)

    def _withdraw(self, versions: Collection[int], event: ModelEvent) -> None:
        for version in versions:
            self.withdrawn[version] = event
            # Servers that could not confirm a push say nothing of the model: the next run may try again.
            if version in self.digests and not event.get("unconfirmed"):
                self.withheld[self.digests[version]] = event
        self._forget(versions)
        moved = event.get("labels")
        for label, version in (moved if isinstance(moved, Mapping) else {}).items():
            if version is not None:
                self._name(label, version)

    def _forget(self, versions: Collection[int]) -> None:
        for label, named in self._named.items():
            self._named[label] = [version for version in named if version not in versions]

    def _name(self, label: str, version: int) -> None:
        named = self._named.setdefault(label, [])
        if not named or named[-1] != version:
            named.append(version)
