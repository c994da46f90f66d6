"""The model server: models, both protocols, and a clean stop."""

import logging
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from mlplatform.home import Home
from mlplatform.serving.api import Api
from mlplatform.serving.grpc_api import GrpcServer
from mlplatform.serving.inference import Inference
from mlplatform.serving.manager import ModelManager
from mlplatform.serving.metrics import Metrics
from mlplatform.serving.model_config import (
    ModelConfig,
    ModelConfigFileError,
    checked_models,
    read_config_file,
)
from mlplatform.serving.request_log import RequestLog
from mlplatform.serving.rest_api import RestServer
from mlplatform.serving.saved_model import load
from mlplatform.serving.scheduling import BatchingParameters, Scheduler
from mlplatform.serving.servable import Servable
from mlplatform.serving.settings import ServerSettings, cores
from mlplatform.serving.status import StatusError
from mlplatform.serving.text_config import read_batching_parameters, read_metrics_path
from mlplatform.serving.threads import limit_threads
from mlplatform.serving.warmup import warm_up

log = logging.getLogger(__name__)


class ModelServer:
    """A model server in this process, with TensorFlow Serving's interfaces.

    Used as a context manager it serves while the block runs::

        with ModelServer(model_base_path="/models/m", model_name="m", port=0, rest_api_port=0) as server:
            Client(f"127.0.0.1:{server.grpc_port}").predict("m", {"x": [1.0, 2.0]})

    Args:
        settings: The fields of `ServerSettings`, as keyword arguments.
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
            allows_labels_for_unavailable=self.settings.allow_version_labels_for_unavailable_models,
        )
        self.metrics = Metrics()
        scheduler = Scheduler(_batching_parameters(self.settings))
        self._api = Api(Inference(self.manager, scheduler), self.metrics, self._request_log)
        self._grpc: GrpcServer | None = None
        self._rest: RestServer | None = None
        self._config_text = ""

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
                self.manager.configure(self._configured())
            self._grpc = GrpcServer(self._api, self.settings)
            if self.settings.rest_api_port >= 0:
                monitoring = self.settings.monitoring_config_file
                metrics_path = read_metrics_path(Path(monitoring)) if monitoring else None
                rest = RestServer(self._api, self.settings, metrics_path)
                rest.start()
                self._rest = rest
            self._grpc.start()
        except BaseException:
            self.stop()
            raise
        if self.settings.model_config_file_poll_wait_seconds > 0:
            threading.Thread(target=self._poll_config_file, name="model-config", daemon=True).start()

    def stop(self) -> None:
        """Say NOT_SERVING, take no new requests, let those in flight finish, and free the models."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._grpc:
            self._grpc.say_not_serving()
            time.sleep(self.settings.lame_duck_s)
        deadline = time.monotonic() + self.settings.drain_s
        if self._rest:
            self._rest.stop(self.settings.drain_s)
        if self._grpc:
            self._grpc.stop(max(0.0, deadline - time.monotonic()))
        self.manager.stop()
        if self._request_log:
            self._request_log.close()

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
        servable = load(
            folder,
            model,
            version,
            tags=self.settings.saved_model_tags.split(","),
            prefers_tflite=self.settings.prefer_tflite_model,
        )
        if self.settings.enable_model_warmup:
            warm_up(servable, iterations=self.settings.num_request_iterations_for_warmup)
        return servable

    def _discover(self) -> dict[str, ModelConfig]:
        """Return every model that was pushed under the root folder, with the labels that it has there."""
        from mlplatform.registry import ModelStore

        models_dir = Home.at(self.settings.root or None).models
        if not models_dir.is_dir():
            return {}
        found = {}
        for base_path in sorted(models_dir.iterdir()):
            if not base_path.is_dir() or base_path.name.startswith("."):
                continue
            labels = {
                label: version.version
                for version in ModelStore(models_dir).versions(base_path.name)
                for label in version.labels
                if not version.is_withdrawn
            }
            found[base_path.name] = ModelConfig(base_path.name, base_path, labels=labels)
        return found

    def _configured(self) -> dict[str, ModelConfig]:
        file = self.settings.model_config_file
        if file:
            config = read_config_file(Path(file))
            self._config_text = text_format.MessageToString(config)
        else:
            config = model_server_config_pb2.ModelServerConfig()
            config.model_config_list.config.add(
                name=self.settings.model_name,
                base_path=str(Path(self.settings.model_base_path).absolute()),
                model_platform="tensorflow",
            )
        return checked_models(config) or {}

    def _poll_config_file(self) -> None:
        while not self._stopping.wait(self.settings.model_config_file_poll_wait_seconds):
            before = self._config_text
            try:
                models = self._configured()
                if self._config_text != before:
                    self.manager.configure(models)
            except (ModelConfigFileError, StatusError) as error:
                log.error("the model config file is not taken over: %s", error)


def _batching_parameters(settings: ServerSettings) -> BatchingParameters:
    defaults = BatchingParameters(
        max_batch_size=32 if settings.is_batching else 1,
        num_batch_threads=cores(),
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
