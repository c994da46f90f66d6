"""Pushed models: `<models_dir>/<name>/<version>/` as TensorFlow Serving reads it, with a ledger beside.

    <name>/<version>/            a SavedModel, plus push.json: who pushed it, when, why, from what data
    <name>/withdrawn/<version>/  versions taken back by a rollback; a server does not look there
    <name>/ledger.jsonl          every push, confirmation, promotion, rollback and removal, one a line

A version is copied aside, checked by digest and then renamed into place: a server sees all of it or nothing.
Labels are what the ledger says last; they are not stored a second time.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path

from mlplatform.machine import user_name
from mlplatform.registry.errors import (
    CorruptCopyError,
    InvalidLabelError,
    InvalidModelNameError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    NotASavedModelError,
    NothingToRollBackToError,
)

PUSH_FILE = "push.json"
LEDGER_FILE = "ledger.jsonl"
WITHDRAWN = "withdrawn"
STABLE = "stable"
LATEST = "latest"
_COPY, _DOOMED = ".incoming-", ".removed-"  # of these, what a killed process left is removed after a day
_STALE_S = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Push:
    """What is known of one push.

    Attributes:
        digest: sha256 over the SavedModel's files: their relative paths and contents.
        pushed_at: Time of the push, ISO 8601, UTC.
        pushed_by: Account that pushed.
        why: The reason, in words.
        run: Id of the pipeline run, where one pushed.
        dataset: The dataset version that the model was trained on (`items@v3`), where known.
        source: The folder that was pushed.
        servers: Servers that were to confirm it; none where no server was asked.
    """

    digest: str
    pushed_at: str
    pushed_by: str
    why: str = ""
    run: str = ""
    dataset: str = ""
    source: str = ""
    servers: Sequence[str] = ()


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
    """

    version: int
    path: Path
    is_withdrawn: bool = False
    labels: tuple[str, ...] = ()
    push: Push | None = None


