"""The REST side, in its own thread: one event loop that reads and writes, and a pool that computes."""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from mlplatform.serving import rest_json
from mlplatform.serving.api import AnsweredPredict, Api
from mlplatform.serving.compressed import inflated, too_large
from mlplatform.serving.http_connection import Connection, HttpServer, LoopErrors, is_allowed_host
from mlplatform.serving.inference import SIGNATURE_FIELD
from mlplatform.serving.json_values import parse_object
from mlplatform.serving.request_size import Reservation, json_size
from mlplatform.serving.settings import ServerSettings, host_and_port
from mlplatform.serving.status import HTTP_STATUS, Code, StatusError, TooLargeError, invalid_argument
from mlplatform.serving.version_folders import MAX_VERSION

log = logging.getLogger(__name__)

_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_INFER = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_ABOUT = re.compile(
    _MODEL.replace(r"/(?P<name>[^/:]+)", r"(?:/(?P<name>[^/:]+))?") + r"(?:/(?P<what>metadata))?",
    re.IGNORECASE,
)
_ABOUT_THREADS = 2  # answer about models while all others compute
_LARGE_DOCUMENT = 1 << 20  # bytes
_MAX_VERSION_DIGITS = 1000  # leading zeros are allowed, but Python refuses to read very long numbers

_JSON = {"Content-Type": "application/json"}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


class RestHandler:
    """Answers one request: method, path and body in, JSON out.

    Args:
        api: What answers.
        max_bytes: Of a body, inflated.
    """

    def __init__(self, api: Api, max_bytes: int) -> None:
        self._api = api
        self._max_bytes = max_bytes
        # Python reads a large document in one go, in which nothing else runs: so one after the other.
        self._large_documents = threading.Lock()

    def answer(
        self, method: str, path: str, body: bytes, encoding: str, held: Reservation, deadline: float
    ) -> bytes:
        """Answer a request.

        Args:
            method: HTTP's.
            path: What was asked for.
            body: As it was sent.
            encoding: The value of `Content-Encoding`.
            held: Where the memory is counted that the request takes.
            deadline: A monotonic time.

        Raises:
            StatusError: It is malformed or cannot be answered.
        """
        timeout_s = deadline - time.monotonic()
        if timeout_s <= 0:  # nobody waits for the answer any more
            raise StatusError(Code.DEADLINE_EXCEEDED, "Deadline exceeded while waiting for a free thread")
        pattern = {"POST": _INFER, "GET": _ABOUT}.get(method)
        found = pattern.fullmatch(path) if pattern else None
        if found is None:
            raise invalid_argument(f"Malformed request: {method} {path}")
        asked = _Asked.of(found)
        if method == "GET":
            return self._about(asked, (found["what"] or "").lower())
        answers: dict[str, Callable[[_Asked, bytes, float], bytes]] = {
            "predict": self._predict,
            "classify": self._classify,
            "regress": self._regress,
        }
        body = inflated(body, encoding, self._max_bytes, held)
        held.add(json_size(body) - len(body))
        return answers[found["method"].lower()](asked, body, deadline)

    @contextmanager
    def _reading(self, body: bytes, deadline: float) -> Iterator[None]:
        if len(body) < _LARGE_DOCUMENT:
            yield
            return
        if not self._large_documents.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StatusError(Code.DEADLINE_EXCEEDED, "Deadline exceeded behind other large documents")
        try:
            yield
        finally:
            self._large_documents.release()

    def _predict(self, asked: "_Asked", body: bytes, deadline: float) -> bytes:
        def answer() -> tuple[AnsweredPredict, bytes]:
            manager = self._api.inference.manager
            with self._reading(body, deadline):
                document = parse_object(body)
                name = rest_json.signature_name(document)
            may_hold_bools = b"true" in body or b"false" in body
            with manager.servable(asked.name, asked.version, asked.label) as servable:
                signature = servable.signature(name, rest_json.signature_missing)
                with self._reading(body, deadline):
                    inputs, is_row = rest_json.predict_inputs(
                        document, signature, may_hold_bools=may_hold_bools
                    )
                signature.check_inputs(inputs)
                timeout_s = max(0.0, deadline - time.monotonic())
                outputs = self._api.inference.scheduler.run(signature, inputs, timeout_s)
                predicted = AnsweredPredict(servable, signature, inputs, outputs)
                return predicted, rest_json.predict_answer(outputs, is_row=is_row)

        return self._api.predict_arrays(asked.name, answer)

    def _classify(self, asked: "_Asked", body: bytes, deadline: float) -> bytes:
        def read() -> Any:
            with self._reading(body, deadline):
                return _on_examples(classification_pb2.ClassificationRequest(), asked, body)

        response = self._api.answer("Classify", asked.name, "REST", read, deadline - time.monotonic())
        return rest_json.classify_answer(response.result)

    def _regress(self, asked: "_Asked", body: bytes, deadline: float) -> bytes:
        def read() -> Any:
            with self._reading(body, deadline):
                return _on_examples(regression_pb2.RegressionRequest(), asked, body)

        response = self._api.answer("Regress", asked.name, "REST", read, deadline - time.monotonic())
        return rest_json.regress_answer(response.result)

    def _about(self, asked: "_Asked", what: str) -> bytes:
        if not asked.name:
            raise invalid_argument("Missing model name in request.")
        if what == "metadata":
            request = get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=asked.spec(), metadata_field=[SIGNATURE_FIELD]
            )
            return rest_json.metadata_answer(self._api.inference.metadata(request))
        status = get_model_status_pb2.GetModelStatusRequest(model_spec=asked.spec())
        return rest_json.status_answer(self._api.inference.status(status))


