"""Which models are loaded: follows base paths and configuration, loads aside, swaps, unloads.

One thread looks, loads and unloads; requests read an immutable map that is replaced as a whole. A new version
takes over only when it is loaded and warmed up, and the version before it is freed when its last request is
done. A version that fails to load is reported, and tried again when its files change or when a retry is due.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from mlplatform.errors import GateError, MlplatformError
from mlplatform.serving.model_config import ModelConfig
from mlplatform.serving.saved_model import beside_requests, give_memory_back
from mlplatform.serving.servable import Servable
from mlplatform.serving.session import run_error
from mlplatform.serving.status import Code, StatusError, invalid_argument
from mlplatform.serving.version_folders import Fingerprint, SpecificVersions, aspired
from mlplatform.serving.version_source import FolderSource, VersionSource
from mlplatform.storage.errors import StoreAccessError

log = logging.getLogger(__name__)

Loader = Callable[[Path, str, int], Servable]


class State(IntEnum):
    """States of a version; the numbers are those of ModelVersionStatus."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version, and why it could not be loaded."""

    version: int
    state: State
    error: StatusError | None = None

    @property
    def error_text(self) -> str:
        """The error with its code, as the server's own messages give it."""
        return f"{self.error.code.name}: {self.error}" if self.error else ""


@dataclass(frozen=True)
class _Served:
    """What requests see of a model: its loaded versions, and which of them each label names."""

    versions: Mapping[int, Servable] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Failure:
    """A load that failed."""

    files: Fingerprint
    tries: int
    next_try: float  # monotonic time

    def rules_out(self, files: Callable[[], Fingerprint], max_retries: int) -> bool:
        """Another load now would be in vain."""
        is_retry_due = self.tries <= max_retries and time.monotonic() >= self.next_try
        return not is_retry_due and self.files == files()


@dataclass
class _Model:
    config: ModelConfig | None  # None: to be unloaded
    served: dict[int, Servable] = field(default_factory=dict)
    failed: dict[int, _Failure] = field(default_factory=dict)
    problem: str = ""  # what was logged last of its base path
    source: VersionSource | None = None  # of its base path

    @property
    def wanted_labels(self) -> Mapping[str, int]:
        return self.config.labels if self.config else {}


