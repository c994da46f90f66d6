"""The web server of a live demo: who may ask, how much may be sent, and an answer from a pool of threads.

The rules are the dashboard's (`mlplatform.ui.access`), and a form may be sent from a page of this server.
Nothing that is sent is kept, but for the last photos until the page has fetched what the model saw of them.
"""

import asyncio
import gzip
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import parse_qs, unquote_to_bytes, urlencode

from aiohttp import BodyPartReader, web

from mlplatform.demo.asking import Asking
from mlplatform.demo.facts import read_facts
from mlplatform.demo.model_server import served
from mlplatform.demo.pages import DemoPages, Posted
from mlplatform.demo.photos_seen import MAX_BYTES
from mlplatform.home import Home
from mlplatform.registry import ModelStore
from mlplatform.serving.client import Client
from mlplatform.ui.access import TOKEN, Access, Refusal, access_for
from mlplatform.ui.process import answer_until_stopped, open_listener
from mlplatform.ui.server import HEADERS, Answer

log = logging.getLogger(__name__)

_THREADS = 8
_MOST_WAITING = 16  # forms that are read or answered at a time: of photos, what they take in memory
_MAX_TARGET = 4096  # characters of a path with its query
_MAX_PARAMETERS = 40
_MAX_PHOTOS = 8
_MAX_FORM = 2 << 20  # bytes of a form without photos
_MAX_FIELDS = 400
_SEND_S = 60.0  # seconds that a form may take to be sent
_COMPRESSED_FROM = 1000  # bytes


class _BadRequestError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.refusal = Refusal(status, text)


class DemoServer:
    """Listens, and answers from a pool of threads.

    Args:
        pages: What is shown.
        access: Who may ask; its `port` must be the one that is listened on.
    """

    def __init__(self, pages: DemoPages, access: Access) -> None:
        self._pages, self._access = pages, access
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="demo")
        self._forms = 0  # that are read or answered

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            return self._sent(request, await self._answered(request))
        except _BadRequestError as error:
            return self._sent(request, self._pages.refused(error.refusal))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("a page could not be made: %s", request.path)
            return self._sent(request, self._pages.failed())

    async def _answered(self, request: web.BaseRequest) -> Answer:
        path, _, text = request.raw_path.partition("?")
        try:
            query = parse_qs(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS, errors="strict")
            path = unquote_to_bytes(path).decode("utf-8")
        except ValueError as error:
            raise _BadRequestError(400, "the address is not UTF-8, or has too many parameters") from error
        is_form = request.method == "POST"
        in_address = self._access.token and not is_form and query.pop(TOKEN, [""])[-1]
        given = in_address or request.cookies.get(self._access.cookie, "")
        refusal = _refusal(self._access, request, given)
        if refusal is not None:
            return self._pages.refused(refusal)
        if len(request.raw_path) > _MAX_TARGET:
            raise _BadRequestError(414, "the address is too long")
        if in_address:  # out of the address bar, the history and every `Referer`
            return self._with_cookie(path, query)
        if not is_form:
            return await self._in_thread(path, query, None)
        if self._forms >= _MOST_WAITING:
            raise _BadRequestError(429, "others are being answered: send it again in a moment")
        self._forms += 1
        try:
            try:
                posted = await asyncio.wait_for(_posted(request), _SEND_S)
            except asyncio.TimeoutError as error:  # another class than TimeoutError before Python 3.11
                raise _BadRequestError(408, "the form did not come in time") from error
            return await self._in_thread(path, query, posted)
        finally:
            self._forms -= 1

    async def _in_thread(self, path: str, query: dict[str, list[str]], posted: Posted | None) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._pages.answer, path, query, posted)

    def close(self) -> None:
        """End the threads, once they are done."""
        self._pool.shutdown()

    def _with_cookie(self, path: str, query: dict[str, list[str]]) -> Answer:
        target = "/" + path.lstrip("/\\") if path in ("/", "/ask") else "/"
        target += f"?{urlencode(query, doseq=True)}" if query else ""
        cookie = f"{self._access.cookie}={self._access.token}; HttpOnly; Path=/; SameSite=Strict"
        return Answer(303, b"", headers=(("Location", target), ("Set-Cookie", cookie)))

    def _sent(self, request: web.BaseRequest, answer: Answer) -> web.Response:
        headers = {**HEADERS, "Content-Security-Policy": answer.policy, "Content-Type": answer.type}
        headers |= dict(answer.headers)
        body = answer.body
        is_picture = answer.type in ("image/jpeg", "image/png")
        # Answers are not to wait.
        may_be = not is_picture and request.path != "/ask" and len(body) >= _COMPRESSED_FROM
        if may_be and "gzip" in request.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1, mtime=0)
            headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return web.Response(status=answer.status, body=body, headers=headers)


