"""Pushed models: `<models_dir>/<name>/<version>/` as TensorFlow Serving reads it.

    <name>/<version>/            a SavedModel, plus push.json: who pushed it, when, why, from what data
                                 (and push.sig where the push signed it)
    <name>/withdrawn/<version>/  versions taken back by a rollback; a server does not look there

What happened to them is in the ledger (see `model_ledger`), which decides everything: a roll-back or
promotion has happened as soon as its event is written.

In a local folder a version is copied aside, checked by digest and then renamed into place: a server sees all
of it or nothing. What a killed process left undone with the folders is done by the next one that writes
("settling"). Folders are moved in the order that never lets a label name a version without a folder: a
roll-back writes its event and then moves the folder away, a promotion moves the folder back and then writes
its event.

At a URL, where nothing can be renamed, a version's number is claimed in the ledger, its files are uploaded,
read back and compared by digest, and the event of the push makes it count. A withdrawn one stays in place.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mlplatform.home import local_path
from mlplatform.machine import user_name
from mlplatform.registry.contents import (
    PUSH_FILE,
    SIGNATURE_FILE,
    contents,
    copy_contents,
    sync_tree,
    tree_digest,
)
from mlplatform.registry.errors import (
    CorruptCopyError,
    InvalidLabelError,
    ModelChangedError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    ModelWithdrawnError,
    NotASavedModelError,
    NothingToRollBackToError,
    PushTookTooLongError,
    SignatureError,
)
from mlplatform.registry.event import Draft, timestamp
from mlplatform.registry.history import History
from mlplatform.registry.integrity import check_unchanged
from mlplatform.registry.model_events import (
    CLAIM,
    CONFIRM,
    KINDS,
    PROMOTE,
    PUSH,
    REMOVE,
    ROLLBACK,
    ModelEvent,
    versions_of,
)
from mlplatform.registry.model_ledger import ModelLedger, draft
from mlplatform.registry.push_record import Push
from mlplatform.registry.signing import public_part, sign, verify
from mlplatform.registry.version_files import (
    SAVED_MODEL,
    Files,
    UploadedFiles,
    check_model_name,
    fetched,
    files_of,
    is_model_name,
)
from mlplatform.storage import open_storage
from mlplatform.storage.urls import absolute, is_local, join

STABLE = "stable"
LATEST = "latest"


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A version as it lies in the store.

    Attributes:
        version: Its number.
        url: Its folder, a local path or a URL.
        is_withdrawn: A rollback took it back; servers do not see it.
        labels: `stable`, `canary`, ... as promoted last.
        push: What is known of its push; None for a version that something else put there, or whose
            `push.json` cannot be read.
        events: What the ledger has of it, oldest first.
    """

    version: int
    url: str
    is_withdrawn: bool = False
    labels: tuple[str, ...] = ()
    push: Push | None = None
    events: tuple[ModelEvent, ...] = ()

    @property
    def path(self) -> Path:
        """Its folder on this machine.

        Raises:
            RemotePathError: It lies at a URL; see `fetched`.
        """
        return local_path(self.url, f"version {self.version}")

    @property
    def is_signed(self) -> bool:
        """It carries a signature; whether that holds is another question."""
        if is_local(self.url):
            return (self.path / SIGNATURE_FILE).is_file()
        return SIGNATURE_FILE in open_storage(self.url).names("")

    def check(self, trusted_key: str = "") -> bool:
        """See that its files are those that were pushed; return whether anything is recorded of that.

        Reads every file of it.

        Args:
            trusted_key: Public key by whose owner it must be signed as well; empty asks for none.

        Raises:
            ModelChangedError: A file was changed, added or removed since the push.
            SignatureError: It is not signed by the key's owner.
        """
        recorded = [] if self.push is None or is_local(self.url) else [self.push.digest]
        try:
            with fetched(self.url) as folder:
                is_recorded = check_unchanged(folder, recorded, place=self.url)
                if trusted_key:
                    verify(folder, trusted_key)
        except FileNotFoundError as error:
            expected = self.push.digest if self.push else ""
            raise ModelChangedError(self.url, expected, "its files are missing") from error
        return is_recorded

    def integrity(self) -> str:
        """Compare its files with the record of its push: `intact`, `changed` or, without one, `unrecorded`.

        Reads every file of it.
        """
        try:
            return "intact" if self.check() else "unrecorded"
        except ModelChangedError:
            return "changed"


