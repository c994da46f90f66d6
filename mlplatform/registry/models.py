"""Pushed models: `<models_dir>/<name>/<version>/` as TensorFlow Serving reads it, with a ledger beside.

    <name>/<version>/            a SavedModel, plus push.json: who pushed it, when, why, from what data
                                 (and push.sig where the push signed it)
    <name>/withdrawn/<version>/  versions taken back by a rollback; a server does not look there
    <name>/ledger.jsonl          every push, confirmation, promotion, rollback and removal, one a line

A version is copied aside, checked by digest and then renamed into place: a server sees all of it or nothing.

All else is decided by the ledger: a roll-back or promotion has happened as soon as its line is written, and
what a killed process left undone with the folders is done by the next one that writes ("settling"). Folders
are moved in the order that never lets a label name a version without a folder: a roll-back writes its line
and then moves the folder away, a promotion moves the folder back and then writes its line.
"""

import json
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mlplatform.machine import user_name
from mlplatform.registry.contents import (
    PUSH_FILE,
    SIGNATURE_FILE,
    WITHDRAWN,
    contents,
    copy_contents,
    sync,
    sync_tree,
    tree_digest,
)
from mlplatform.registry.errors import (
    CorruptCopyError,
    DuplicateVersionError,
    InvalidLabelError,
    InvalidModelNameError,
    ModelChangedError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    ModelWithdrawnError,
    NotASavedModelError,
    NothingToRollBackToError,
    SignatureError,
)
from mlplatform.registry.history import History
from mlplatform.registry.integrity import check_unchanged
from mlplatform.registry.ledger_file import (
    CONFIRM,
    LEDGER_FILE,
    MAX_VERSION,
    PROMOTE,
    PUSH,
    REMOVE,
    ROLLBACK,
    Event,
    Ledger,
    Writer,
    timestamp,
    versions_of,
)
from mlplatform.registry.push_record import Push, read_push
from mlplatform.registry.signing import public_part, sign, verify

