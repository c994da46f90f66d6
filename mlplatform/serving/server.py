"""The model server: models, both protocols, and a clean stop."""

import errno
import logging
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from mlplatform.home import Home
from mlplatform.machine import usable_threads
from mlplatform.registry import ModelStore, ModelVersion
from mlplatform.registry.integrity import check_version
from mlplatform.registry.signing import PUBLIC_KEY_VARIABLE, check_public_key, public_key
from mlplatform.serving.api import Api
from mlplatform.serving.engines import by_cost
from mlplatform.serving.grpc_api import GrpcServer, grpc_credentials
from mlplatform.serving.inference import Inference
from mlplatform.serving.manager import ModelManager
from mlplatform.serving.metrics import Metrics
from mlplatform.serving.model_config import (
    ModelConfig,
    ModelConfigFileError,
    checked_models,
    read_config_file,
)
from mlplatform.serving.pixel_limits import PixelLimits
from mlplatform.serving.request_log import RequestLog
from mlplatform.serving.request_size import RequestBudget
from mlplatform.serving.rest_api import RestServer
from mlplatform.serving.row_check import keep_dependent_rows_apart
from mlplatform.serving.saved_model import load
from mlplatform.serving.scheduling import BatchingParameters, Scheduler
from mlplatform.serving.search import attach_index
from mlplatform.serving.servable import Servable
from mlplatform.serving.settings import ServerSettings, SettingsError
from mlplatform.serving.text_config import read_batching_parameters, read_metrics_path
from mlplatform.serving.threads import limit_threads
from mlplatform.serving.version_folders import SpecificVersions
from mlplatform.serving.version_source import FolderSource, ModelCache, PushedSource, VersionSource
from mlplatform.serving.warmup import warm_up
from mlplatform.storage.urls import absolute, is_local, parent
from mlplatform.storage.urls import name as name_of

log = logging.getLogger(__name__)


