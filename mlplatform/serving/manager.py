"""Which models are loaded: follows base paths and configuration, loads aside, swaps, unloads.

One thread looks, loads and unloads; requests read an immutable map that is replaced as a whole. A new version
takes over only when it is loaded and warmed up, and the version before it is unloaded when its last request
is done. A version that fails to load is reported and not tried again before its files change.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from mlplatform.serving.model_config import ModelConfig
from mlplatform.serving.saved_model import give_memory_back, without_garbage_collection
from mlplatform.serving.servable import Servable
from mlplatform.serving.status import Code, StatusError, from_tensorflow, invalid_argument
from mlplatform.serving.version_folders import aspired, fingerprint, version_folders

log = logging.getLogger(__name__)

UNLOAD_WAIT_S = 60.0  # longer requests of an unloaded version keep its memory until they are done

Loader = Callable[[Path, str, int], Servable]
_Fingerprint = tuple[tuple[str, int, int], ...]


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


@dataclass
class _Model:
    config: ModelConfig
    served: dict[int, Servable] = field(default_factory=dict)
    failed: dict[int, _Fingerprint] = field(default_factory=dict)


class ModelManager:
    """Keeps the versions loaded that the configuration wants.

    Args:
        load: Loads one version and warms it up.
        poll_wait_s: Seconds between looks into the base paths; 0 looks once, negative never.
        discover: Returns the models to serve at each look, instead of a fixed configuration.
        allows_labels_for_unavailable: A label may name a version that is not loaded (yet).
    """

    def __init__(
        self,
        load: Loader,
        *,
        poll_wait_s: float = 1.0,
        discover: Callable[[], dict[str, ModelConfig]] | None = None,
        allows_labels_for_unavailable: bool = False,
    ) -> None:
        self._load = load
        self._poll_wait_s = poll_wait_s
        self._discover = discover
        self._allows_labels_for_unavailable = allows_labels_for_unavailable
        self._changed = threading.Condition()  # guards everything below
        self._models: dict[str, _Model] = {}
        self._serving: Mapping[str, Mapping[int, Servable]] = {}
        self._labels: Mapping[str, Mapping[str, int]] = {}
        self._orphans: dict[str, _Model] = {}  # no longer configured, still loaded
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
        if label:
            version = self.labelled(name, label)
        while True:
            versions = self._serving.get(name, {})
            number = version if version is not None else max(versions, default=None)
            found = versions.get(number) if number is not None else None
            if found is None:
                asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {asked}")
            with found.held():
                if self._serving.get(name, {}).get(found.version) is found:  # not unloaded in between
                    yield found
                    return

    def labelled(self, name: str, label: str) -> int:
        """Return the version that a label names.

        Raises:
            StatusError: INVALID_ARGUMENT.
        """
        version = self._labels.get(name, {}).get(label)
        if version is None:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return version

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
        return {name: sorted(versions, reverse=True) for name, versions in self._serving.items()}

    # What the configuration says.

    def configure(self, models: Mapping[str, ModelConfig], timeout_s: float | None = None) -> None:
        """Serve these models and no others; returns when each new one is available.

        Raises:
            StatusError: FAILED_PRECONDITION for a label of a version that is not available; UNKNOWN where a
                model could not be loaded; DEADLINE_EXCEEDED after `timeout_s` seconds.
        """
        with self._changed:
            self._check_labels(models)
            new = [name for name in models if name not in self._models]
            for name, config in models.items():
                known = self._models.get(name)
                if known is None:
                    self._models[name] = _Model(config)
                    self._states.setdefault(name, {})
                else:
                    if known.config.base_path != config.base_path:
                        known.failed.clear()
                    known.config = config
            removed = [name for name in self._models if name not in models]
            orphans = {name: self._models.pop(name) for name in removed}
            self._orphans = {**self._orphans, **orphans}
            self._labels = {name: dict(config.labels) for name, config in models.items()}
            self._looks_wanted += 1
            look = self._looks_wanted
            self._changed.notify_all()
            is_done = self._changed.wait_for(
                lambda: self._is_stopping or (self._looks_done >= look and self._are_settled(new)),
                timeout=timeout_s,
            )
            if not is_done:
                raise StatusError(Code.DEADLINE_EXCEEDED, f"models not available in time: {', '.join(new)}")
            self._raise_for_unavailable(new)

    def look_now(self) -> None:
        """Look into the base paths now; returns when what was found is loaded."""
        with self._changed:
            self._looks_wanted += 1
            look = self._looks_wanted
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_stopping or self._looks_done >= look)

    def _check_labels(self, models: Mapping[str, ModelConfig]) -> None:
        for name, config in models.items():
            for label, version in config.labels.items():
                moves = self._labels.get(name, {}).get(label, version) != version
                if self._allows_labels_for_unavailable and not moves:
                    continue
                is_new = name not in self._models  # its versions are not loaded yet
                if version not in self._serving.get(name, {}) and not is_new:
                    raise StatusError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {name}, "
                        "which is not currently available for inference",
                    )

    def _are_settled(self, names: list[str]) -> bool:
        return all(self._serving.get(name) or self._errors(name) for name in names)

    def _errors(self, name: str) -> list[StatusError]:
        return [s.error for s in self._states.get(name, {}).values() if s.error is not None]

    def _raise_for_unavailable(self, names: list[str]) -> None:
        missing = [name for name in names if not self._serving.get(name)]
        if missing:
            reasons = ", ".join(f"{{{name} due to error: {self._errors(name)[-1:]}}}" for name in missing)
            raise StatusError(
                Code.UNKNOWN, f"{len(missing)} model(s) did not become available: {{{reasons}}}"
            )

    # The thread.

    def _work(self) -> None:
        while not self._is_stopping:
            with self._changed:
                look = self._looks_wanted
            try:
                self._look()
            except Exception:
                log.exception("looking for models failed")
            with self._changed:
                self._looks_done = look
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._is_stopping or self._looks_wanted > self._looks_done,
                    timeout=self._poll_wait_s if self._poll_wait_s > 0 else None,
                )

    def _look(self) -> None:
        if self._discover is not None:
            self._take_discovered(self._discover())
        with self._changed:
            orphans, self._orphans = self._orphans, {}
            models = dict(self._models)
        for name, model in orphans.items():
            for version in sorted(model.served):
                self._unload(name, model, version)
        for name, model in models.items():
            if self._is_stopping:
                return
            self._follow(name, model)

    def _take_discovered(self, found: Mapping[str, ModelConfig]) -> None:
        with self._changed:
            for name, config in found.items():
                if name in self._models:
                    self._models[name].config = config
                else:
                    self._models[name] = _Model(config)
                    self._states.setdefault(name, {})
            gone = [name for name in self._models if name not in found]
            self._orphans = {
                **self._orphans,
                **{name: self._models.pop(name) for name in gone},
            }
            self._labels = {name: dict(config.labels) for name, config in found.items()}

    def _follow(self, name: str, model: _Model) -> None:
        config = model.config
        try:
            folders = version_folders(config.base_path)
        except OSError as error:
            log.warning("base path of model %s cannot be read: %s", name, error)
            return
        wanted = aspired(folders, config.policy)
        moved = {v for v, s in model.served.items() if v in wanted and s.path != folders[v]}
        for version in reversed(wanted):
            if version in model.served and version not in moved:
                continue
            if model.failed.get(version) == fingerprint(folders[version]):
                continue
            self._load_version(name, model, version, folders[version])
        has_wanted = any(version in model.served for version in wanted)
        if has_wanted or not wanted:
            for version in sorted(set(model.served) - set(wanted)):
                self._unload(name, model, version)

    def _load_version(self, name: str, model: _Model, version: int, folder: Path) -> None:
        state_before = fingerprint(folder)
        self._set_state(name, version, State.LOADING)
        started = time.monotonic()
        try:
            with without_garbage_collection():
                servable = self._load(folder, name, version)
        except Exception as error:  # noqa: BLE001 - whatever a model does, the others go on
            status = error if isinstance(error, StatusError) else from_tensorflow(error)
            model.failed[version] = state_before
            self._set_state(name, version, State.END, status)
            log.error("loading version %d of model %s failed: %s", version, name, status)
            return
        model.failed.pop(version, None)
        model.served[version] = servable
        self._publish(name, model)
        self._set_state(name, version, State.AVAILABLE)
        log.info("version %d of model %s is available (%.1f s)", version, name, time.monotonic() - started)

    def _unload(self, name: str, model: _Model, version: int) -> None:
        self._set_state(name, version, State.UNLOADING)
        servable = model.served.pop(version)
        self._publish(name, model)
        servable.wait_until_unused(UNLOAD_WAIT_S)
        del servable
        give_memory_back()
        self._set_state(name, version, State.END)
        log.info("version %d of model %s is unloaded", version, name)

    def _publish(self, name: str, model: _Model) -> None:
        with self._changed:
            self._serving = {**self._serving, name: dict(model.served)}
            self._changed.notify_all()

    def _set_state(self, name: str, version: int, state: State, error: StatusError | None = None) -> None:
        with self._changed:
            self._states.setdefault(name, {})[version] = VersionStatus(version, state, error)
            self._changed.notify_all()
