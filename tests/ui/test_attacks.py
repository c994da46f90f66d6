"""Attacks on the dashboard, at a real socket: each is refused, and none is an error of the server's."""

import asyncio
import io
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from mlplatform.home import Home
from mlplatform.registry.approvals import Approvals
from mlplatform.registry.ledger import Ledger
from mlplatform.reports.dataset_diff_page import record_card
from mlplatform.ui.access import Access, OpenAddressError, access_for
from mlplatform.ui.server import Pages, UiServer, listen
from mlplatform.ui.site import Site

FIRST, FAILED, SECOND = (f"2026010{day}T010203.000-aaa{day}" for day in (1, 2, 3))
TOKEN = "the-token"


class Server:
    """A dashboard in a thread, asked through plain sockets: what a browser would tidy up stays as it is."""

    def __init__(self, pages: Pages, token: str = "", *, may_approve: bool = False) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server = UiServer(
            pages, access_for("127.0.0.1", self.port, token=token, may_approve=may_approve)
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(listen(self._server, self._listener), self._loop)
        self._runner = started.result(30)

    def ask(
        self, target: str, *, method: str = "GET", host: str | None = None, **headers: str
    ) -> tuple[int, str]:
        """Return the status and all of the response to a request."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {f'127.0.0.1:{self.port}' if host is None else host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return self.send(
            "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogateescape")
        )

    def send(self, data: bytes) -> tuple[int, str]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            answer = b""
            while part := connection.recv(1 << 16):
                answer += part
        text = answer.decode("utf-8", "replace")
        return int(text.split(" ")[1]), text

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        self._server.close()


@pytest.fixture(scope="module")
def server(pages: Pages) -> Iterator[Server]:
    server = Server(pages)
    yield server
    server.close()


@pytest.fixture(scope="module")
def guarded(pages: Pages) -> Iterator[Server]:
    server = Server(pages, TOKEN)
    yield server
    server.close()


@pytest.mark.parametrize(
    "target",
    [
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/%252e%252e/etc/passwd",
        "/..%5c..%5cetc%5cpasswd",
        "/runs/..%2f..%2fledger/logs/x",
        f"/runs/{FIRST}/logs/..%2f..%2f..%2fetc%2fpasswd",
        f"/runs/{FIRST}/logs/%2e%2e%2frun.json",
        f"/files/logs/{FIRST}/..%2fpipeline.pb",
        f"/files/logs/{FIRST}/_processes",
        "/files/reports/..%2f/x",
        f"/files/reports/{FIRST}/..",
        f"/files/reports/{FIRST}/ModelValidator%2f..",
        "/assets/..%2fserver.py",
        "/assets/style.css%00.png",
        "//evil.example/runs",
        "/runs//",
        "/datasets/..",
        "/datasets/items%2f..%2f..",
        "/models/.ledger",
        "/models/item_category/versions/..",
        "/runs/%00",
        "/runs/%ff%fe",
        "/runs/" + "x" * 3000,
        "/runs/x%0d%0aSet-Cookie:%20a=b",
        "/lineage?what=%00",
        "/lineage?hops=-1",
        "/lineage?hops=99999999999999999999999",
        "/lineage?hops=1e3",
        "/lineage?hops=%D9%A3",
        "/lineage?direction=sideways&what=latest",
        "/runs?state=' OR 1=1",
        "/runs?state=%27%20OR%201=1",
        "/datasets/items/diff?old=v1&new=../v2",
        "/datasets/items/diff?old=v1",
        "/gates?decision=%3Cscript%3E",
        "/runs?" + "&".join(f"a{n}=1" for n in range(100)),
        "/compare?" + "&".join(f"run={n}" for n in range(9)),
        "/compare?run=nothing",
        "/runs?q=%ff",
        "/runs/" + "%41" * 2000,
    ],
)
def test_an_address_that_leads_nowhere_is_refused(server: Server, target: str) -> None:
    status, text = server.ask(target.replace(" ", "%20"))
    assert 400 <= status < 500, (status, text)
    assert "root:" not in text
    assert "Set-Cookie" not in text


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example:{port}",
        "evil127.0.0.1:{port}",
        "",
        "0.0.0.0:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "me@127.0.0.1:{port}",
        "127.0.0.2:{port}",
        "localhost:{port}.evil.example",
        "localhost.:{port}",
        "[::ffff:127.0.0.1]:{port}",
    ],
)
def test_a_foreign_name_is_refused(server: Server, host: str) -> None:
    assert server.ask("/", host=host.format(port=server.port))[0] in (400, 421)


def test_own_names_are_answered(server: Server) -> None:
    for host in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        assert server.ask("/runs", host=f"{host}:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_requests_of_other_sites_are_refused(server: Server, headers: dict[str, str]) -> None:
    assert server.ask("/", **headers)[0] == 403


def test_a_link_on_another_site_may_lead_here(server: Server) -> None:
    headers = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert server.ask("/", **headers)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_nothing_can_be_changed(server: Server, method: str) -> None:
    assert 400 <= server.ask("/runs", method=method)[0] < 500


@pytest.mark.parametrize(
    "data",
    [
        b"no http at all\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost" + b"x" * 20000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(server: Server, data: bytes) -> None:
    assert 400 <= server.send(data)[0] < 500


def test_headers_of_every_answer(server: Server) -> None:
    for target in ("/", "/runs.json", "/nothing", "/assets/style.css", f"/files/logs/{FIRST}/Trainer"):
        text = server.ask(target)[1]
        assert "default-src 'none'" in text
        assert "nosniff" in text
        assert "no-referrer" in text
        assert "frame-ancestors 'none'" in text
        assert "Access-Control" not in text
        assert "aiohttp" not in text.lower()
        assert "unsafe" not in text
    report = server.ask(f"/files/reports/{FIRST}/ModelValidator")[1]
    assert "sandbox; default-src 'none'" in report
    assert "frame-ancestors 'self'" in report


def test_a_token_is_asked_for_once_and_leaves_the_address(guarded: Server) -> None:
    assert guarded.ask("/")[0] == 401
    assert guarded.ask("/?token=wrong")[0] == 401
    assert guarded.ask("/runs.json", Cookie=f"mlplatform-ui-{guarded.port}=wrong")[0] == 401
    status, text = guarded.ask(f"/runs?q=a%20b&token={TOKEN}")
    assert status == 303
    assert re.search(r"\r\nLocation: /runs\?q=a\+b\r\n", text)
    cookie = re.search(r"\r\nSet-Cookie: ([^;]+); (.*)\r\n", text)
    assert cookie
    assert "HttpOnly" in cookie[2]
    assert "SameSite=Strict" in cookie[2]
    assert guarded.ask("/runs", Cookie=cookie[1])[0] == 200
    # The way back does not lead elsewhere.
    assert "Location: /evil.example" in guarded.ask(f"//evil.example?token={TOKEN}")[1]


def test_beyond_loopback_names_and_a_token_are_needed() -> None:
    with pytest.raises(OpenAddressError, match="name the hosts"):
        access_for("0.0.0.0", 80)
    access = access_for("0.0.0.0", 80, allowed=("ml.example.org",))
    assert len(access.token) > 30
    assert access.token != access_for("0.0.0.0", 80, allowed=("ml.example.org",)).token
    refusal = access.refusal("GET", {"Host": "ml.example.org"}, "")
    assert refusal is not None
    assert refusal.status == 401
    assert access.refusal("GET", {"Host": "ml.example.org"}, access.token) is None
    assert Access(("::1",), 8080).refusal("GET", {"Host": "[::1]:8080"}, "") is None


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}\u202e\u200b\x1b[31m\ud800"


def hostile_root(root: Path) -> Home:
    """A root in which every text is hostile."""
    home = Home.at(root)
    run = "20260101T000000.000-0000"
    folder = home.runs / run
    (folder / "logs").mkdir(parents=True)
    (folder / "nodes").mkdir()
    artifact = {"id": 1, "type": HOSTILE, "uri": HOSTILE, "digest": HOSTILE}
    node = {
        "id": HOSTILE, "type": HOSTILE, "state": "failed", "why": HOSTILE, "error": HOSTILE,
        "upstream": [HOSTILE], "started_at": HOSTILE, "seconds": 1.0,
        "inputs": {HOSTILE: [artifact]}, "outputs": {HOSTILE: [artifact]},
    }  # fmt: skip
    record = {
        "run_id": run, "pipeline": HOSTILE, "state": "failed", "started_at": HOSTILE, "reference": HOSTILE,
        "arguments": {HOSTILE: HOSTILE}, "versions": {HOSTILE: HOSTILE},
        "nodes": [node, {**node, "id": "Plain"}],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "logs" / "Plain.log").write_text(HOSTILE.replace("\ud800", "") + "\n=cmd()")
    (folder / "nodes" / "Plain.json").write_text(
        json.dumps({"node": "Plain", "why": HOSTILE, "parts": {HOSTILE: HOSTILE}, "compared_with": HOSTILE,
                    "changes": [{"part": HOSTILE, "before": HOSTILE, "now": HOSTILE}]})
    )  # fmt: skip
    stream = Path(home.ledger) / "runs" / run
    stream.mkdir(parents=True)
    kinds = [
        {"kind": "verdict", "node": HOSTILE, "gate": HOSTILE, "is_accepted": False, "reasons": [HOSTILE],
         "path": HOSTILE},
        {"kind": "dataset.used", "dataset": f"{HOSTILE}@v1", "digest": HOSTILE, "splits": {HOSTILE: 3}},
        {"kind": "run.tagged", "added": [HOSTILE]},
        {"kind": "run.noted", "note": HOSTILE},
        {"kind": "run.started", "pipeline": HOSTILE, "code": {"commit": HOSTILE, "is_dirty": True}},
        {"kind": "run.finished", "state": HOSTILE, "metrics": {HOSTILE: 1.0}, "reused": [HOSTILE]},
    ]  # fmt: skip
    for number, facts in enumerate(kinds, 1):
        event = {"id": "x", "at": HOSTILE, "by": HOSTILE, "run": run, **facts}
        (stream / f"{number:08}.json").write_text(json.dumps(event))
    model = Path(home.ledger) / "models" / "m"
    model.mkdir(parents=True)
    facts = {"digest": HOSTILE, "dataset": f"{HOSTILE}@v1", "why": HOSTILE, "metrics": {HOSTILE: 0.5}}
    pushed = {"kind": "model.pushed", "id": "x", "at": HOSTILE, "by": HOSTILE, "run": run, "version": 1}
    (model / "00000001.json").write_text(json.dumps(pushed | facts))
    promoted = {
        "kind": "model.promoted",
        "id": "y",
        "at": "t",
        "by": "b",
        "run": "",
        "version": 1,
        "label": HOSTILE,
    }
    (model / "00000002.json").write_text(json.dumps(promoted))
    (Path(home.models) / "m" / "1").mkdir(parents=True)
    (Path(home.models) / "m" / "1" / "saved_model.pb").write_text("x")
    (Path(home.models) / "m" / "1" / "push.json").write_text(
        json.dumps({"digest": "d", "pushed_at": HOSTILE, "pushed_by": HOSTILE, "run": run,
                    "dataset": f"{HOSTILE}@v1", "why": HOSTILE, "metrics": {HOSTILE: 0.5}})
    )  # fmt: skip
    marks = Path(home.ledger) / "index" / "open"
    marks.mkdir(parents=True)
    (marks / f"runs%2F{run}~1~x").touch()
    return home


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    home = hostile_root(tmp_path / "root")
    site = Site(home, every_s=0)
    pages = Pages(site)
    run = "20260101T000000.000-0000"
    targets = [
        "/", "/runs", f"/runs/{run}", f"/runs/{run}/nodes/Plain", f"/runs/{run}/logs/Plain",
        f"/runs/{run}/logs/Plain?q=alert", "/models", "/models/m", "/models/m/versions/1", "/gates",
        f"/lineage?what={run}", "/lineage?what=m@1&hops=0", f"/compare?run={run}",
    ]  # fmt: skip
    shown = 0
    for target in targets:
        answer = pages.answer(target)
        text = answer.body.decode()
        assert answer.status == 200, (target, text[-500:])
        assert not re.search(r"<script|<img src=x", text), target
        assert "{{7*7}}" in text or "&lt;script" not in text
        assert "\u202e" not in text
        assert "\x1b" not in text
        shown += text.count("&lt;script&gt;")
        assert pages.answer(target + ("&" if "?" in target else "?") + "format=json").status == 200
    assert shown > 50
    site.index.close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"nodes": 3}',
        b'{"wall_s": "x", "versions": 3, "arguments": [], "pipeline": {}}',
        b'{"state": 1, "nodes": [{}]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_damaged_run_hides_no_other(tmp_path: Path, content: bytes) -> None:
    home = Home.at(tmp_path)
    for name in ("a", "b"):
        (home.runs / name).mkdir(parents=True)
    (home.runs / "a" / "run.json").write_bytes(content)
    (home.runs / "b" / "run.json").write_text('{"run_id": "b", "pipeline": "p", "state": "done"}')
    (home.runs / "without").mkdir()
    (Path(home.ledger) / "runs" / "c").mkdir(parents=True)
    (Path(home.ledger) / "runs" / "c" / "00000001.json").write_bytes(content)
    site = Site(home, every_s=0)
    pages = Pages(site)
    assert b'href="/runs/b"' in pages.answer("/runs").body
    for target in (
        "/",
        "/runs/a",
        "/runs/b",
        "/runs/c",
        "/lineage?what=b",
        "/compare?run=a&run=b",
        "/models",
        "/gates",
    ):
        assert pages.answer(target).status in (200, 404, 422), target
    site.index.close()


def test_links_out_of_the_root_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "a.log").write_text("root: the secret")
    (secret / "report.html").write_text("root: the secret")
    (secret / "verdict.json").write_text("{}")
    home = Home.at(tmp_path / "root")
    for run in ("one", "two"):
        (home.runs / run).mkdir(parents=True)
        record = {"run_id": run, "pipeline": "p", "state": "done", "nodes": [{"id": "a", "type": "A"}]}
        (home.runs / run / "run.json").write_text(json.dumps(record))
    (home.runs / "one" / "logs").symlink_to(secret)
    (home.runs / "two" / "logs").mkdir()
    (home.runs / "two" / "logs" / "a.log").symlink_to(secret / "a.log")
    reports = Path(home.reports)
    (reports / "r").mkdir(parents=True)
    (reports / "r" / "g").symlink_to(secret)
    (reports / "r" / "g.json").write_text('{"run": "r", "gate": "g", "at": "20260101T000000000000Z"}')
    site = Site(home, every_s=0)
    pages = Pages(site)
    site.index.refresh()
    for target in (
        "/runs/one/logs/a",
        "/files/logs/one/a",
        "/runs/two/logs/a",
        "/files/logs/two/a",
        "/files/reports/r/g",
    ):
        answer = pages.answer(target)
        assert b"the secret" not in answer.body, target
        assert answer.status in (200, 404)
    site.index.close()


def test_a_log_that_is_no_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    (home.runs / "one" / "logs").mkdir(parents=True)
    record = {"run_id": "one", "pipeline": "p", "state": "done", "nodes": [{"id": "a", "type": "A"}]}
    (home.runs / "one" / "run.json").write_text(json.dumps(record))
    os.mkfifo(home.runs / "one" / "logs" / "a.log")
    site = Site(home, every_s=0)
    site.index.refresh()
    assert Pages(site).answer("/files/logs/one/a").status == 404
    site.index.close()


def test_a_large_log_is_read_from_its_end(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    (home.runs / "one" / "logs").mkdir(parents=True)
    record = {"run_id": "one", "pipeline": "p", "state": "done", "nodes": [{"id": "a", "type": "A"}]}
    (home.runs / "one" / "run.json").write_text(json.dumps(record))
    with (home.runs / "one" / "logs" / "a.log").open("wb") as file:
        file.seek(1 << 30)  # a gigabyte, of which the disk keeps nothing
        file.write(b"\nthe last line\n")
    site = Site(home, every_s=0)
    site.index.refresh()
    answer = Pages(site).answer("/runs/one/logs/a")
    assert b"the last line" in answer.body
    assert len(answer.body) < 600_000
    site.index.close()


def test_a_photo_that_decodes_to_half_a_gigabyte_is_not_decoded(make_example: Callable[..., bytes]) -> None:
    out = io.BytesIO()
    Image.new("L", (13_000, 13_000)).save(out, "PNG")
    assert len(out.getvalue()) < 500_000
    card = record_card(make_example(image__encoded=out.getvalue(), item_id=b"bomb"))
    assert card["picture"] is None
    for data in (b"<svg onload=alert(1)>", b"<html>", b"", b"\xff\xd8\xff"):
        assert record_card(make_example(image__encoded=data))["picture"] is None


@pytest.fixture
def approving(own_home: Home) -> Iterator[Server]:
    site = Site(own_home, may_approve=True)
    server = Server(Pages(site), TOKEN, may_approve=True)
    yield server
    server.close()
    site.index.close()


FORM = f"digest={'f' * 64}&by=bob&why=seen+it&answer=yes"


def post(server: Server, form: str = FORM, run: str = FAILED, **headers: str) -> tuple[int, str]:
    """Send the form as a page of the dashboard does, but for the headers that are given."""
    sent = {
        "Host": f"127.0.0.1:{server.port}",
        "Sec-Fetch-Site": "same-origin",
        "Origin": f"http://127.0.0.1:{server.port}",
        "Cookie": f"mlplatform-ui-{server.port}={TOKEN}",
        "Content-Type": "application/x-www-form-urlencoded",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in sent.items() if value]
    request = [
        f"POST /runs/{run}/approval HTTP/1.1",
        *lines,
        f"Content-Length: {len(form)}",
        "Connection: close",
    ]
    return server.send("\r\n".join([*request, "", form]).encode())


def answers(home: Home) -> list[str]:
    return [answer.approver for answer in Approvals(Ledger(home.ledger)).answers("item_category")]


def test_an_answer_comes_from_a_page_of_the_dashboard_alone(approving: Server, own_home: Home) -> None:
    for headers in (
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "", "Origin": ""},  # a program that is no browser
        {"Sec_Fetch_Site": "", "Origin": "null"},
        {"Sec_Fetch_Site": "", "Origin": "http://evil.example"},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Cookie": ""},
        {"Cookie": f"mlplatform-ui-{approving.port}=wrong"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/json"},
    ):
        assert 400 <= post(approving, **headers)[0] < 500, headers
    assert answers(own_home) == ["ann"]
    status, text = post(approving)
    assert status == 303
    assert f"Location: /runs/{FAILED}/approval" in text
    assert answers(own_home) == ["ann", "bob"]


@pytest.mark.parametrize(
    "form",
    [
        FORM.replace("f" * 64, "e" * 64),  # another model than the page showed
        FORM.replace("bob", "eve"),  # who may not
        FORM.replace("seen+it", "+"),
        FORM.replace("yes", "maybe"),
        FORM.replace("bob", "%FF"),
        "a=1&" * 100 + FORM,
        FORM + "&x=" + "y" * 20000,
        "",
    ],
)
def test_a_form_that_says_something_else_answers_nothing(
    approving: Server, own_home: Home, form: str
) -> None:
    assert 400 <= post(approving, form)[0] < 500
    assert answers(own_home) == ["ann"]


def test_nothing_else_takes_a_form(approving: Server, guarded: Server) -> None:
    cookie = {"Cookie": f"mlplatform-ui-{approving.port}={TOKEN}", "Sec_Fetch_Site": "same-origin"}
    cookie["Content_Type"] = "application/x-www-form-urlencoded"
    assert approving.ask(f"/runs/{FAILED}", method="POST", **cookie)[0] == 405
    assert approving.ask(f"/runs/{FAILED}/approval", method="PUT", **cookie)[0] == 405
    assert post(approving, run="nothing")[0] == 404
    assert post(guarded)[0] == 405  # one that was not started with --approve


def test_approving_asks_for_a_token_on_loopback_as_well() -> None:
    assert len(access_for("127.0.0.1", 80, may_approve=True).token) > 30
