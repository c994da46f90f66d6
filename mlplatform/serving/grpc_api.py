"""The gRPC side: TensorFlow Serving's services, health and reflection."""

import logging
import stat
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from mlplatform.serving.api import Api
from mlplatform.serving.compressed import inflated_message
from mlplatform.serving.model_config import checked_models
from mlplatform.serving.reflection_pool import MODEL_SERVICE, PREDICTION_SERVICE, reflection_pool
from mlplatform.serving.request_size import message_size
from mlplatform.serving.settings import ServerSettings, host_and_port
from mlplatform.serving.status import Code, StatusError, invalid_argument, limited
from mlplatform.serving.text_config import read_ssl_config
from mlplatform.serving.wire import PARSE_ERRORS

log = logging.getLogger(__name__)

NO_DEADLINE_S = 365 * 24 * 3600.0  # grpc gives centuries where the caller set none
_MAX_OF_OTHERS = 1 << 16  # bytes of an inflated message of health or reflection: they hold a name
SERVICES = (PREDICTION_SERVICE, MODEL_SERVICE)

Behaviour = Callable[[bytes, grpc.ServicerContext], Any]


class PredictionService:
    """Predict, Classify, Regress, MultiInference and GetModelMetadata.

    Args:
        api: What answers.
        settings: What a request may take of time and memory.
    """

    def __init__(self, api: Api, settings: ServerSettings) -> None:
        self._api = api
        self._timeout_s = settings.grpc_timeout_in_ms / 1000
        self._max_bytes = settings.max_request_bytes

    def behaviours(self) -> dict[str, Behaviour]:
        """Return what answers the messages of each method."""
        kinds: dict[str, Any] = {
            "Predict": predict_pb2.PredictRequest,
            "Classify": classification_pb2.ClassificationRequest,
            "Regress": regression_pb2.RegressionRequest,
            "MultiInference": inference_pb2.MultiInferenceRequest,
        }
        infer = {
            method: _behaviour(kind, self._api, self._max_bytes, partial(self._infer, method))
            for method, kind in kinds.items()
        }
        metadata = _behaviour(
            get_model_metadata_pb2.GetModelMetadataRequest,
            self._api,
            self._max_bytes,
            lambda request, _: self._api.inference.metadata(request),
        )
        return {**infer, "GetModelMetadata": metadata}

    def _infer(self, method: str, request: Any, timeout_s: float | None) -> Any:
        if method == "MultiInference":
            model = request.tasks[0].model_spec.name if request.tasks else ""
        else:
            model = request.model_spec.name
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        return self._api.answer(method, model, "GRPC", lambda: request, wait_s)


class ModelService:
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, api: Api, settings: ServerSettings) -> None:
        self._api = api
        self._max_bytes = settings.max_request_bytes

    def behaviours(self) -> dict[str, Behaviour]:
        """Return what answers the messages of each method."""
        return {
            "GetModelStatus": _behaviour(
                get_model_status_pb2.GetModelStatusRequest,
                self._api,
                self._max_bytes,
                lambda request, _: self._api.inference.status(request),
            ),
            "HandleReloadConfigRequest": _behaviour(
                model_management_pb2.ReloadConfigRequest, self._api, self._max_bytes, self._reload
            ),
        }

    def _reload(self, request: model_management_pb2.ReloadConfigRequest, timeout_s: float | None) -> Any:
        """Take a new configuration; answers when its new models are available."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        models = checked_models(request.config, self._api.inference.manager.serving())
        if models is not None:
            self._api.configure(models, timeout_s)
        return model_management_pb2.ReloadConfigResponse()


def _behaviour(kind: Any, api: Api, max_bytes: int, answer: Callable[[Any, float | None], Any]) -> Behaviour:
    """Return what answers serialized messages of a kind, counted before they are inflated and parsed."""

    def behaviour(data: bytes, context: grpc.ServicerContext) -> Any:
        timeout_s = context.time_remaining()
        if timeout_s is not None and timeout_s > NO_DEADLINE_S:
            timeout_s = None
        try:
            if timeout_s is not None and timeout_s <= 0:
                raise StatusError(Code.DEADLINE_EXCEEDED, "Deadline exceeded before the request was read")
            with api.budget.reservation() as held:
                data = inflated_message(data, max_bytes, held)
                size = message_size(data, kind.DESCRIPTOR, held.size + held.left)
                held.add(size - held.size)
                return answer(_parsed(kind, data), timeout_s)
        except StatusError as error:
            context.abort(grpc.StatusCode[error.code.name], limited(error.text))
        except Exception as error:
            log.exception("a request failed for a reason of the server")
            context.abort(grpc.StatusCode.INTERNAL, limited(f"{type(error).__name__}: {error}"))

    return behaviour


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except PARSE_ERRORS as error:  # the code that gRPC itself gives such a message
        text = f"the message is no {kind.DESCRIPTOR.full_name}: {error}"
        raise StatusError(Code.INTERNAL, text) from error


def _handler(service: str, behaviours: Mapping[str, Behaviour]) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        service,
        {
            method: grpc.unary_unary_rpc_method_handler(
                behaviour, response_serializer=lambda message: message.SerializeToString()
            )
            for method, behaviour in behaviours.items()
        },
    )


class _Inflating(grpc.ServerInterceptor):
    """Inflates the messages of gRPC's own services, health and reflection, before they parse them."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = continuation(handler_call_details)
        parse = getattr(handler, "request_deserializer", None)
        if parse is None:  # ours, which count what they inflate themselves
            return handler

        def inflate(data: bytes) -> Any:
            with self._api.budget.reservation() as held:
                return parse(inflated_message(data, _MAX_OF_OTHERS, held))

        return handler._replace(request_deserializer=inflate)