class ModelServer:
    """A model server in this process, with TensorFlow Serving's interfaces.

    Used as a context manager it serves while the block runs::

        with ModelServer(model_base_path="/models/m", model_name="m", port=0, rest_api_port=0) as server:
            Client(f"127.0.0.1:{server.grpc_port}").predict("m", {"x": [1.0, 2.0]})

    Args:
        settings: The fields of `ServerSettings`, as keyword arguments.

    Raises:
        UsageError: The settings, or a file that they name, are wrong.
    """

    def __init__(self, **settings: Any) -> None:
        plain: dict[str, Any] = {n: str(v) if isinstance(v, Path) else v for n, v in settings.items()}
        self.settings = ServerSettings(**plain)
        self._stopping = threading.Event()
        limit_threads(self.settings.intra_op_threads, self.settings.inter_op_threads)
        self._request_log = _request_log(self.settings)
        self.manager = ModelManager(
            self._load,
            poll_wait_s=self.settings.file_system_poll_wait_seconds,
            discover=self._discover if self.settings.serves_root else None,
            source=self._source,
            allows_labels_for_unavailable=self.settings.allow_version_labels_for_unavailable_models,
            max_load_retries=self.settings.max_num_load_retries,
            load_retry_interval_s=self.settings.load_retry_interval_micros / 1e6,
        )
        self._batching = batching_parameters(self.settings)
        self._trusted_key = _trusted_key(self.settings)
        self._credentials = grpc_credentials(self.settings.ssl_config_file)
        monitoring = self.settings.monitoring_config_file
        self._metrics_path = read_metrics_path(Path(monitoring)) if monitoring else None
        self.metrics = Metrics()
        pixels = PixelLimits(
            max_image_pixels=self.settings.max_image_pixels,
            max_request_pixels=self.settings.max_request_pixels,
        )
        inference = Inference(self.manager, Scheduler(self._batching, pixels))
        budget = RequestBudget(self.settings.max_request_bytes_in_flight)
        self._api = Api(inference, self.metrics, self._request_log, budget)
        self._grpc: GrpcServer | None = None
        self._rest: RestServer | None = None
        self._taking_over = threading.Lock()
        self._reported = ""  # what was logged last of the model config file
        self._store = ModelStore(Home.at(self.settings.root or None).models)
        self._discovered: dict[str, ModelConfig] = {}  # the models below the root
        self._versions: dict[str, list[ModelVersion]] = {}  # and their versions, of the last look
        self._unreadable: set[str] = set()  # those whose ledger cannot be read

    @property
    def grpc_port(self) -> int:
        """The gRPC port, once started."""
        return self._grpc.port if self._grpc else -1

    @property
    def rest_port(self) -> int:
        """The REST port, once started; -1 where REST is off."""
        return self._rest.port if self._rest else -1

    def start(self) -> None:
        """Load the models, then open the ports.

        Raises:
            StatusError: A configured model cannot be loaded, or a port is taken.
            ModelConfigFileError: The model config file cannot be read.
        """
        self.manager.start()
        try:
            if self.settings.serves_root:
                self.manager.look_now()
            else:
                self.manager.configure(self._configured() or {})
            self._grpc = GrpcServer(self._api, self.settings, self._credentials)
            if self.settings.rest_api_port >= 0:
                rest = RestServer(self._api, self.settings, self._metrics_path)
                rest.start()
                self._rest = rest
            self._grpc.start()
        except BaseException:
            self.stop()
            raise
        if self.settings.model_config_file_poll_wait_seconds > 0:
            threading.Thread(target=self._poll_config_file, name="model-config", daemon=True).start()

    def stop(self) -> None:
        """Say NOT_SERVING, then take no new requests, and let those in flight finish."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._grpc:
            self._grpc.say_not_serving()
            if self._rest:
                self._rest.say_not_serving()
            time.sleep(self.settings.lame_duck_s)
            is_drained = self._grpc.stop(self.settings.drain_s)
            if self._rest:
                self._rest.stop(self.settings.drain_s)
            is_drained.wait()
            self._grpc.close()
        self.manager.stop()
        if self._request_log:
            self._request_log.close()

    def reload(self) -> None:
        """Read the model config file, if there is one, and look through the base paths now.

        What is wrong with the file is logged, and what is served stays.
        """
        self._reported = ""
        if self.settings.model_config_file:
            self._take_config_file_over()
        self.manager.look_now()
        log.info("configuration reloaded; serving: %s", self.manager.serving())

    def __enter__(self) -> "ModelServer":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _load(self, folder: Path, model: str, version: int) -> Servable:
        check_version(folder, self._trusted_key)
        servable = load(
            folder,
            model,
            version,
            tags=self.settings.saved_model_tags.split(","),
            prefers_tflite=self.settings.prefer_tflite_model,
            mixed_precision=self.settings.mixed_precision,
            choose=by_cost(folder, shares_runs=self._batching.max_batch_size > 1),
        )
        if self.settings.enable_batching is None and not self.settings.batching_parameters_file:
            keep_dependent_rows_apart(servable, unless_shown=self.settings.serves_root)
        if self.settings.enable_model_warmup:
            warm_up(
                servable,
                iterations=self.settings.num_request_iterations_for_warmup,
                batch_sizes=self._batching.usual_sizes,
            )
        attach_index(servable, self._base_path(folder, model))
        return servable

    def _base_path(self, folder: Path, model: str) -> str:
        """Return the folder of a model's versions, where what was added to its index since lies, too."""
        settings = self.settings
        if settings.serves_root:
            return self._store.base_path(model)
        if settings.model_base_path and not settings.model_config_file:
            return absolute(settings.model_base_path)
        return str(folder.parent)

    def _source(self, config: ModelConfig) -> VersionSource:
        """Return where the versions of a model come from."""
        if isinstance(config.base_path, Path):
            return FolderSource(config.base_path)
        models_dir, name = parent(config.base_path), name_of(config.base_path)
        folder = self.settings.model_cache_dir or str(Home(models_dir).machine / "cache" / "models")
        cache = ModelCache(Path(folder), self.settings.model_cache_max_bytes)
        if self.settings.serves_root:
            return PushedSource(name, lambda: self._versions.get(name, []), cache)
        store = ModelStore(models_dir)
        return PushedSource(name, lambda: store.versions(name), cache)

    def _discover(self) -> dict[str, ModelConfig]:
        """Return every model pushed under the root: its newest version, and those with a label.

        Raises:
            OSError: The folder of models was there, and is not now: its disk may come back.
            StoreAccessError: The URL of the root cannot be reached.
        """
        store = self._store
        if self._discovered and is_local(store.url) and not store.models_dir.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), store.url)
        found = {}
        listed = {} if is_local(store.url) else store.all_versions()  # few requests for all models
        for name in listed or store.names():
            try:
                versions = listed[name] if listed else store.versions(name)
                found[name] = _followed(store, name, versions)
                self._versions[name] = versions
                self._unreadable.discard(name)
            except Exception as error:  # noqa: BLE001 - one model's ledger is no reason to leave the others
                if name not in self._unreadable:
                    log.error("the labels of model %s stay as they were: %s", name, error)
                self._unreadable.add(name)
                found[name] = self._discovered.get(name, ModelConfig(name, _base_path(store, name)))
        self._discovered = found
        return found

    def _configured(self) -> dict[str, ModelConfig] | None:
        """Return the models that are named; None where the config file is empty."""
        file = self.settings.model_config_file
        if file:
            config = read_config_file(Path(file))
        else:
            config = model_server_config_pb2.ModelServerConfig()
            config.model_config_list.config.add(
                name=self.settings.model_name,
                base_path=absolute(self.settings.model_base_path),
                model_platform="tensorflow",
            )
        return checked_models(config)

    def _poll_config_file(self) -> None:
        """Take the file over at each look, as TensorFlow Serving does; say once what is wrong with it."""
        while not self._stopping.wait(self.settings.model_config_file_poll_wait_seconds):
            self._take_config_file_over()

    def _take_config_file_over(self) -> None:
        """Take the file over. An empty one is wrong: who writes one anew may empty it first."""
        with self._taking_over:
            try:
                models = self._configured()
                if models is None:
                    raise ModelConfigFileError(Path(self.settings.model_config_file), "it is empty")
                self.manager.configure(models, self.settings.model_config_file_poll_wait_seconds or None)
                self._reported = ""
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the next look may help
                if str(error) != self._reported:
                    log.error("the model config file is not taken over: %s", error)
                self._reported = str(error)