STABLE = "stable"
LATEST = "latest"
_COPY, _REMOVED = ".incoming-", ".removed-"  # of these, what a killed process left is removed after a day
_STALE_S = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A version as it lies in the store.

    Attributes:
        version: Its number.
        path: Its folder.
        is_withdrawn: A rollback took it back; servers do not see it.
        labels: `stable`, `canary`, ... as promoted last.
        push: What is known of its push; None for a version that something else put there, or whose
            `push.json` cannot be read.
        events: What the ledger says of it, oldest first.
    """

    version: int
    path: Path
    is_withdrawn: bool = False
    labels: tuple[str, ...] = ()
    push: Push | None = None
    events: tuple[Event, ...] = ()

    @property
    def is_signed(self) -> bool:
        """It carries a signature; whether that holds is another question."""
        return (self.path / SIGNATURE_FILE).is_file()

    def integrity(self) -> str:
        """Compare its files with the record of its push: `intact`, `changed` or, without one, `unrecorded`.

        Reads every file of it.
        """
        try:
            return "intact" if check_unchanged(self.path) else "unrecorded"
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

    @property
    def serving(self) -> list[ModelVersion]:
        return [version for version in self.versions if not version.is_withdrawn]

    @property
    def newest(self) -> ModelVersion | None:
        return self.serving[-1] if self.serving else None

    def moved_labels(self, withdrawn: Collection[int], instead: int | None = None) -> dict[str, int | None]:
        """Return where labels move when versions are withdrawn: where nothing was before, to `instead`."""
        serving = [version.version for version in self.serving]
        left = [version for version in serving if version not in withdrawn]
        last = instead if instead in left else max(left, default=None)
        return self.history.labels_without(withdrawn, serving, last)


@dataclass(frozen=True)
class ModelStore:
    """The models below one folder.

    Attributes:
        models_dir: The folder; each model's own folder below it is a TensorFlow Serving `base_path`.
    """

    models_dir: Path

    def names(self) -> list[str]:
        """Return the names of the models pushed here, sorted."""
        if not self.models_dir.is_dir():
            return []
        return sorted(p.name for p in self.models_dir.iterdir() if p.is_dir() and _is_name(p.name))

    def versions(self, name: str) -> list[ModelVersion]:
        """Return the versions of a model, oldest first, withdrawn ones included.

        Raises:
            ModelNotFoundError: No model of that name was pushed here.
            LedgerAccessError: Its ledger cannot be read.
        """
        return self._look(name).versions

    def labels(self, name: str) -> dict[str, int]:
        """Return the version that each label of a model names, as promoted last; it is one that serves."""
        look = self._look(name)
        return look.history.labels({version.version for version in look.serving})

    def ledger(self, name: str) -> list[dict[str, object]]:
        """Return every push, confirmation, promotion, rollback and removal of a model, oldest first.

        Raises:
            LedgerAccessError: It cannot be read.
        """
        return self._ledger(name).events()

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

        Raises:
            NotASavedModelError: `source` holds no SavedModel.
            UnpushableFileError: `source` holds a FIFO, a device, or a link that leads out of it.
            ModelWithdrawnError: This very model was rolled back, and not promoted since.
            CorruptCopyError: The copy differs from the source. Nothing was pushed.
            SigningKeyError: `signing_key` cannot be used.
            MissingExtraError: `signing_key` is given, and the extra `signing` is not installed.
        """
        if not (source / "saved_model.pb").is_file():
            raise NotASavedModelError(source, _first_names(source))
        base = self._base(name)
        base.mkdir(parents=True, exist_ok=True)
        found = contents(source)
        trusted_key = public_part(signing_key) if signing_key else ""
        push = Push(
            digest=tree_digest(source, found),
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
        _remove_stale(base)
        with self._writing(name) as (ledger, look):
            if same := _same_as_newest(look, push, trusted_key):
                if not servers and look.history.awaits_servers(same.version):
                    _record_push(ledger, same.version, push)  # it is accepted as it is
                return PushOutcome(same, is_new=False)
            if not allows_withdrawn:
                _check_not_withdrawn(look, name, push.digest)

        # Copied without the lock, which takes as long as it takes; so all is asked once more below.
        copy = base / f"{_COPY}{uuid.uuid4().hex}"
        try:
            copy_contents(source, found, copy)
            if (copied := tree_digest(copy)) != push.digest:
                raise CorruptCopyError(source, push.digest, copied)
            (copy / PUSH_FILE).write_text(json.dumps(asdict(push), indent=2), "utf-8")
            if signing_key:
                sign(copy, signing_key)
            sync_tree(copy)
            with self._writing(name) as (ledger, look):
                if not allows_withdrawn:
                    _check_not_withdrawn(look, name, push.digest)
                used = {version.version for version in look.versions} | look.history.about.keys()
                number = max(used, default=0) + 1
                copy.rename(base / str(number))
                sync(base)
                _record_push(ledger, number, push)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        return PushOutcome(self.version(name, str(number)), is_new=True)

    def confirm(self, name: str, version: int, servers: Sequence[str]) -> None:
        """Note that servers have a version available and answer with it."""
        with self._writing(name) as (ledger, _):
            ledger.append(CONFIRM, version=version, servers=list(servers))

    def promote(self, name: str, version: str, label: str = STABLE, *, why: str = "") -> ModelVersion:
        """Give a version a label; a withdrawn version becomes visible to servers again.

        Raises:
            InvalidLabelError: `label` is `latest`, or could be taken for a version's number.
            ModelVersionNotFoundError: There is no such version.
            ModelChangedError: Its files are not those that were pushed.
        """
        if label == LATEST or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9._-]*", label):
            raise InvalidLabelError(label)
        self._look(name)  # no ledger for a model that is not there
        with self._writing(name) as (ledger, look):
            found = _find(look, name, version)
            check_unchanged(found.path)
            if found.is_withdrawn:
                found.path.rename(self._base(name) / str(found.version))
                sync(self._base(name))
            ledger.append(PROMOTE, version=found.version, label=label, why=why)
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
        if to is None and self._unfinished(name, seen):
            with self._writing(name) as (_, look):
                return look.newest or _find(look, name, LATEST)
        if not seen.serving:
            raise ModelVersionNotFoundError(name, to or LATEST, [])
        if to is None and len(seen.serving) < 2:
            raise NothingToRollBackToError(name, seen.serving[-1].version)
        target = seen.serving[-2] if to is None else _find(seen, name, to)
        if target.is_withdrawn:
            raise ModelVersionNotFoundError(name, str(target.version), [v.version for v in seen.serving])
        check_unchanged(target.path)
        above = {version.version for version in seen.serving if version.version > target.version}
        with self._writing(name) as (ledger, look):
            withdrawn = [version for version in look.serving if version.version in above]
            if withdrawn and len(withdrawn) == len(look.serving):
                raise NothingToRollBackToError(name, withdrawn[-1].version)
            if withdrawn:
                self._withdraw(name, ledger, look, withdrawn, instead=target.version, why=why)
        return self.version(name, LATEST)

    def withdraw(self, name: str, version: int, *, why: str = "") -> None:
        """Take one version out of the servers' sight, in one step; labels move as in a rollback.

        Raises:
            ModelVersionNotFoundError: There is no such version.
        """
        self._look(name)
        with self._writing(name) as (ledger, look):
            found = _find(look, name, str(version))
            if not found.is_withdrawn:
                self._withdraw(name, ledger, look, [found], why=why)

    def take_back(self, name: str, version: int, *, why: str = "") -> None:
        """Withdraw a version whose push waits for servers, unless something was decided about it meanwhile.

        Servers that cannot confirm a version say nothing of its model: it may be pushed again.
        """
        with self._writing(name) as (ledger, look):
            if look.history.awaits_servers(version):
                found = _find(look, name, str(version))
                self._withdraw(name, ledger, look, [found], why=why, unconfirmed=True)

    def drop_old(self, name: str, keep: int) -> None:
        """Remove all but the newest `keep` versions that servers see; labelled ones stay, and 0 keeps all."""
        if keep <= 0:
            return
        removed = []
        with self._writing(name) as (ledger, look):
            for version in look.serving[:-keep]:
                if not version.labels:
                    aside = self._base(name) / f"{_REMOVED}{uuid.uuid4().hex}"
                    # A version without a folder is removed, whatever the ledger says: see `_settle`.
                    version.path.rename(aside)
                    ledger.append(REMOVE, version=version.version, why=f"only the newest {keep} are kept")
                    removed.append(aside)
        for folder in removed:
            shutil.rmtree(folder, ignore_errors=True)  # `_remove_stale` tries again

    def _base(self, name: str) -> Path:
        check_model_name(name)
        return self.models_dir / name

    def _ledger(self, name: str) -> Ledger:
        return Ledger(self._base(name) / LEDGER_FILE)

    def _look(self, name: str) -> _Look:
        base = self._base(name)
        if not base.is_dir():
            raise ModelNotFoundError(name, self.models_dir, self.names())
        history = History.of(self._ledger(name).events())
        folders = _version_folders(base)
        withdrawn = {n for n, path in folders.items() if path.parent != base or n in history.withdrawn}
        labels = history.labels(folders.keys() - withdrawn)
        versions = [
            ModelVersion(
                version=number,
                path=path,
                is_withdrawn=number in withdrawn,
                labels=tuple(sorted(label for label, named in labels.items() if named == number)),
                push=read_push(path / PUSH_FILE),
                events=tuple(history.about.get(number, ())),
            )
            for number, path in sorted(folders.items())
        ]
        return _Look(history, versions)

    @contextmanager
    def _writing(self, name: str) -> Iterator[tuple[Writer, _Look]]:
        """The ledger, held against other writers, and the model as it is now that all before is settled."""
        with self._ledger(name).writer() as ledger:
            self._settle(name, ledger)
            yield ledger, self._look(name)

    def _settle(self, name: str, ledger: Writer) -> None:
        """Make ledger and folders agree, where a killed process or somebody's hand left them apart."""
        look = self._look(name)
        for version in look.versions:  # a push that was killed before it wrote its line
            if version.push is not None and version.version not in look.history.digests:
                _record_push(ledger, version.version, version.push)
        look = self._look(name)
        for version in look.versions:  # a roll-back of an earlier release that was killed, or a folder moved
            if version.path.parent.name == WITHDRAWN and version.version not in look.history.withdrawn:
                labels = look.moved_labels([version.version])
                why = f"its folder lies in {WITHDRAWN!r}"
                ledger.append(ROLLBACK, version=version.version, labels=labels, why=why)
        for version in self._unfinished(name, look):  # a roll-back or a promotion
            self._move_aside(name, version)
        there = {version.version for version in look.versions}
        for number in sorted(look.history.digests.keys() - there - look.history.removed):
            ledger.append(REMOVE, version=number, why="its folder is gone")

    def _unfinished(self, name: str, look: _Look) -> list[ModelVersion]:
        """Return the versions that are withdrawn and whose folders servers still see."""
        return [v for v in look.versions if v.is_withdrawn and v.path.parent == self._base(name)]

    def _withdraw(
        self,
        name: str,
        ledger: Writer,
        look: _Look,
        versions: Sequence[ModelVersion],
        *,
        why: str,
        instead: int | None = None,
        unconfirmed: bool = False,
    ) -> None:
        numbers = sorted((version.version for version in versions), reverse=True)
        facts: dict[str, object] = {"versions": numbers, "labels": look.moved_labels(numbers, instead)}
        if unconfirmed:
            facts["unconfirmed"] = True
        ledger.append(ROLLBACK, version=numbers[0], **facts, why=why)
        for version in sorted(versions, key=lambda version: -version.version):
            self._move_aside(name, version)

    def _move_aside(self, name: str, version: ModelVersion) -> None:
        aside = self._base(name) / WITHDRAWN / str(version.version)
        aside.parent.mkdir(exist_ok=True)
        if aside.exists():
            raise DuplicateVersionError(version.path, aside)
        version.path.rename(aside)
        sync(self._base(name))