def _refusal(access: Access, request: web.BaseRequest, given: str) -> Refusal | None:
    """Return why a request is not answered; None where it is. A form must come from a page of this server."""
    if request.method == "POST":
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return Refusal(403, "requests of other sites are not answered")
        return access.refusal("GET", request.headers, given)
    if request.method not in ("GET", "HEAD"):
        return Refusal(405, "only GET, HEAD and POST are answered")
    return access.refusal(request.method, request.headers, given)


async def _posted(request: web.BaseRequest) -> Posted:
    """Read what a form sends, no more than it may send."""
    if request.content_type == "application/x-www-form-urlencoded":
        body = b""
        while part := await request.content.read(1 << 16):
            body += part
            if len(body) > _MAX_FORM:
                raise _BadRequestError(413, f"a form has at most {_MAX_FORM:,} bytes")
        try:
            found = parse_qs(
                body.decode("utf-8"), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"
            )
        except ValueError as error:
            raise _BadRequestError(400, "the form is not UTF-8, or has too many fields") from error
        return Posted({name: values[-1] for name, values in found.items()})
    if request.content_type == "multipart/form-data":
        try:
            return await _parts(request)
        except (ValueError, AssertionError, RuntimeError, LookupError, EOFError) as error:
            raise _BadRequestError(400, "the form is not multipart/form-data as browsers send it") from error
    raise _BadRequestError(415, "a form is taken, and nothing else")


async def _parts(request: web.BaseRequest) -> Posted:
    fields: dict[str, str] = {}
    photos: list[tuple[str, bytes]] = []
    size = 0
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader):
            raise _BadRequestError(400, "a form has no parts within parts")
        is_file = part.filename is not None
        data, most = b"", MAX_BYTES if is_file else _MAX_FORM
        while chunk := await part.read_chunk(1 << 16):
            data += chunk
            if len(data) > most:
                raise _BadRequestError(413, f"a {'photo' if is_file else 'field'} has at most {most:,} bytes")
        size += len(data)
        if is_file:
            photos += [((part.filename or "")[:200], data)] if data else []
        else:
            fields[(part.name or "")[:200]] = data.decode("utf-8")
        if len(photos) > _MAX_PHOTOS or len(fields) > _MAX_FIELDS:
            raise _BadRequestError(413, f"at most {_MAX_PHOTOS} photos are taken at a time")
    return Posted(fields, photos)


def show_until_stopped(
    home: Home,
    reference: str,
    host: str,
    port: int,
    *,
    beside: str = "",
    allowed: tuple[str, ...] = (),
    token: str = "",
    say: Callable[[str], object],
) -> None:
    """Show a pushed version until the process is asked to stop.

    Args:
        home: The root.
        reference: NAME, or NAME@VERSION.
        host: The address to listen on.
        port: The port; 0: any free one.
        beside: The version to ask as well, a number or label; empty for the one labelled `stable`.
        allowed: Names that people use for this server, beside loopback's own.
        token: What must be known; empty makes one where the address is not loopback.
        say: Takes what is to be printed.

    Raises:
        ModelNotFoundError: There is no such model.
        ModelVersionNotFoundError: It has no such version.
        WithdrawnVersionError: It was rolled back.
        OpenAddressError: It is reached from other machines, and no name is allowed.
        PortTakenError: It cannot listen there.
        ModelServerEndedError: The model cannot be loaded.
    """
    access_for(host, port, allowed=allowed, token=token)  # before anything is opened
    shown = read_facts(home, reference)
    chosen = beside or next((str(v) for v, labels in shown.others if "stable" in labels), "")
    other = read_facts(home, f"{shown.model}@{chosen}") if chosen else None
    if other is not None and other.version == shown.version:
        other = None
    listener = open_listener(host, port)
    port = listener.getsockname()[1]
    access = access_for(host, port, allowed=allowed, token=token)
    name = allowed[0] if allowed else f"[{host}]" if ":" in host else host
    query = f"?{urlencode({TOKEN: access.token})}" if access.token else ""
    versions = [facts.version for facts in (shown, other) if facts is not None]
    with ExitStack() as open_:
        open_.callback(listener.close)
        base_path = ModelStore(home.models).base_path(shown.model)
        say(f"loading {shown.name}{f' and {other.name}' if other else ''} ...")
        model_server = open_.enter_context(served(shown.model, base_path, versions))
        client = open_.enter_context(Client(model_server.address, timeout_s=60.0))
        asking = Asking(client, shown, other)
        open_.callback(asking.close)
        server = DemoServer(DemoPages(asking, model_server.check), access)
        open_.callback(server.close)
        address = f"http://{name}:{port}/{query}"
        asyncio.run(answer_until_stopped(server, listener, lambda: say(address)))
