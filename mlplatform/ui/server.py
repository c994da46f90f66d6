"""The dashboard's server: finds the page, checks who asks, and answers as HTML or JSON. It only reads.

One page takes an answer, where that was allowed: whether a push is approved.

A page's work is done in a thread, so that one that reads much keeps no other waiting.
"""

import asyncio
import gzip
import json
import logging
import math
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlencode

import jinja2
from aiohttp import web
from markupsafe import Markup

from mlplatform.errors import MlplatformError, UsageError
from mlplatform.reports.graphs import draw_intervals, draw_line
from mlplatform.reports.lineage_page import lineage_graph, lineage_rows
from mlplatform.reports.page import visible
from mlplatform.reports.run_report import TONES, report_context
from mlplatform.ui import approval_pages, data_pages, model_pages, root_pages, run_pages
from mlplatform.ui.access import TOKEN, Access, Refusal
from mlplatform.ui.site import BadQueryError, Page, PageNotFoundError, Request, Site, link

log = logging.getLogger(__name__)

_THREADS = 4
_MAX_TARGET = 4096  # characters of a path with its query
_MAX_PARAMETERS = 40
_MAX_FORM = 16_384  # bytes
_FORM_S = 20.0
_COMPRESSED_FROM = 1000  # bytes
# What a page meets in a record whose values somebody replaced by others.
_OF_DAMAGE = (TypeError, ValueError, KeyError, AttributeError, RecursionError, jinja2.TemplateError)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# Reports hold styles and pictures of their own; whatever else is in them does nothing.
_REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Server": "mlplatform",
    "Cache-Control": "no-store",
}
_SHARED = ("layout", "lists", "events", "run_parts", "problem")  # templates that those of pages take in
PAGES: dict[tuple[str, ...], tuple[str, Page]] = {
    (): ("home", root_pages.home),
    ("runs",): ("runs", run_pages.runs),
    ("runs", "{run}"): ("run", run_pages.run),
    ("runs", "{run}", "nodes", "{node}"): ("node", run_pages.node),
    ("runs", "{run}", "approval"): ("approval", approval_pages.approval),
    ("runs", "{run}", "logs", "{node}"): ("log", run_pages.log),
    ("compare",): ("compare", run_pages.compare),
    ("datasets",): ("datasets", data_pages.datasets),
    ("datasets", "{dataset}"): ("dataset", data_pages.dataset),
    ("datasets", "{dataset}", "diff"): ("difference", data_pages.difference),
    ("datasets", "{dataset}", "record"): ("record", data_pages.record),
    ("datasets", "{dataset}", "versions", "{version}"): ("dataset_version", data_pages.version),
    ("models",): ("models", model_pages.models),
    ("models", "{model}"): ("model", model_pages.model),
    ("models", "{model}", "versions", "{version}"): ("model_version", model_pages.version),
    ("lineage",): ("lineage", root_pages.lineage),
    ("gates",): ("gates", root_pages.gates),
    ("disk",): ("disk", root_pages.disk),
}
FILES: dict[tuple[str, ...], tuple[str, str, Callable[[Site, Request], bytes]]] = {
    ("files", "logs", "{run}", "{node}"): ("text/plain; charset=utf-8", _POLICY, run_pages.log_file),
    ("files", "reports", "{run}", "{gate}"): (
        "text/html; charset=utf-8",
        _REPORT_POLICY,
        root_pages.report_file,
    ),
}


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    Attributes:
        status: The HTTP status.
        body: The body.
        type: Its media type.
        policy: Its content security policy.
        headers: Further headers.
    """

    status: int
    body: bytes
    type: str = "text/html; charset=utf-8"
    policy: str = _POLICY
    headers: tuple[tuple[str, str], ...] = ()


class Pages:
    """Answers the address of a page or file of a site; threads may share it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._templates = _templates()
        self._assets = {
            "style.css": (
                (files("mlplatform.reports") / "style.css").read_bytes()
                + (files("mlplatform.ui") / "templates" / "ui.css").read_bytes(),
                "text/css; charset=utf-8",
            ),
            "icon.svg": ((files("mlplatform.ui") / "templates" / "icon.svg").read_bytes(), "image/svg+xml"),
        }

    def prepare(self) -> None:
        """Do what the first request for a page would wait for: read runs and lineage, compile templates."""
        try:
            for page in ("/", "/gates"):
                self.answer(page)
            self._site.graph()
        except Exception:
            log.exception("the pages could not be prepared")
        for template in [*_SHARED, *(template for template, _ in PAGES.values())]:
            self._templates.get_template(f"{template}.html")

    def answer(self, target: str) -> Answer:
        """Answer a request for a path with its query, as they stand in the request's line."""
        wants_json = False
        try:
            parts, query = _parsed(target)
            wants_json = query.pop("format", [""])[-1] == "json"
            if parts and parts[-1].endswith(".json") and len(parts) == 1:
                parts, wants_json = (parts[0].removesuffix(".json"),), True
            if parts == ("index",):
                parts = ()
            return self._found(parts, query, wants_json, target)
        except MlplatformError as error:  # what is asked for is not there, or cannot be read
            status = 400 if isinstance(error, BadQueryError) else 404
            if not isinstance(error, UsageError):
                status = 422
            return self._problem(status, str(error), wants_json)
        except _OF_DAMAGE:
            log.warning("a record of %s has values of other types than were written", target, exc_info=True)
            return self._problem(
                422, "what is recorded of it is damaged; the server's log says where", wants_json
            )
        except OSError as error:
            return self._problem(422, f"it cannot be read: {error.strerror or error}", wants_json)

    def _found(
        self, parts: tuple[str, ...], query: dict[str, list[str]], wants_json: bool, target: str
    ) -> Answer:
        if len(parts) == 2 and parts[0] == "assets" and parts[1] in self._assets:
            body, kind = self._assets[parts[1]]
            return Answer(200, body, kind, headers=(("Cache-Control", "max-age=300"),))
        for pattern, (kind, policy, read) in FILES.items():
            if (names := _match(pattern, parts)) is not None:
                return Answer(200, read(self._site, Request(names, query)), kind, policy)
        for pattern, (template, page) in PAGES.items():
            if (names := _match(pattern, parts)) is not None:
                data = page(self._site, Request(names, query))
                if wants_json:
                    return Answer(200, json_body(data), "application/json")
                return Answer(200, self._render(template, data, names, target))
        raise PageNotFoundError("such page")

    def take(self, target: str, form: bytes) -> Answer:
        """Take a form that was filled in on a page, and lead back to what it is about."""
        try:
            parts, _ = _parsed(target)
            names = _match(("runs", "{run}", "approval"), parts)
            if names is None:
                return self._problem(405, "nothing can be changed there", False)
            fields = parse_qs(form.decode("utf-8"), max_num_fields=_MAX_PARAMETERS, errors="strict")
            there = approval_pages.answer(self._site, Request(names, fields))
            return Answer(303, b"", headers=(("Location", there),))
        except UnicodeDecodeError:
            return self._problem(400, "the form is not UTF-8", False)
        except MlplatformError as error:
            status = 404 if isinstance(error, PageNotFoundError) else 400
            return self._problem(status if isinstance(error, UsageError) else 422, str(error), False)
        except ValueError:
            return self._problem(400, "the form has too many fields", False)

    def refused(self, refusal: Refusal) -> Answer:
        """Say why a request is not answered."""
        return self._problem(refusal.status, refusal.text, False)

    def failed(self) -> Answer:
        """Say that a page could not be made for a reason of this program's."""
        return self._problem(500, "the page could not be made; the server's log says why", False)

    def _problem(self, status: int, text: str, wants_json: bool) -> Answer:
        if wants_json:
            return Answer(status, json_body({"error": text}), "application/json")
        return Answer(status, self._render("problem", {"status": status, "text": text}, {}, "/"))

    def _render(self, template: str, data: Mapping[str, Any], names: Mapping[str, str], target: str) -> bytes:
        twin = target + ("&" if "?" in target else "?") + "format=json"
        shown = self._templates.get_template(f"{template}.html")
        text = shown.render(data=data, names=names, page=template, twin=twin, **_drawn(template, data))
        return visible(text).encode()