def check_model_name(name: str) -> None:
    """See that a model can have this name.

    Raises:
        InvalidModelNameError: It cannot be the name of a folder that a model server reads.
    """
    if not _is_name(name):
        raise InvalidModelNameError(name)


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None


def _version_folders(base: Path) -> dict[int, Path]:
    """Return the folder of each version; of two with the same number, one that servers see."""
    return {
        int(path.name): path
        for folder in (base / WITHDRAWN, base)
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.name.isascii() and path.name.isdecimal() and int(path.name) <= MAX_VERSION and path.is_dir()
    }


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
        check_unchanged(newest.path)
        if trusted_key:
            verify(newest.path, trusted_key)
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


def _record_push(ledger: Writer, version: int, push: Push) -> None:
    facts = {"at": push.pushed_at, "by": push.pushed_by, **asdict(push)}
    ledger.append(PUSH, version=version, **facts)


def _first_names(folder: Path) -> list[str] | None:
    return sorted(p.name for p in folder.iterdir())[:5] if folder.is_dir() else None


def _remove_stale(base: Path) -> None:
    """Remove what pushes and removals left that were killed."""
    for path in base.iterdir():
        if path.name.startswith((_COPY, _REMOVED)):
            with suppress(FileNotFoundError):  # another push just made its copy a version
                # The time of the last change of its entry: a copy takes over its source's other times.
                if time.time() - path.stat().st_ctime > _STALE_S:
                    shutil.rmtree(path, ignore_errors=True)
