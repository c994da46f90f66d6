"""HTTP connections: not half open for ever, errors short and in JSON; and the names that are answered."""

import asyncio
import errno
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from aiohttp import web

from mlplatform.serving import rest_json
from mlplatform.serving.status import Code, StatusError, invalid_argument

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75.0
_OPTIONS: dict[str, Any] = {"access_log": None, "keepalive_timeout": KEEP_ALIVE_S, "auto_decompress": False}
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BETWEEN_REPORTS_S = 60.0


class Connection(web.RequestHandler):
    """One connection: each request's line and headers arrive in time, or it is closed."""

    __slots__ = ("_header_timeout_s", "_header_timer")

    def __init__(self, server: web.Server, header_timeout_s: float, **options: Any) -> None:
        super().__init__(server, **options)
        self._header_timeout_s = header_timeout_s
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect the first request."""
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes: of a request that is being answered, or of the next one's headers."""
        if self._header_timer is None and self._current_request is None:
            self._expect_headers()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the timer."""
        self.headers_arrived()
        super().connection_lost(exc)

    def headers_arrived(self) -> None:
        """A request begins to be answered."""
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP request in JSON; a caller's mistake is no error of the server's log."""
        self.headers_arrived()
        log.log(
            logging.ERROR if status >= 500 else logging.DEBUG,
            "cannot answer an HTTP request",
            exc_info=exc,
        )
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is sent already")
        first_line = (message or "").strip().partition("\n")[0]
        error = (
            invalid_argument(f"no HTTP request: {first_line}")
            if status < 500
            else StatusError(Code.INTERNAL, type(exc).__name__)
        )
        response = web.Response(
            status=status, body=rest_json.error_answer(error), content_type="application/json"
        )
        response.force_close()
        return response

    def _expect_headers(self) -> None:
        loop = asyncio.get_running_loop()
        self._header_timer = loop.call_later(self._header_timeout_s, self.force_close)


class HttpServer(web.Server):
    """Makes the connections of a listening socket."""

    def __init__(
        self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], header_timeout_s: float
    ) -> None:
        super().__init__(answer, **_OPTIONS)
        self._header_timeout_s = header_timeout_s

    def __call__(self) -> web.RequestHandler:
        """Return the handler of a new connection."""
        loop = asyncio.get_running_loop()
        return Connection(self, self._header_timeout_s, loop=loop, **_OPTIONS)


class LoopErrors:
    """What goes wrong in an event loop, in the log: a lack of descriptors or memory as one line a minute.

    The loop reports it for each connection that it tries to accept, with a traceback.
    """

    def __init__(self) -> None:
        self._next_report = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle what the loop reports."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _OUT_OF_RESOURCES:
            loop.default_exception_handler(context)
            return
        if time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + _BETWEEN_REPORTS_S
            log.error(
                "REST connections cannot be accepted: %s; raise the limit of open files (ulimit -n), or let "
                "fewer connections in",
                error.strerror,
            )


def is_allowed_host(header: str, listens_on: str, allowed: Collection[str]) -> bool:
    """Say whether a request's `Host` is a name that this server answers to.

    A page of any site can have its own name resolve to loopback, and then ask a server there from within the
    user's browser (DNS rebinding); such requests carry the site's name. Addresses cannot be rebound.

    Args:
        header: The `Host` header; empty where a client sent none, as no browser does.
        listens_on: The address that the server listens on.
        allowed: Names that are allowed, `*` for any. Without one, any name is where the server listens
            beyond loopback.
    """
    host = header.rpartition("]")[0].removeprefix("[") if header.startswith("[") else header.partition(":")[0]
    host = host.lower().rstrip(".")
    if not host or host == "localhost" or host.endswith(".localhost") or _address(host) is not None:
        return True
    if allowed:
        return "*" in allowed or host in {name.lower().rstrip(".") for name in allowed}
    address = _address(listens_on)
    return listens_on != "localhost" and (address is None or not address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