class GrpcServer:
    """Listens for gRPC on a port, a unix socket, or both."""

    def __init__(
        self, api: Api, settings: ServerSettings, credentials: grpc.ServerCredentials | None
    ) -> None:
        self.port = -1
        self._socket = Path(settings.grpc_socket_path) if settings.grpc_socket_path else None
        self._health = health.HealthServicer()
        self._pool = ThreadPoolExecutor(settings.grpc_max_threads, thread_name_prefix="grpc")
        self._side_pools = [
            ThreadPoolExecutor(2, thread_name_prefix=f"grpc-{n}") for n in ("about", "reflect")
        ]
        self._server = grpc.server(
            self._pool,
            options=settings.channel_arguments(),
            interceptors=[_Inflating(api)],
            maximum_concurrent_rpcs=settings.max_concurrent_requests,
        )
        predictions = PredictionService(api, settings).behaviours()
        models = ModelService(api, settings).behaviours()
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflecting = reflection.ReflectionServicer(names, reflection_pool())
        about, reflect = self._side_pools
        predictions["GetModelMetadata"] = _in_threads(about, predictions["GetModelMetadata"])
        models["GetModelStatus"] = _in_threads(about, models["GetModelStatus"])
        _give_threads(about, self._health, "Check")
        _give_threads(reflect, reflecting, "ServerReflectionInfo")
        self._server.add_generic_rpc_handlers(
            (_handler(PREDICTION_SERVICE, predictions), _handler(MODEL_SERVICE, models))
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, self._server)
        self._listen(settings, credentials)

    def start(self) -> None:
        """Answer requests, and say so in the health service."""
        self._server.start()
        for name in ("", *SERVICES):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def say_not_serving(self) -> None:
        """Tell the health service's clients to go elsewhere; requests are still answered."""
        self._health.enter_graceful_shutdown()

    def stop(self, drain_s: float) -> threading.Event:
        """Take no new requests.

        Returns:
            Set when those in flight are done, or cut after `drain_s` seconds.
        """
        is_drained: threading.Event = self._server.stop(drain_s)
        return is_drained

    def close(self) -> None:
        """Let the threads go, once stopped."""
        for pool in (self._pool, *self._side_pools):
            pool.shutdown(wait=False)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    def _listen(self, settings: ServerSettings, credentials: grpc.ServerCredentials | None) -> None:
        if settings.port >= 0:
            self.port = self._bind(host_and_port(settings.host, settings.port), credentials)
        if self._socket is not None:
            _make_way(self._socket)
            self._bind(f"unix:{self._socket}", credentials)

    def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise StatusError(Code.UNAVAILABLE, f"cannot listen for gRPC on {address}: {error}") from error


def _give_threads(pool: ThreadPoolExecutor, servicer: Any, method: str) -> None:
    setattr(servicer, method, _in_threads(pool, getattr(servicer, method)))


def _in_threads(pool: ThreadPoolExecutor, behaviour: Any) -> Any:
    """Have requests answered in threads of their own, so that they are while every other thread computes."""
    behaviour = partial(behaviour)
    behaviour.experimental_thread_pool = pool
    return behaviour


def _make_way(socket: Path) -> None:
    """Remove the socket of a server that is gone; anything else is left alone."""
    try:
        mode = socket.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise StatusError(
            Code.FAILED_PRECONDITION,
            f"cannot listen for gRPC on {socket} (grpc_socket_path): a file that is no socket lies there. "
            "Name another path, or remove it",
        )
    socket.unlink()


def grpc_credentials(file: str) -> grpc.ServerCredentials | None:
    """Return what an SSLConfig file says; None without one.

    Raises:
        ConfigFileError: It cannot be read, or does not hold a key and a certificate that fit.
    """
    if not file:
        return None
    config = read_ssl_config(Path(file))
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