@dataclass(frozen=True)
class PushOutcome:
    """The version that holds the model, and whether this push made it."""

    version: ModelVersion
    is_new: bool


@dataclass(frozen=True)
class _Look:
    """A model as it is at one moment: what its ledger amounts to, and its versions, oldest first."""

    history: History
    versions: list[ModelVersion]
    files: Mapping[int, Files]

    @property
    def serving(self) -> list[ModelVersion]:
        return [version for version in self.versions if not version.is_withdrawn]

    @property
    def newest(self) -> ModelVersion | None:
        return self.serving[-1] if self.serving else None

    @property
    def next_number(self) -> int:
        """The number of the next version: none is used twice."""
        used = {version.version for version in self.versions} | self.history.about.keys()
        return max(used | self.history.claims.keys(), default=0) + 1

    def moved_labels(self, withdrawn: Collection[int], instead: int | None = None) -> dict[str, int | None]:
        """Return where labels move when versions are withdrawn: where nothing was before, to `instead`."""
        serving = [version.version for version in self.serving]
        left = [version for version in serving if version not in withdrawn]
        last = instead if instead in left else max(left, default=None)
        return self.history.labels_without(withdrawn, serving, last)


class ModelStore:
    """The models below one folder.

    Args:
        models_dir: The folder, a local path or a URL; each model's own folder below it is a TensorFlow
            Serving `base_path`.
    """

    def __init__(self, models_dir: str | os.PathLike[str]) -> None:
        self.url = absolute(models_dir)
        self._ledger = ModelLedger(self.url)
        self._files = files_of(self.url, self._ledger)

    @property
    def models_dir(self) -> Path:
        """The folder of this machine.

        Raises:
            RemotePathError: It is a URL.
        """
        return local_path(self.url, "the folder of models")

    def base_path(self, name: str) -> str:
        """Return the folder of a model's versions."""
        return join(self.url, name)

    def names(self) -> list[str]:
        """Return the names of the models pushed here, sorted."""
        return self._files.names()

    def versions(self, name: str) -> list[ModelVersion]:
        """Return the versions of a model, oldest first, withdrawn ones included.

        Raises:
            ModelNotFoundError: No model of that name was pushed here.
            LedgerAccessError: Its ledger cannot be read.
        """
        return self._look(name).versions

    def all_versions(self) -> dict[str, list[ModelVersion]]:
        """Return the versions of every model, by its name, as `versions` does, with few requests to a URL.

        Raises:
            LedgerAccessError: The ledger cannot be read.
        """
        if is_local(self.url):
            return {name: self.versions(name) for name in self.names()}
        events = {name: found for name, found in self._ledger.all_events().items() if is_model_name(name)}
        return {name: self._look_at(name, found).versions for name, found in events.items()}

    def labels(self, name: str) -> dict[str, int]:
        """Return the version that each label of a model names, as promoted last; it is one that serves."""
        look = self._look(name)
        return look.history.labels({version.version for version in look.serving})

    def ledger(self, name: str) -> list[dict[str, object]]:
        """Return every push, confirmation, promotion, rollback and removal of a model, oldest first.

        Raises:
            LedgerAccessError: It cannot be read.
        """
        check_model_name(name)
        return self._ledger.events(name)

    def version(self, name: str, version: str) -> ModelVersion:
        """Return one version: a number, a label, or `latest`.

        Raises:
            ModelNotFoundError: There is no such model.
            ModelVersionNotFoundError: It has no such version.
        """
        return _find(self._look(name), name, version)

    def awaits_servers(self, name: str, version: int) -> bool:
        """The push of this version asked servers to confirm it, and nothing decided about it since.

        So it is while that push waits, and where it was killed in it. A confirmation, a promotion, a rollback
        and a push of the same model that asks no server are decisions.
        """
        return History.of(self.ledger(name)).awaits_servers(version)

    def push(
        self,
        source: Path,
        name: str,
        *,
        why: str = "",
        run: str = "",
        dataset: str = "",
        servers: Sequence[str] = (),
        metrics: Mapping[str, float] | None = None,
        allows_withdrawn: bool = False,
        signing_key: str = "",
        digest: str = "",
    ) -> PushOutcome:
        """Make the SavedModel in `source` the newest version of `name`.

        Pushing what the newest version already holds makes no version. No older version is removed: see
        `drop_old`.

        Args:
            source: Folder of a SavedModel; not modified.
            name: The model's name.
            why: The reason, for the ledger.
            run: Id of the pipeline run that pushes.
            dataset: The dataset version the model was trained on.
            servers: Servers that are to confirm it; see `awaits_servers`.
            metrics: What the model's evaluation measured, by name.
            allows_withdrawn: Push also a model that was rolled back.
            signing_key: Private key, PEM file or text, to sign the version with; empty signs nothing.
            digest: Digest that its files must have, as of `tree_digest`; empty takes what is there.

        Raises:
            NotASavedModelError: `source` holds no SavedModel.
            UnpushableFileError: `source` holds a FIFO, a device, or a link that leads out of it.
            ModelWithdrawnError: This very model was rolled back, and not promoted since.
            CorruptCopyError: The copy differs from the source, or from `digest`. Nothing was pushed.
            SigningKeyError: `signing_key` cannot be used.
            MissingExtraError: `signing_key` is given, and the extra `signing` is not installed.
        """
        check_model_name(name)
        if not (source / SAVED_MODEL).is_file():
            raise NotASavedModelError(source, _first_names(source))
        self._files.begin(name)
        found = contents(source)
        trusted_key = public_part(signing_key) if signing_key else ""
        push = Push(
            digest=digest or tree_digest(source, found),
            pushed_at=timestamp(),
            pushed_by=user_name(),
            model=name,
            why=why,
            run=run,
            dataset=dataset,
            source=str(source),
            servers=servers,
            metrics=dict(metrics or {}),
        )
        with self._writing(name, is_new=True) as look:
            for number in self._files.abandoned(look.history):
                self._decide(name, _unless_pushed(number))
            self._files.clean(name, look.history)  # what is noted just now, the next push removes
            if same := _same_as_newest(look, push, trusted_key):
                if not servers and look.history.awaits_servers(same.version):
                    self._write(name, _pushed(same.version, push))  # it is accepted as it is
                return PushOutcome(same, is_new=False)
            if not allows_withdrawn:
                _check_not_withdrawn(look, name, push.digest)

        # Copied without the lock, which takes as long as it takes; so all is asked once more below.
        copy, removed = self._files.copy_place(name)
        with removed:
            copy_contents(source, found, copy)
            if (copied := tree_digest(copy)) != push.digest:
                raise CorruptCopyError(source, push.digest, copied)
            (copy / PUSH_FILE).write_text(json.dumps(asdict(push), indent=2), "utf-8")
            if signing_key:
                sign(copy, signing_key)
            number = self._publish(name, copy, push, allows_withdrawn)
        return PushOutcome(self.version(name, str(number)), is_new=True)

    def _publish(self, name: str, copy: Path, push: Push, allows_withdrawn: bool) -> int:
        """Give a prepared version its number and its place, and write that it is pushed."""

        def pushed(look: _Look, number: int) -> Draft:
            if not allows_withdrawn:
                _check_not_withdrawn(look, name, push.digest)
            if number in look.history.removed:  # as a killed upload, after a day
                raise PushTookTooLongError(name, number)
            return _pushed(number, push)

        if not isinstance(self._files, UploadedFiles):
            sync_tree(copy)
            with self._writing(name, is_new=True) as look:
                number = look.next_number
                record = pushed(look, number)
                self._files.add(name, number, copy)
                self._write(name, record)
            return number
        claimed: list[int] = []

        def claim(look: _Look) -> Draft:
            claimed.append(look.next_number)
            return draft(CLAIM, version=claimed[-1], digest=push.digest)

        self._decide(name, claim)
        number = claimed[-1]
        self._files.upload(name, number, copy)
        with fetched(join(self.base_path(name), str(number))) as uploaded:
            if (found := tree_digest(uploaded)) != push.digest:
                raise CorruptCopyError(copy, push.digest, found)
        self._decide(name, lambda look: pushed(look, number))
        return number

    def confirm(self, name: str, version: int, servers: Sequence[str]) -> None:
        """Note that servers have a version available and answer with it."""
        with self._writing(name):
            self._write(name, draft(CONFIRM, version=version, servers=list(servers)))

    def promote(self, name: str, version: str, label: str = STABLE, *, why: str = "") -> ModelVersion:
        """Give a version a label; a withdrawn version becomes visible to servers again.

        Raises:
            InvalidLabelError: `label` is `latest`, or could be taken for a version's number.
            ModelVersionNotFoundError: There is no such version.
            ModelChangedError: Its files are not those that were pushed.
        """
        if label == LATEST or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9._-]*", label):
            raise InvalidLabelError(label)
        with self._writing(name) as look:
            found = _find(look, name, version)
            found.check()
            self._files.show(name, found.version, look.files[found.version])
            self._write(name, draft(PROMOTE, version=found.version, label=label, why=why))
        return self.version(name, str(found.version))

    def rollback(self, name: str, to: str | None = None, *, why: str = "") -> ModelVersion:
        """Withdraw every version above `to` (default: the one before the newest), in one step.

        Labels of the versions that are withdrawn move back to what they named before, or else to the version
        that serves instead. A withdrawn version is kept, and `promote` brings it back; its model is not
        pushed again before. A rollback that finds another one unfinished or in progress finishes that.

        Returns:
            The version that now is the newest.

        Raises:
            NothingToRollBackToError: There is no older version.
            ModelVersionNotFoundError: There is no such version, or it is withdrawn.
            ModelChangedError: The files of the version that would serve are not those that were pushed.
        """
        # Decided by what the caller could see: of two at the same time, one withdraws the newest version, and
        # the other finds that done. They do not withdraw two.
        seen = self._look(name)
        if to is None and self._unfinished(seen):
            with self._writing(name) as look:
                return look.newest or _find(look, name, LATEST)
        if not seen.serving:
            raise ModelVersionNotFoundError(name, to or LATEST, [])
        if to is None and len(seen.serving) < 2:
            raise NothingToRollBackToError(name, seen.serving[-1].version)
        target = seen.serving[-2] if to is None else _find(seen, name, to)
        if target.is_withdrawn:
            raise ModelVersionNotFoundError(name, str(target.version), [v.version for v in seen.serving])
        target.check()
        above = {version.version for version in seen.serving if version.version > target.version}

        def withdrawn(look: _Look) -> list[ModelVersion]:
            found = [version for version in look.serving if version.version in above]
            if found and len(found) == len(look.serving):
                raise NothingToRollBackToError(name, found[-1].version)
            return found

        self._withdraw(name, withdrawn, instead=target.version, why=why)
        return self.version(name, LATEST)

    def withdraw(self, name: str, version: int, *, why: str = "") -> None:
        """Take one version out of the servers' sight, in one step; labels move as in a rollback.

        Raises:
            ModelVersionNotFoundError: There is no such version.
        """

        def withdrawn(look: _Look) -> list[ModelVersion]:
            found = _find(look, name, str(version))
            return [] if found.is_withdrawn else [found]

        self._withdraw(name, withdrawn, why=why)

    def take_back(self, name: str, version: int, *, why: str = "") -> None:
        """Withdraw a version whose push waits for servers, unless something was decided about it meanwhile.

        Servers that cannot confirm a version say nothing of its model: it may be pushed again.
        """

        def withdrawn(look: _Look) -> list[ModelVersion]:
            return [_find(look, name, str(version))] if look.history.awaits_servers(version) else []

        self._withdraw(name, withdrawn, why=why, unconfirmed=True)

    def drop_old(self, name: str, keep: int) -> None:
        """Remove all but the newest `keep` versions that servers see; labelled ones stay, and 0 keeps all."""
        if keep <= 0:
            return
        removed = []
        with self._writing(name) as look:
            for version in look.serving[:-keep]:
                if not version.labels:
                    # A version without a folder is removed, whatever the ledger has: see `_settle`.
                    place = self._files.take_out(name, look.files[version.version])
                    record = draft(REMOVE, version=version.version, why=f"only the newest {keep} are kept")
                    if self._decide(name, _unless_labelled(version.version, record)):
                        removed.append(place)
        for place in removed:
            self._files.delete(place)

    def remove_withdrawn(self, name: str, versions: Collection[int], *, why: str) -> list[int]:
        """Remove withdrawn versions for good, and what killed removals left; return those that were removed.

        One that was brought back, or that a label names, stays. What the ledger knows of them stays, too.

        Args:
            name: The model's name.
            versions: The versions.
            why: The reason, for the ledger.
        """
        removed = []
        with self._writing(name) as look:
            for version in look.versions:
                if version.version in versions and version.is_withdrawn and not version.labels:
                    place = self._files.take_out(name, look.files[version.version])
                    record = draft(REMOVE, version=version.version, why=why)
                    if self._decide(name, _unless_shown(version.version, record)):
                        removed.append(version.version)
                        self._files.delete(place)
            self._files.delete_left(name, History.of(self._ledger.events(name)))
        return removed

    def _look(self, name: str) -> _Look:
        check_model_name(name)
        events = self._ledger.events(name)
        if not self._files.has(name, events):
            raise ModelNotFoundError(name, self.url, self.names())
        return self._look_at(name, events)

    def _look_at(self, name: str, events: Sequence[ModelEvent]) -> _Look:
        history = History.of(events)
        files = self._files.found(name, history)
        withdrawn = {n for n, found in files.items() if found.is_aside or n in history.withdrawn}
        labels = history.labels(files.keys() - withdrawn)
        versions = [
            ModelVersion(
                version=number,
                url=found.url,
                is_withdrawn=number in withdrawn,
                labels=tuple(sorted(label for label, named in labels.items() if named == number)),
                push=found.push,
                events=tuple(history.about.get(number, ())),
            )
            for number, found in sorted(files.items())
        ]
        return _Look(history, versions, files)

    def _decide(self, name: str, decision: Callable[[_Look], Draft | None]) -> bool:
        """Write what follows from the model as it is; return whether anything does."""
        return self._ledger.decide(name, lambda events: decision(self._look_at(name, events)))

    def _write(self, name: str, written: Draft) -> None:
        self._ledger.decide(name, lambda _: written)

    @contextmanager
    def _writing(self, name: str, *, is_new: bool = False) -> Iterator[_Look]:
        """The model as it is now that all before is settled; other writers wait, where there are locks."""
        check_model_name(name)
        if not is_new:
            self._look(name)
        with self._files.hold(name):
            self._settle(name)
            yield self._look_at(name, self._ledger.events(name))

    def _settle(self, name: str) -> None:
        """Make ledger and folders agree, where a killed process or somebody's hand left them apart."""
        if not is_local(self.url):
            return
        while self._decide(name, _unrecorded):
            pass
        look = self._look_at(name, self._ledger.events(name))
        for version in reversed(self._unfinished(look)):  # a roll-back or a promotion
            self._files.hide(name, version.version, look.files[version.version])
        while self._decide(name, _disappeared):
            pass

    def _unfinished(self, look: _Look) -> list[ModelVersion]:
        """Return the versions that are withdrawn and whose folders servers still see."""
        if not is_local(self.url):
            return []
        return [v for v in look.versions if v.is_withdrawn and not look.files[v.version].is_aside]

    def _withdraw(
        self,
        name: str,
        choose: Callable[[_Look], list[ModelVersion]],
        *,
        why: str,
        instead: int | None = None,
        unconfirmed: bool = False,
    ) -> None:
        """Withdraw the versions that `choose` returns; none where it returns none."""
        chosen: list[ModelVersion] = []

        def decision(look: _Look) -> Draft | None:
            chosen[:] = choose(look)
            if not chosen:
                return None
            numbers = sorted((version.version for version in chosen), reverse=True)
            facts: dict[str, object] = {"versions": numbers, "labels": look.moved_labels(numbers, instead)}
            if unconfirmed:
                facts["unconfirmed"] = True
            return draft(ROLLBACK, version=numbers[0], why=why, **facts)  # type: ignore[arg-type]

        with self._writing(name):
            self._decide(name, decision)
            self._settle(name)  # which moves their folders