@dataclass(frozen=True)
class PushOutcome:
    """The version that holds the model, and whether this push made it."""

    version: ModelVersion
    is_new: bool


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
        """
        base = self._base(name)
        if not base.is_dir():
            raise ModelNotFoundError(name, self.models_dir, self.names())
        labels = self.labels(name)
        found = [
            _read_version(path, is_withdrawn, labels)
            for folder, is_withdrawn in ((base, False), (base / WITHDRAWN, True))
            if folder.is_dir()
            for path in folder.iterdir()
            if path.name.isascii() and path.name.isdecimal() and path.is_dir()
        ]
        return sorted(found, key=lambda version: version.version)

    def ledger(self, name: str) -> list[dict[str, object]]:
        """Return every push, confirmation, promotion, rollback and removal of a model, oldest first."""
        path = self._base(name) / LEDGER_FILE
        if not path.exists():
            return []
        whole, _, _torn = path.read_text("utf-8").rpartition("\n")  # a full disk can cut the last line
        return [json.loads(line) for line in whole.splitlines() if line]

    def push(
        self,
        source: Path,
        name: str,
        *,
        why: str = "",
        run: str = "",
        dataset: str = "",
        servers: Sequence[str] = (),
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

        Raises:
            NotASavedModelError: `source` holds no SavedModel.
            CorruptCopyError: The copy differs from the source. Nothing was pushed.
        """
        if not (source / "saved_model.pb").is_file():
            raise NotASavedModelError(source)
        base = self._base(name)
        base.mkdir(parents=True, exist_ok=True)
        _remove_stale(base)
        push = Push(
            digest=tree_digest(source),
            pushed_at=_timestamp(),
            pushed_by=user_name(),
            why=why,
            run=run,
            dataset=dataset,
            source=str(source),
            servers=servers,
        )
        newest = self._newest(name)
        if newest is not None and newest.push is not None and newest.push.digest == push.digest:
            with self._ledger_alone(name) as ledger:
                self._record_unrecorded(name, ledger)
                if not servers and self.awaits_servers(name, newest.version):
                    _write_push(ledger, newest.version, push)  # it is taken as it is
            return PushOutcome(newest, is_new=False)

        with _copied_aside(source, base) as copy:
            if (found := tree_digest(copy)) != push.digest:
                raise CorruptCopyError(source, push.digest, found)
            (copy / PUSH_FILE).write_text(json.dumps(asdict(push), indent=2), "utf-8")
            _sync_tree(copy)
            with self._ledger_alone(name) as ledger:
                number = max((v.version for v in self.versions(name)), default=0) + 1
                copy.rename(base / str(number))
                self._record_unrecorded(name, ledger)
        return PushOutcome(self.version(name, str(number)), is_new=True)

    def drop_old(self, name: str, keep: int) -> None:
        """Remove all but the newest `keep` versions that servers see; labelled ones stay, and 0 keeps all."""
        serving = [v for v in self.versions(name) if not v.is_withdrawn]
        for version in serving[:-keep] if keep > 0 else []:
            if not version.labels:
                self._record(name, "remove", version=version.version, why=f"only the newest {keep} are kept")
                doomed = version.path.rename(version.path.with_name(f"{_DOOMED}{uuid.uuid4().hex}"))
                shutil.rmtree(doomed)

    def confirm(self, name: str, version: int, servers: Sequence[str]) -> None:
        """Note that servers have a version available and answer with it."""
        self._record(name, "confirm", version=version, servers=list(servers))

    def awaits_servers(self, name: str, version: int) -> bool:
        """The push of this version asked servers to confirm it, and nothing decided about it since.

        So it is while that push waits, and where it was killed in it. A confirmation, a promotion, a rollback
        and a push of the same model that asks no server are decisions.
        """
        about = [event for event in self.ledger(name) if event["version"] == version]
        are_pushes = all(event["event"] == "push" for event in about)
        return bool(about) and are_pushes and bool(about[-1].get("servers"))

    def version(self, name: str, version: str) -> ModelVersion:
        """Return one version: a number, a label, or `latest`.

        Raises:
            ModelNotFoundError: There is no such model.
            ModelVersionNotFoundError: It has no such version.
        """
        versions = self.versions(name)
        serving = [v for v in versions if not v.is_withdrawn]
        if version == LATEST and serving:
            return serving[-1]
        for candidate in versions:
            if str(candidate.version) == version or version in candidate.labels:
                return candidate
        raise ModelVersionNotFoundError(name, version, [v.version for v in versions])

    def promote(self, name: str, version: str, label: str = STABLE, *, why: str = "") -> ModelVersion:
        """Give a version a label; a withdrawn version becomes visible to servers again.

        Raises:
            InvalidLabelError: `label` is `latest`, or could be taken for a version's number.
            ModelVersionNotFoundError: There is no such version.
        """
        if label == LATEST or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9._-]*", label):
            raise InvalidLabelError(label)
        found = self.version(name, version)
        if found.is_withdrawn:
            found.path.rename(self._base(name) / str(found.version))
        self._record(name, "promote", version=found.version, label=label, why=why)
        return self.version(name, str(found.version))

    def rollback(self, name: str, to: str | None = None, *, why: str = "") -> ModelVersion:
        """Withdraw every version above `to` (default: the one before the newest), newest first.

        A withdrawn version is kept, and `promote` brings it back. Returns the version that now is the newest.

        Raises:
            NothingToRollBackToError: There is no older version.
        """
        serving = [v for v in self.versions(name) if not v.is_withdrawn]
        if not serving:
            raise ModelVersionNotFoundError(name, to or "latest", [])
        if to is None and len(serving) < 2:
            raise NothingToRollBackToError(name, serving[-1].version)
        target = serving[-2] if to is None else self.version(name, to)
        if target.is_withdrawn:
            raise ModelVersionNotFoundError(name, str(target.version), [v.version for v in serving])
        for version in reversed(serving):
            if version.version > target.version:
                self.withdraw(name, version.version, why=why)
        return self.version(name, str(target.version))

    def withdraw(self, name: str, version: int, *, why: str = "") -> None:
        """Take one version out of the servers' sight, in one step."""
        aside = self._base(name) / WITHDRAWN
        aside.mkdir(exist_ok=True)
        (self._base(name) / str(version)).rename(aside / str(version))
        self._record(name, "rollback", version=version, why=why)

    def _base(self, name: str) -> Path:
        check_model_name(name)
        return self.models_dir / name

    def _newest(self, name: str) -> ModelVersion | None:
        serving = [v for v in self.versions(name) if not v.is_withdrawn]
        return serving[-1] if serving else None

    def labels(self, name: str) -> dict[str, int]:
        """Return the version that each label of a model names, as promoted last."""
        labels: dict[str, int] = {}
        for event in self.ledger(name):
            if event["event"] == "promote":
                labels[str(event["label"])] = int(str(event["version"]))
        return labels

    def _record_unrecorded(self, name: str, ledger: int) -> None:
        """Write the ledger's line of each push that has none: this one, or one killed before it wrote it."""
        recorded = {event["version"] for event in self.ledger(name) if event["event"] == "push"}
        for found in self.versions(name):
            if found.push is not None and found.version not in recorded:
                _write_push(ledger, found.version, found.push)

    def _record(self, name: str, event: str, **facts: object) -> None:
        with self._ledger_alone(name) as ledger:
            _write_line(ledger, {"event": event, "at": _timestamp(), "by": user_name(), **facts})

    @contextmanager
    def _ledger_alone(self, name: str) -> Iterator[int]:
        """The ledger, held against other processes; a killed one lets go by itself."""
        descriptor = os.open(self._base(name) / LEDGER_FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _write_push(ledger: int, version: int, push: Push) -> None:
    facts = {"by": push.pushed_by, "version": version, **asdict(push)}
    _write_line(ledger, {"event": "push", "at": push.pushed_at, **facts})


def _write_line(ledger: int, facts: Mapping[str, object]) -> None:
    size = os.fstat(ledger).st_size
    if size and os.pread(ledger, 1, size - 1) != b"\n":
        os.ftruncate(ledger, os.pread(ledger, size, 0).rfind(b"\n") + 1)  # a line that was cut
    os.write(ledger, json.dumps(facts).encode() + b"\n")
    os.fsync(ledger)


def _timestamp() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def tree_digest(folder: Path) -> str:
    """Return the sha256 over all files below `folder` (paths and contents), `push.json` left out."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / PUSH_FILE):
        name = path.relative_to(folder).as_posix().encode()
        digest.update(len(name).to_bytes(8, "little") + name + path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def check_model_name(name: str) -> None:
    """See that a model can have this name.

    Raises:
        InvalidModelNameError: It cannot be the name of a folder that a model server reads.
    """
    if not _is_name(name):
        raise InvalidModelNameError(name)


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None


def _read_version(path: Path, is_withdrawn: bool, labels: dict[str, int]) -> ModelVersion:
    number = int(path.name)
    mine = tuple(sorted(label for label, version in labels.items() if version == number))
    push = _read_push(path / PUSH_FILE)
    return ModelVersion(version=number, path=path, is_withdrawn=is_withdrawn, labels=mine, push=push)


def _read_push(file: Path) -> Push | None:
    """Return what a push left; None where there is nothing, or nothing that a push writes."""
    known = {field.name for field in fields(Push)}
    try:
        found = json.loads(file.read_text("utf-8"))
        return Push(**{name: value for name, value in found.items() if name in known})
    except (OSError, ValueError, AttributeError, TypeError):  # unreadable, no JSON, no object, incomplete
        return None


@contextmanager
def _copied_aside(source: Path, base: Path) -> Iterator[Path]:
    """A copy of `source` under a name that no server reads; removed if it is still there at the end."""
    copy = base / f"{_COPY}{uuid.uuid4().hex}"
    try:
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns(PUSH_FILE))
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _remove_stale(base: Path) -> None:
    """Remove what pushes and removals left that were killed."""
    for path in base.iterdir():
        if path.name.startswith((_COPY, _DOOMED)):
            with suppress(FileNotFoundError):  # another push just made its copy a version
                # The time of the last change of its entry: a copy takes over its source's other times.
                if time.time() - path.stat().st_ctime > _STALE_S:
                    shutil.rmtree(path, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
