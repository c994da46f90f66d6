"""The gRPC side: TensorFlow Serving's services, health and reflection."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from mlplatform.serving.api import Api
from mlplatform.serving.model_config import checked_models
from mlplatform.serving.reflection_pool import MODEL_SERVICE, PREDICTION_SERVICE, reflection_pool
from mlplatform.serving.settings import ServerSettings
from mlplatform.serving.status import Code, StatusError, invalid_argument
from mlplatform.serving.text_config import read_ssl_config

log = logging.getLogger(__name__)

MAX_ERROR_TEXT = 1024  # more would not pass as gRPC metadata
SERVICES = (PREDICTION_SERVICE, MODEL_SERVICE)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference and GetModelMetadata."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Answer a PredictRequest."""
        return _answer(context, lambda t: self._api.predict(request, "GRPC", t))

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Answer a ClassificationRequest."""
        return _answer(context, lambda t: self._api.classify(request, "GRPC", t))

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Answer a RegressionRequest."""
        return _answer(context, lambda t: self._api.regress(request, "GRPC", t))

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Answer a MultiInferenceRequest."""
        return _answer(context, lambda t: self._api.multi_inference(request, "GRPC", t))

    def GetModelMetadata(  # noqa: N802
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> Any:
        """Answer a GetModelMetadataRequest."""
        return _answer(context, lambda _: self._api.inference.metadata(request))


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def GetModelStatus(  # noqa: N802
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> Any:
        """Answer a GetModelStatusRequest."""
        return _answer(context, lambda _: self._api.inference.status(request))

    def HandleReloadConfigRequest(  # noqa: N802
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> Any:
        """Take a new configuration; answers when its new models are available."""
        return _answer(context, lambda timeout_s: self._reload(request, timeout_s))

    def _reload(self, request: model_management_pb2.ReloadConfigRequest, timeout_s: float | None) -> Any:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        models = checked_models(request.config)
        if models is not None:
            self._api.configure(models, timeout_s)
        return model_management_pb2.ReloadConfigResponse()


def _answer(context: grpc.ServicerContext, answer: Callable[[float | None], Any]) -> Any:
    timeout_s = context.time_remaining()
    try:
        if timeout_s is not None and timeout_s <= 0:
            raise StatusError(Code.DEADLINE_EXCEEDED, "Deadline exceeded before the request was read")
        return answer(timeout_s)
    except StatusError as error:
        context.abort(grpc.StatusCode[error.code.name], _limited(error.text))
    except Exception as error:
        log.exception("a request failed for a reason of the server")
        context.abort(grpc.StatusCode.INTERNAL, _limited(f"{type(error).__name__}: {error}"))


def _limited(text: str) -> str:
    suffix = "...TRUNCATED"
    return text if len(text) <= MAX_ERROR_TEXT else text[: MAX_ERROR_TEXT - len(suffix)] + suffix


class GrpcServer:
    """Listens for gRPC on a port, a unix socket, or both."""

    def __init__(self, api: Api, settings: ServerSettings) -> None:
        self.port = -1
        self._health = health.HealthServicer()
        self._pool = ThreadPoolExecutor(settings.grpc_max_threads, thread_name_prefix="grpc")
        self._server = grpc.server(
            self._pool,
            options=settings.channel_arguments(),
            maximum_concurrent_rpcs=settings.max_concurrent_requests,
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(api), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(api), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, pool=reflection_pool())
        self._listen(settings)

    def start(self) -> None:
        """Answer requests, and say so in the health service."""
        self._server.start()
        for name in ("", *SERVICES):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def say_not_serving(self) -> None:
        """Tell the health service's clients to go elsewhere; requests are still answered."""
        self._health.enter_graceful_shutdown()

    def stop(self, drain_s: float) -> None:
        """Take no new requests; return when those in flight are done, at most `drain_s` seconds later."""
        self._server.stop(drain_s).wait()
        self._pool.shutdown(wait=False)

    def _listen(self, settings: ServerSettings) -> None:
        credentials = _credentials(settings.ssl_config_file)
        if settings.port >= 0:
            address = f"{settings.host}:{settings.port}"
            try:
                if credentials is None:
                    self.port = self._server.add_insecure_port(address)
                else:
                    self.port = self._server.add_secure_port(address, credentials)
            except RuntimeError as error:
                raise StatusError(
                    Code.UNAVAILABLE, f"cannot listen for gRPC on {address}: {error}"
                ) from error
        if settings.grpc_socket_path:
            Path(settings.grpc_socket_path).unlink(missing_ok=True)
            self._server.add_insecure_port(f"unix:{settings.grpc_socket_path}")


def _credentials(file: str) -> grpc.ServerCredentials | None:
    if not file:
        return None
    config = read_ssl_config(Path(file))
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