def _unrecorded(look: _Look) -> Draft | None:
    """Return what folders show and the ledger lacks."""
    for version in look.versions:  # a push that was killed before it wrote its event
        if version.push is not None and version.version not in look.history.digests:
            return _pushed(version.version, version.push)
    for version in look.versions:  # a roll-back of an earlier release that was killed, or a folder moved
        if look.files[version.version].is_aside and version.version not in look.history.withdrawn:
            labels = look.moved_labels([version.version])
            why = "its folder lies in 'withdrawn'"
            return draft(ROLLBACK, version=version.version, labels=labels, why=why)
    return None


def _unless_labelled(version: int, record: Draft) -> Callable[[_Look], Draft | None]:
    def decision(look: _Look) -> Draft | None:
        is_labelled = any(version == each.version and each.labels for each in look.versions)
        return None if is_labelled else record

    return decision


def _unless_shown(version: int, record: Draft) -> Callable[[_Look], Draft | None]:
    def decision(look: _Look) -> Draft | None:
        is_shown = any(version == v.version and (v.labels or not v.is_withdrawn) for v in look.versions)
        return None if is_shown or version in look.history.removed else record

    return decision


def _unless_pushed(version: int) -> Callable[[_Look], Draft | None]:
    record = draft(REMOVE, version=version, why="its upload was not finished")
    return lambda look: None if version in look.history.digests else record