def _on_examples(request: Any, asked: "_Asked", body: bytes) -> Any:
    document = parse_object(body)
    request.model_spec.CopyFrom(asked.spec())
    request.model_spec.signature_name = rest_json.signature_name(document)
    request.input.CopyFrom(rest_json.examples_input(document))
    return request


@dataclass(frozen=True)
class _Asked:
    """The model that a path names."""

    name: str
    version: int | None
    label: str | None

    @classmethod
    def of(cls, found: "re.Match[str]") -> "_Asked":
        version = found["version"]
        if version is not None and (len(version) > _MAX_VERSION_DIGITS or int(version) > MAX_VERSION):
            raise invalid_argument(f"Failed to convert version: {version} to numeric.")
        label = found["label"]
        return cls(
            unquote(found["name"] or ""),
            int(version) if version is not None else None,
            unquote(label) if label is not None else None,
        )

    def spec(self) -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(name=self.name)
        if self.version is not None:
            spec.version.value = self.version
        if self.label is not None:
            spec.version_label = self.label
        return spec


class RestServer:
    """Listens for REST requests."""

    def __init__(self, api: Api, settings: ServerSettings, metrics_path: str | None) -> None:
        self.port = -1
        self._api = api
        self._settings = settings
        self._metrics_path = metrics_path
        self._handler = RestHandler(api, settings.max_request_bytes)
        self._headers = {**_JSON, **(_CORS if settings.rest_api_enable_cors_support else {})}
        self._timeout_s = settings.rest_api_timeout_in_ms / 1000
        self._in_flight = 0  # requests that are read or computed, whether or not their caller still waits
        self._is_closing = False
        self._pool = ThreadPoolExecutor(settings.rest_api_num_threads, thread_name_prefix="rest")
        self._about_pool = ThreadPoolExecutor(_ABOUT_THREADS, thread_name_prefix="rest-about")
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(LoopErrors())
        self._server: HttpServer | None = None
        self._runner: web.ServerRunner | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest", daemon=True)

    def start(self) -> None:
        """Listen.

        Raises:
            StatusError: UNAVAILABLE: the port is taken.
        """
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        except OSError as error:
            self.stop(0.0)
            address = host_and_port(self._settings.host, self._settings.rest_api_port)
            text = f"cannot listen for REST on {address}: {error.strerror}"
            raise StatusError(Code.UNAVAILABLE, text) from error

    def say_not_serving(self) -> None:
        """Tell clients that keep connections open to go elsewhere; requests are still answered."""
        self._is_closing = True

    def stop(self, drain_s: float) -> None:
        """Take no new requests; return when those in flight are done, at most `drain_s` seconds later."""
        asyncio.run_coroutine_threadsafe(self._close(drain_s), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()
        self._pool.shutdown(wait=False)
        self._about_pool.shutdown(wait=False)

    async def _listen(self) -> None:
        self._server = HttpServer(self._serve, self._timeout_s)
        self._runner = web.ServerRunner(self._server)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, self._settings.host, self._settings.rest_api_port, backlog=512, reuse_address=True
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _close(self, drain_s: float) -> None:
        deadline = time.monotonic() + drain_s
        self._is_closing = True
        if self._runner is None or self._server is None:
            return
        for site in list(self._runner.sites):
            await site.stop()
        await asyncio.sleep(0)  # what was accepted is being read now
        self._server.pre_shutdown()  # idle connections close at once, the others with their answer
        while self._in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await self._server.shutdown(max(0.1, deadline - time.monotonic()))  # answers are written, or cut
        await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, Connection):
            request.protocol.headers_arrived()
        host = request.headers.get("Host", "")
        if not is_allowed_host(host, self._settings.host, self._settings.rest_api_allowed_hosts):
            text = f"requests for the host {host} are not answered: it is none of rest_api_allowed_hosts"
            return self._error(StatusError(Code.PERMISSION_DENIED, text), is_cut=True)
        path = request.raw_path.partition("?")[0]
        if request.method == "GET" and path == self._metrics_path:
            return web.Response(
                text=self._api.metrics.page(), headers={"Content-Type": "text/plain; version=0.0.4"}
            )
        if request.method == "OPTIONS" and self._settings.rest_api_enable_cors_support:
            return web.Response(headers=self._headers)
        if not path.lower().startswith("/v1/"):
            return self._error(
                StatusError(Code.NOT_FOUND, f"Not found: {path}; the API lies under /v1/models")
            )
        if self._in_flight >= self._settings.max_concurrent_requests:
            return self._error(
                StatusError(Code.RESOURCE_EXHAUSTED, f"{self._in_flight} requests are in flight already")
            )
        return await self._answer(request, path)

    async def _answer(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        deadline = time.monotonic() + self._timeout_s
        body, answer = None, None
        held = Reservation(self._api.budget)
        self._in_flight += 1
        try:
            body = await asyncio.wait_for(self._body(request, held), self._timeout_s)
            pool = self._about_pool if request.method == "GET" else self._pool
            encoding = request.headers.get("Content-Encoding", "")
            answer = self._loop.run_in_executor(
                pool, self._handler.answer, request.method, path, body, encoding, held, deadline
            )
            done = await asyncio.wait_for(asyncio.shield(answer), deadline - time.monotonic())
            return self._response(done)
        except StatusError as error:
            return self._error(error, is_cut=body is None)
        except asyncio.TimeoutError:
            text = f"not done in {self._timeout_s:g} s"
            return self._error(StatusError(Code.DEADLINE_EXCEEDED, text), is_cut=answer is None)
        except web.RequestPayloadError as error:
            request.content.feed_eof()  # or the server reads on, to the same error
            return self._error(invalid_argument(f"the body cannot be read: {error}"), is_cut=True)
        except ConnectionError:
            return self._error(StatusError(Code.CANCELLED, "the caller is gone"), is_cut=True)
        except (web.HTTPException, asyncio.CancelledError):
            raise
        except Exception as error:
            log.exception("a request failed for a reason of the server")
            return self._error(StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}"))
        finally:
            if answer is None:
                self._leave(held)
            else:  # a call that is not waited for any more keeps its place: it holds memory and a thread
                answer.add_done_callback(partial(self._leave, held))

    def _leave(self, held: Reservation, _: object = None) -> None:
        self._in_flight -= 1
        held.release()

    async def _body(self, request: web.BaseRequest, held: Reservation) -> bytes:
        """Read a body, and count its bytes."""
        limit = self._settings.max_request_bytes
        if (request.content_length or 0) > limit:
            raise too_large(limit)
        parts, size = [], 0
        async for part in request.content.iter_any():
            size += len(part)
            if size > limit:
                raise too_large(limit)
            held.add(len(part))
            parts.append(part)
        return b"".join(parts)

    def _response(self, body: bytes, status: int = 200, *, is_last: bool = False) -> web.Response:
        response = web.Response(status=status, body=body, headers=self._headers)
        if is_last or self._is_closing:
            response.force_close()
        return response

    def _error(self, error: StatusError, *, is_cut: bool = False) -> web.Response:
        """Answer with an error; `is_cut`: the rest of the body is not read, so the connection ends."""
        status = 413 if isinstance(error, TooLargeError) else HTTP_STATUS.get(error.code, 500)
        return self._response(rest_json.error_answer(error), status, is_last=is_cut)