class ModelManager:
    """Keeps the versions loaded that the configuration wants.

    Args:
        load: Loads one version and warms it up.
        poll_wait_s: Seconds between looks into the base paths; 0 looks once, negative never.
        discover: Returns the models to serve at each look, instead of a fixed configuration.
        source: Returns where the versions of a model come from; by default a local folder.
        allows_labels_for_unavailable: A new label may name a version that is not loaded (yet).
        max_load_retries: How often a load that failed is tried again while its files stay as they are.
        load_retry_interval_s: Seconds between such tries.
    """

    def __init__(
        self,
        load: Loader,
        *,
        poll_wait_s: float = 1.0,
        discover: Callable[[], dict[str, ModelConfig]] | None = None,
        source: Callable[[ModelConfig], VersionSource] | None = None,
        allows_labels_for_unavailable: bool = False,
        max_load_retries: int = 0,
        load_retry_interval_s: float = 60.0,
    ) -> None:
        self._load = load
        self._poll_wait_s = poll_wait_s
        self._discover = discover
        self._source = source or _folder_source
        self._allows_labels_for_unavailable = allows_labels_for_unavailable
        self._max_load_retries = max_load_retries
        self._load_retry_interval_s = load_retry_interval_s
        self._changed = threading.Condition()  # guards everything below
        self._models: dict[str, _Model] = {}
        self._serving: Mapping[str, _Served] = {}
        self._states: dict[str, dict[int, VersionStatus]] = {}
        self._is_stopping = False
        self._looks_wanted = 1
        self._looks_done = 0
        self._thread = threading.Thread(target=self._work, name="model-manager", daemon=True)

    def start(self) -> None:
        """Begin to look and load."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; what is loaded stays usable for requests in flight."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join(timeout=30)

    # What requests ask.

    @contextmanager
    def servable(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """Hold a loaded version while the block runs: the given one, the labelled one, or the newest.

        Raises:
            StatusError: NOT_FOUND, or INVALID_ARGUMENT for a missing name or unknown label.
        """
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        while True:
            served = self._serving.get(name, _Served())
            number = _labelled(served, label) if label else version
            if number is None:
                found = served.versions[max(served.versions)] if served.versions else None
            else:
                found = served.versions.get(number)
            if found is None:
                asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
                raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {asked}")
            with found.held():
                now = self._serving.get(name, _Served())
                if now.versions.get(found.version) is found:  # not unloaded in between
                    yield found
                    return

    def labelled(self, name: str, label: str) -> int:
        """Return the version that a label names.

        Raises:
            StatusError: INVALID_ARGUMENT.
        """
        return _labelled(self._serving.get(name, _Served()), label)

    def knows(self, name: str) -> bool:
        """The model is, or was, configured here: no caller made its name up."""
        return name in self._states

    def statuses(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """Return the state of every version of a model that was ever loaded, newest first, or of one.

        Raises:
            StatusError: NOT_FOUND.
        """
        with self._changed:
            known = dict(self._states.get(name, {}))
        if version is not None:
            if version not in known:
                raise StatusError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
            return [known[version]]
        if not known:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return [known[number] for number in sorted(known, reverse=True)]

    def serving(self) -> dict[str, list[int]]:
        """Return the loaded versions of each model, newest first."""
        return {
            name: sorted(served.versions, reverse=True)
            for name, served in self._serving.items()
            if served.versions
        }

    # What the configuration says.

    def configure(self, models: Mapping[str, ModelConfig], timeout_s: float | None = None) -> None:
        """Serve these models and no others; returns when each new one is available.

        Raises:
            StatusError: FAILED_PRECONDITION for a label of a version that is not available, and where this
                manager discovers its models; UNKNOWN where a model could not be loaded; DEADLINE_EXCEEDED
                after `timeout_s` seconds.
        """
        if self._discover is not None:
            raise StatusError(
                Code.FAILED_PRECONDITION,
                "This server follows its root folder and takes no other configuration: push models there, or "
                "start it with model_config_file or model_base_path",
            )
        with self._changed:
            self._check_labels(models)
            is_first = not self._models
            new = self._take(models)
            self._looks_wanted += 1
            look = self._looks_wanted
            self._changed.notify_all()
            is_done = self._changed.wait_for(
                lambda: self._is_stopping or (self._looks_done >= look and self._are_settled(new)),
                timeout=timeout_s,
            )
            if not is_done:
                raise StatusError(Code.DEADLINE_EXCEEDED, f"models not available in time: {', '.join(new)}")
            self._raise_for_unavailable(new, "servable(s)" if is_first else "model(s)")

    def _take(self, models: Mapping[str, ModelConfig]) -> list[str]:
        """Want these models and no others; returns the new ones. Called under the lock."""
        new = []
        for name, config in models.items():
            known = self._models.get(name)
            if known is None:
                known = self._models[name] = _Model(None)
                self._states.setdefault(name, {})
            if known.config is None:
                new.append(name)
            if known.config is None or known.config.base_path != config.base_path:
                known.failed.clear()
                known.source = self._source(config)
            known.config = config
        for name, model in self._models.items():
            if name not in models:
                model.config = None
            self._publish(name, model)
        return new

    def look_now(self) -> None:
        """Look into the base paths now; returns when what was found is loaded."""
        with self._changed:
            self._looks_wanted += 1
            look = self._looks_wanted
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_stopping or self._looks_done >= look)

    def _check_labels(self, models: Mapping[str, ModelConfig]) -> None:
        for name, config in models.items():
            served = self._serving.get(name, _Served())
            for label, version in config.labels.items():
                is_new = label not in served.labels
                if version in served.versions or (is_new and self._allows_labels_for_unavailable):
                    continue
                raise StatusError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {name}, "
                    "which is not currently available for inference",
                )

    def _are_settled(self, names: list[str]) -> bool:
        return all(self._is_served(name) or self._failures(name) for name in names)

    def _is_served(self, name: str) -> bool:
        return name in self._serving and bool(self._serving[name].versions)

    def _failures(self, name: str) -> list[VersionStatus]:
        return [status for status in self._states.get(name, {}).values() if status.error is not None]

    def _raise_for_unavailable(self, names: list[str], what: str) -> None:
        failures = [(n, status) for n in names if not self._is_served(n) for status in self._failures(n)]
        if failures:
            reasons = "".join(
                f"{{{{name: {name} version: {status.version}}} due to error: {status.error_text}}}, "
                for name, status in failures
            )
            text = f"{len(failures)} {what} did not become available: {{{reasons}}}"
            raise StatusError(Code.UNKNOWN, text)

    # The thread.

    def _work(self) -> None:
        reported = ""
        while not self._is_stopping:
            with self._changed:
                look = self._looks_wanted
            try:
                self._look()
                reported = ""
            except Exception as error:
                # The same storage that stays away gives errors of changing texts.
                problem = error.url if isinstance(error, StoreAccessError) else str(error)
                if problem != reported:
                    log.exception("looking for models failed: those that are served stay")
                reported = problem
            with self._changed:
                self._looks_done = look
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._is_stopping or self._looks_wanted > self._looks_done,
                    timeout=self._poll_wait_s if self._poll_wait_s > 0 else None,
                )

    def _look(self) -> None:
        found = self._discover() if self._discover is not None else None
        with self._changed:
            if found is not None:
                self._take(found)
            models = dict(self._models)
        for name, model in models.items():
            if self._is_stopping:
                return
            try:
                self._follow(name, model)
            except Exception as error:
                if str(error) != model.problem:
                    log.exception("following model %s failed", name)
                model.problem = str(error)

    def _follow(self, name: str, model: _Model) -> None:
        config, source = model.config, model.source
        if config is None or source is None:
            self._leave(name, model)
            return
        try:
            folders = source.folders()
        except (OSError, MlplatformError) as error:
            if str(error) != model.problem:
                log.warning("base path of model %s cannot be read: %s", name, error)
            model.problem = str(error)
            return
        problem = "" if folders else _nothing_in(name, config.base_path)
        if problem and problem != model.problem:
            log.warning(problem)
        model.problem = problem
        wanted = aspired(folders, config.policy)
        named = config.policy.versions if isinstance(config.policy, SpecificVersions) else ()
        if self._discover is not None and named and not wanted:
            # A roll-back moved the folder away after the ledger was read: the next look knows what is wanted.
            return
        missing = [v for v in reversed(wanted) if v not in model.served or model.served[v].path != folders[v]]
        loadable = [v for v in missing if not self._is_ruled_out(model, v, source)]
        for version in loadable:
            self._set_state(name, version, State.START)
        for version in loadable:
            self._load_version(name, model, version, folders[version], source)
        labels = self._serving[name].labels
        early = {version for label, version in labels.items() if model.wanted_labels.get(label) != version}
        for version in _superseded(set(model.served), set(wanted), early):
            self._unload(name, model, version)

    def _is_ruled_out(self, model: _Model, version: int, source: VersionSource) -> bool:
        failure = model.failed.get(version)
        return failure is not None and failure.rules_out(
            lambda: source.fingerprint(version), self._max_load_retries
        )

    def _leave(self, name: str, model: _Model) -> None:
        for version in sorted(model.served):
            self._unload(name, model, version)
        with self._changed:
            if model.config is None:  # and not wanted again meanwhile
                del self._models[name]

    def _load_version(
        self, name: str, model: _Model, version: int, folder: Path, source: VersionSource
    ) -> None:
        files = source.fingerprint(version)
        self._set_state(name, version, State.LOADING)
        started = time.monotonic()
        try:
            source.fetch(version)
            with beside_requests():
                servable = self._load(folder, name, version)
        except Exception as error:  # noqa: BLE001 - whatever a model does, the others go on
            status = _status_of(error)
            before = model.failed.get(version)
            tries = before.tries if before is not None and before.files == files else 0
            # A storage that is away says nothing of the version: it is tried until it is back.
            tries += not isinstance(error, StoreAccessError)
            model.failed[version] = _Failure(files, tries, time.monotonic() + self._load_retry_interval_s)
            if tries or before is None:
                log.error("loading version %d of model %s failed: %s", version, name, status)
            self._set_state(name, version, State.END, status)
            return
        model.failed.pop(version, None)
        model.served[version] = servable
        with self._changed:
            self._publish(name, model)
        self._set_state(name, version, State.AVAILABLE)
        log.info("version %d of model %s is available (%.1f s)", version, name, time.monotonic() - started)

    def _unload(self, name: str, model: _Model, version: int) -> None:
        """Take a version out of service; a thread of its own waits for its last request and frees it."""
        self._set_state(name, version, State.UNLOADING)
        servable = model.served.pop(version)
        with self._changed:
            self._publish(name, model)
        threading.Thread(
            target=self._free, args=(name, version, [servable]), name=f"free-{name}-{version}", daemon=True
        ).start()

    def _free(self, name: str, version: int, held: list[Servable]) -> None:
        held[0].wait_until_unused()
        held.clear()  # the last reference
        give_memory_back()
        with self._changed:
            if self._states[name][version].state == State.UNLOADING:  # and not loaded again meanwhile
                self._set_state(name, version, State.END)
        log.info("version %d of model %s is unloaded", version, name)

    def _publish(self, name: str, model: _Model) -> None:
        """Show requests what a model serves now. Called under the lock.

        A label that moves stays with its old version until its new one is there.
        """
        before = self._serving.get(name, _Served()).labels
        labels = {}
        for label, version in model.wanted_labels.items():
            is_early = version not in model.served and before.get(label) in model.served
            labels[label] = before[label] if is_early else version
        self._serving = {**self._serving, name: _Served(dict(model.served), labels)}
        self._changed.notify_all()

    def _set_state(self, name: str, version: int, state: State, error: StatusError | None = None) -> None:
        with self._changed:
            self._states.setdefault(name, {})[version] = VersionStatus(version, state, error)
            self._changed.notify_all()


def _status_of(error: Exception) -> StatusError:
    """Return the error of a load as the protocols know it."""
    if isinstance(error, StatusError):
        return error
    if isinstance(error, GateError):  # changed since it was pushed, or not signed
        return StatusError(Code.FAILED_PRECONDITION, str(error))
    if isinstance(error, StoreAccessError):
        return StatusError(Code.UNAVAILABLE, str(error))
    return run_error(error)


def _folder_source(config: ModelConfig) -> VersionSource:
    """Return the versions below a model's base path, a local folder."""
    return FolderSource(Path(config.base_path))


def _nothing_in(name: str, base_path: Path | str) -> str:
    """Say that a base path holds no version, in TensorFlow Serving's words, and what may be meant."""
    if not isinstance(base_path, Path):
        return f"No versions of servable {name} found under base path {base_path}: nothing was pushed there"
    text = f"No versions of servable {name} found under base path {base_path}: it needs a numbered folder"
    if any((base_path / file).is_file() for file in ("saved_model.pb", "model.tflite")):
        return f"{text}. It holds a model itself: move that into {base_path / '1'}"
    return text


def _labelled(served: _Served, label: str) -> int:
    version = served.labels.get(label)
    if version is None:
        raise invalid_argument(f"Unrecognized servable version label: {label}")
    return version


def _superseded(served: set[int], wanted: set[int], labelled: set[int]) -> list[int]:
    """Return the served versions that may go.

    None before one that is wanted is there; nor the newest while a newer one fails to load; nor one of
    `labelled`, which labels name until the version that they move to is there.
    """
    if wanted and not wanted & served:
        return []
    kept = wanted | labelled
    if any(version > max(served) for version in wanted - served):
        kept = kept | {max(served)}
    return sorted(served - kept)