def _disappeared(look: _Look) -> Draft | None:
    """Return that a version was removed, where its folder is gone."""
    there = {version.version for version in look.versions}
    gone = sorted(look.history.digests.keys() - there - look.history.removed)
    return draft(REMOVE, version=gone[0], why="its folder is gone") if gone else None


def _find(look: _Look, name: str, version: str) -> ModelVersion:
    if version == LATEST and look.newest is not None:
        return look.newest
    for candidate in look.versions:
        if str(candidate.version) == version or version in candidate.labels:
            return candidate
    raise ModelVersionNotFoundError(name, version, [v.version for v in look.versions])


def _same_as_newest(look: _Look, push: Push, trusted_key: str) -> ModelVersion | None:
    """Return the newest version where it holds the model that is to be pushed, whole and signed as asked."""
    newest = look.newest
    if newest is None or newest.push is None or newest.push.digest != push.digest:
        return None
    try:
        newest.check(trusted_key)
    except (ModelChangedError, SignatureError):
        return None
    return newest


def _check_not_withdrawn(look: _Look, name: str, digest: str) -> None:
    event = look.history.withheld.get(digest)
    if event is None:
        return
    versions = versions_of(event)
    version = next(v for v in versions if look.history.digests.get(v) == digest)
    at, by, why = (str(event.get(fact, "")) for fact in ("at", "by", "why"))
    raise ModelWithdrawnError(name, digest, version, at, by, why)


def _pushed(version: int, push: Push) -> Draft:
    facts = {"version": version, "at": push.pushed_at, "by": push.pushed_by, **asdict(push)}
    return Draft(KINDS[PUSH], push.run, facts)


def _first_names(folder: Path) -> list[str] | None:
    return sorted(p.name for p in folder.iterdir())[:5] if folder.is_dir() else None