def _followed(store: ModelStore, name: str, versions: list[ModelVersion]) -> ModelConfig:
    """Return a pushed model as it is to be served: its newest version, and those with a label.

    The ledger decides what is withdrawn, not the folders: a roll-back may not have moved them yet.
    """
    serving = [version for version in versions if not version.is_withdrawn]
    labels = {label: version.version for version in serving for label in version.labels}
    wanted = (*(version.version for version in serving[-1:]), *labels.values())
    return ModelConfig(name, _base_path(store, name), SpecificVersions(wanted), labels)


def _base_path(store: ModelStore, name: str) -> Path | str:
    base_path = store.base_path(name)
    return Path(base_path) if is_local(base_path) else base_path


def _trusted_key(settings: ServerSettings) -> str:
    """Return the key that must have signed what is loaded; empty where no signature is asked for.

    Raises:
        SettingsError: There is no key.
        SigningKeyError: It cannot be used.
        MissingExtraError: The extra `signing` is not installed.
    """
    if not settings.require_signature:
        return ""
    key = public_key(settings.signature_public_key)
    if not key:
        raise SettingsError(
            "<require_signature> needs a key to trust: give <signature_public_key>, or set "
            f"${PUBLIC_KEY_VARIABLE} to a PEM file or its text"
        )
    check_public_key(key)
    return key


def batching_parameters(settings: ServerSettings) -> BatchingParameters:
    """Return how requests share runs: by default on as many runners as there are usable cores.

    Raises:
        ConfigFileError: The batching parameters file is wrong.
    """
    defaults = BatchingParameters(
        max_batch_size=32 if settings.is_batching else 1,
        num_batch_threads=usable_threads(),
        max_queued=settings.max_concurrent_requests,
    )
    if settings.batching_parameters_file and settings.is_batching:
        return read_batching_parameters(Path(settings.batching_parameters_file), defaults)
    return defaults


def _request_log(settings: ServerSettings) -> RequestLog | None:
    if not settings.request_log_dir:
        return None
    return RequestLog(
        Path(settings.request_log_dir),
        sampling_rate=settings.request_log_sampling_rate,
        max_bytes=settings.request_log_max_bytes,
        never=settings.request_log_never,
    )