def _drawn(template: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a template shows that is drawn from its data."""
    if template == "run":
        nodes = {n["id"]: link("runs", data["run_id"], "nodes", n["id"]) for n in data["nodes"]}
        return report_context(data, nodes) | {
            "node_link": nodes.__getitem__,
            "dataset_link": lambda name: _anchor("dataset", name),
            "model_link": lambda pushed: _anchor("model", f"{pushed['model']}@{pushed['version']}"),
        }
    if template == "lineage" and data["about"]:
        return {"graph": lineage_graph(data["about"], data, node_link), "rows": lineage_rows(data)}
    return {}


def _anchor(kind: str, name: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(node_link({"kind": kind, "name": name}), name)


def node_link(node: Mapping[str, Any]) -> str:
    """Return the address of the page about a node of a lineage graph; of its lineage, where it has none."""
    kind, name = node["kind"], node["name"]
    if kind == "run":
        return link("runs", name)
    first, _, last = name.partition("@" if kind in ("model", "dataset") else "/")
    if kind in ("model", "dataset"):
        return link(f"{kind}s", first, "versions", last)
    if kind == "record":
        return link("datasets", first, "record", key=last)
    return link("lineage", what=node["id"]) if kind == "code" else ""


def report_link(page: str) -> str:
    """Return the address of a kept report, from its place below the folder of reports; empty for none."""
    parts = page.split("/")
    return link("files", "reports", *parts[-3:-1]) if len(parts) >= 3 and parts[-1] == "report.html" else ""


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.FileSystemLoader(str(files("mlplatform.ui") / "templates")),
                jinja2.FileSystemLoader(str(files("mlplatform.reports"))),
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals |= {"link": link, "report_link": report_link, "node_link_of": node_link}
    environment.globals |= {"tones": TONES, "draw_line": draw_line, "draw_beside": _draw_beside}
    environment.filters |= {"bytes": _bytes, "duration": _duration, "when": _when}
    return environment


def _draw_beside(runs: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> Markup:
    """Draw a figure of several runs beside each other, with its intervals."""
    found = zip(runs, row["values"], row["intervals"], strict=True)
    points = [(run["run_id"][:19], value, ends) for run, value, ends in found if value is not None]
    return draw_intervals(points, label=f"{row['name']} of each run")


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _when(time: str) -> str:
    return time[:16].replace("T", " ")


def _parsed(target: str) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """Return the parts of a path, and the query. Raises PageNotFoundError and BadQueryError."""
    path, _, query = target.partition("?")
    try:
        parts = tuple(
            unquote_to_bytes(part).decode("utf-8")
            for part in path.removeprefix("/").split("/")
            if path != "/"
        )
        values = parse_qs(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise BadQueryError("the address", target, "one in UTF-8 with few parameters") from None
    if not path.startswith("/") or any(part in ("", ".", "..") or _CONTROL.search(part) for part in parts):
        raise PageNotFoundError("such page")
    return parts, values


def _match(pattern: tuple[str, ...], parts: tuple[str, ...]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    names = {}
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted.startswith("{"):
            names[wanted[1:-1]] = part
        elif wanted != part:
            return None
    return names


def json_body(data: object) -> bytes:
    """Return data as JSON."""
    return json.dumps(strict(data), indent=1, default=str).encode()


def strict(value: object) -> object:
    """Return data without what JSON does not have: a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class UiServer:
    """Listens, and answers from a pool of threads.

    Args:
        pages: What is shown.
        access: Who may ask; its `port` must be the one that is listened on.
    """

    def __init__(self, pages: Pages, access: Access) -> None:
        self._pages, self._access = pages, access
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="ui")

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path, _, query = request.raw_path.partition("?")
        given = request.cookies.get(self._access.cookie, "")
        in_address = self._access.token and parse_qs(query).get(TOKEN, [""])[-1]
        is_answer = request.method == "POST"
        shown = given if is_answer else in_address or given
        refusal = self._access.refusal(request.method, request.headers, shown)
        if refusal is not None:
            return self._sent(request, self._pages.refused(refusal))
        if is_answer:
            return await self._taken(request)
        if in_address:  # out of the address bar, the history and every `Referer`
            return self._with_cookie(path, query)
        if len(request.raw_path) > _MAX_TARGET:
            return self._sent(request, self._pages.refused(Refusal(414, "the address is too long")))
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._pool, self._pages.answer, request.raw_path)
        except Exception:
            log.exception("a page could not be made: %s", path)
            answer = self._pages.failed()
        return self._sent(request, answer)

    async def _taken(self, request: web.BaseRequest) -> web.Response:
        """Take what a form sends."""
        if request.content_type != "application/x-www-form-urlencoded":
            return self._sent(request, self._pages.refused(Refusal(415, "a form is taken, and nothing else")))
        try:
            form = await asyncio.wait_for(_read(request, _MAX_FORM + 1), _FORM_S)
        except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
            return self._sent(request, self._pages.refused(Refusal(408, "the form did not come in time")))
        if len(form) > _MAX_FORM:
            return self._sent(request, self._pages.refused(Refusal(413, "the form is too long")))
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._pool, self._pages.take, request.raw_path, form)
        except Exception:
            log.exception("a form could not be taken: %s", request.raw_path)
            answer = self._pages.failed()
        return self._sent(request, answer)

    def close(self) -> None:
        """End the threads, once they are done."""
        self._pool.shutdown()

    def _with_cookie(self, path: str, query: str) -> web.Response:
        rest = {name: values for name, values in parse_qs(query).items() if name != TOKEN}
        target = quote(path, safe="/%") + (f"?{urlencode(rest, doseq=True)}" if rest else "")
        target = "/" + target.lstrip("/\\")  # `//host` would lead elsewhere
        response = web.Response(status=303, headers={**HEADERS, "Location": target})
        response.set_cookie(
            self._access.cookie, self._access.token, httponly=True, samesite="Strict", path="/"
        )
        return response

    def _sent(self, request: web.BaseRequest, answer: Answer) -> web.Response:
        headers = {**HEADERS, "Content-Security-Policy": answer.policy, "Content-Type": answer.type}
        headers |= dict(answer.headers)
        body = answer.body
        if len(body) >= _COMPRESSED_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 5, mtime=0)
            headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return web.Response(status=answer.status, body=body, headers=headers)


async def _read(request: web.BaseRequest, most: int) -> bytes:
    """Return the body of a request, as far as the bytes that are wanted go."""
    found = b""
    while len(found) < most and (part := await request.content.read(most - len(found))):
        found += part
    return found


class WebServer(Protocol):
    """What answers the requests that a socket gets."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        ...


async def listen(server: WebServer, listener: socket.socket) -> web.ServerRunner:
    """Begin to answer at a socket that listens; return what stops it, with `cleanup`."""
    runner = web.ServerRunner(web.Server(server.handle, access_log=None))
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner
