"""The live page at a real socket: asked as browsers do without JavaScript, and attacked."""

import asyncio
import io
import json
import re
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

from mlplatform.demo.pages import DemoPages
from mlplatform.demo.server import DemoServer
from mlplatform.ui.access import access_for
from mlplatform.ui.server import listen

BOUNDARY = "bXb"


class Live:
    """A demo in a thread, asked through plain sockets."""

    def __init__(self, asking: Any, token: str = "") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server = DemoServer(DemoPages(asking), access_for("127.0.0.1", self.port, token=token))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(listen(self._server, self._listener), self._loop)
        self._runner = started.result(30)

    def ask(
        self, target: str, *, method: str = "GET", body: bytes = b"", host: str | None = None, **headers: str
    ) -> tuple[int, str]:
        """Return the status and all of the response to a request."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {f'127.0.0.1:{self.port}' if host is None else host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}"] if method == "POST" else []
        head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogateescape")
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            with suppress(ConnectionError):  # it has read enough
                connection.sendall(head + body)
            answer = b""
            with suppress(ConnectionError):
                while part := connection.recv(1 << 16):
                    answer += part
        text = answer.decode("utf-8", "replace")
        return int(text.split(" ")[1]), text

    def photos(self, target: str, *photos: tuple[str, bytes], **headers: str) -> tuple[int, str]:
        """Send photos as a form does."""
        return self.ask(
            target,
            method="POST",
            body=multipart(*photos),
            Content_Type=f"multipart/form-data; boundary={BOUNDARY}",
            **headers,
        )

    def values(self, target: str, values: dict[str, str], **headers: str) -> tuple[int, str]:
        """Send the fields of a form."""
        kind = "application/x-www-form-urlencoded"
        return self.ask(target, method="POST", body=urlencode(values).encode(), Content_Type=kind, **headers)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        self._server.close()


def multipart(*photos: tuple[str, bytes]) -> bytes:
    """The body of a form with photos."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="{name}"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode("utf-8", "surrogateescape")
        + data
        + b"\r\n"
        for name, data in photos
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="session")
def live(ask_about: Callable[..., Any]) -> Iterator[Callable[..., Live]]:
    """Return a live demo of a version."""
    made: dict[tuple[str, ...], Live] = {}

    def live(*references: str, token: str = "") -> Live:
        if (key := (*references, token)) not in made:
            made[key] = Live(ask_about(*references), token)
        return made[key]

    yield live
    for one in made.values():
        one.close()


Start = Callable[..., Live]


def data_of(text: str) -> Any:
    return json.loads(text.partition("\r\n\r\n")[2])


def test_the_page_says_what_the_model_is_and_cannot_do(live: Start) -> None:
    status, text = live("colour", "colour@stable").ask("/")
    assert status == 200
    for said in (
        "colour@2",
        "items@v1",
        "What it cannot do",
        "knows 3 classes and nothing else",
        "worst class is blue",
        "72.7 %",
        "Each answer stands beside that of colour@1",
        'enctype="multipart/form-data"',
        'capture="environment"',
        "27 validation",
        "it has seen nothing newer",
    ):
        assert said in text, said
    assert "http://" not in text.partition("\r\n\r\n")[2], "no other host"


def test_photos_are_answered_without_javascript(live: Start, colours: ModuleType) -> None:
    demo = live("colour", "colour@stable")
    photos = [("one.jpg", colours.encode("red", 1)), ("two.png", colours.encode("blue", 2, "PNG"))]
    status, text = demo.photos("/ask", *photos)
    assert status == 200
    assert text.count("What the model saw: 16 x 16 pixels") == 2
    for picture in re.findall(r'<img src="(/seen[^"]+)"', text):
        assert demo.ask(picture)[0] == 200
        assert demo.ask(picture)[0] == 404, "it was given out"
    assert text.count('src="/seen?picture=') == 2
    assert "one.jpg" in text
    assert "version 2" in text
    assert "version 1" in text
    assert "Known to confuse: blue answered as red (3)" in text
    answered = data_of(demo.photos("/ask?format=json", *photos)[1])
    assert [r["answers"][0]["classes"][0]["name"] for r in answered["results"]] == ["red", "blue"]


def test_one_bad_photo_among_good_ones_is_said(live: Start, colours: ModuleType) -> None:
    status, text = live("colour").photos(
        "/ask", ("bad<b>.jpg", b"x" * 50), ("ok.jpg", colours.encode("red", 1))
    )
    assert status == 200
    assert "bad&lt;b&gt;.jpg: it is not an image" in text
    assert "What the model saw" in text


def test_a_held_out_record_is_answered_beside_its_truth(live: Start) -> None:
    demo = live("colour")
    status, text = demo.ask("/ask?sample=0&signature=image_bytes")
    assert status == 200
    assert "The truth:" in text
    status, picture = demo.ask("/samples?sample=0")
    assert status == 200
    assert "image/jpeg" in picture
    assert demo.ask("/items?key=red-1")[0] == 200
    assert demo.ask("/items?key=nothing")[0] == 404


def test_a_form_of_a_table_is_filled_and_answered(live: Start) -> None:
    demo = live("fare")
    text = demo.ask("/")[1]
    assert "<option>voucher</option>" in text
    assert "off by" in text
    filled = demo.ask("/?sample=1")[1]
    miles = re.search(r'step="any" name="v0" value="([\d.]+)"', filled)
    assert miles
    status, text = demo.values("/ask", {"v0": miles[1], "v1": "card", "v2": "3"})
    assert status == 200
    assert f"{3 + 2 * float(miles[1]) + 0.1:.6g}" in text
    status, text = demo.values("/ask", {"v0": "<b>", "v1": "card"})
    assert status == 400
    assert "&lt;b&gt;" in text
    assert demo.values("/ask", {"json": '{"examples": [{"miles": 1.0, "payment": "cash"}]}'})[0] == 200


def bomb() -> bytes:
    """A PNG of a few hundred kilobytes that decodes to half a gigabyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 13_000
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(b"\0" * (1 + 3 * side)) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def hidden_size() -> bytes:
    """A JPEG whose header declares 65,535 pixels a side."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG")
    data = bytearray(out.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


@pytest.mark.parametrize(
    "photo",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><script>alert(1)</script>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"GIF89a" + b"\0" * 30,
        b"\xff\xd8\xff\xe0" + b"\0" * 4000,
        hidden_size(),
        b"\0" * (21 << 20),
    ],
    ids=["svg", "html", "eps", "gif", "jpeg", "size", "large"],
)
def test_what_is_no_photo_is_refused(live: Start, photo: bytes) -> None:
    status, text = live("colour").photos("/ask", ("a.jpg", photo))
    assert 400 <= status < 500, text[:500]
    assert "<script>alert" not in text


def test_a_decompression_bomb_is_refused_before_it_is_decoded(live: Start) -> None:
    data = bomb()
    assert len(data) < 1 << 20
    status, text = live("colour").photos("/ask", ("bomb.png", data))
    assert status == 400
    assert "at most 50,000,000 are decoded" in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"host": "evil.example"},
    ],
)
def test_forms_of_other_sites_are_refused(live: Start, headers: dict[str, str]) -> None:
    demo = live("fare")
    assert demo.values("/ask", {"v0": "1", "v1": "card"}, **headers)[0] in (403, 421)
    own = {"Sec_Fetch_Site": "same-origin", "Origin": f"http://127.0.0.1:{demo.port}"}
    assert demo.values("/ask", {"v0": "1", "v1": "card"}, **own)[0] == 200


@pytest.mark.parametrize(
    "target",
    [
        "/../../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/assets/../pages.py",
        "/assets/..%2fpages.py",
        "/samples",
        "/samples?sample=-1",
        "/samples?sample=99999999999999999999",
        "/samples?sample=%D9%A3",
        "/ask",
        "/ask?sample=999",
        "/?signature=nothing",
        "/?signature=%3Cscript%3E",
        "/items",
        "/items?key=..%2f..%2fx",
        "/%ff",
        "/?a=%ff",
        "/?" + "&".join(f"a{n}=1" for n in range(100)),
        "/" + "x" * 5000,
        "//evil.example/",
        "/?sample=zero",
        "/%00",
    ],
)
def test_an_address_that_leads_nowhere_is_refused(live: Start, target: str) -> None:
    status, text = live("fare").ask(target)
    assert 400 <= status < 500, text[:300]
    assert "root:" not in text
    assert "<script>" not in text.partition("</head>")[2]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=bXb", b"no part at all"),
        (
            "multipart/form-data; boundary=bXb",
            b"--bXb\r\nContent-Disposition: form-data; name=photo\r\n\r\nx",
        ),
        ("multipart/form-data; boundary=bXb", b"--bXb\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n"),
        ("multipart/form-data; boundary=bXb", multipart(*[("a", b"x")] * 9)),
        (
            "multipart/form-data; boundary=bXb",
            b"--bXb\r\nContent-Disposition: form-data; name=photo; filename=a\r\n"
            b"Content-Transfer-Encoding: wrong\r\n\r\nx\r\n--bXb--",
        ),
        ("application/x-www-form-urlencoded", b"v0=%ff"),
        ("application/x-www-form-urlencoded", b"&".join(b"v%d=1" % n for n in range(500))),
        ("application/x-www-form-urlencoded", b"v0=" + b"1" * (3 << 20)),
        ("application/x-www-form-urlencoded", b"json=" + b"[" * 100_000),
        ("application/x-www-form-urlencoded", b"json=%00"),
        ("application/x-www-form-urlencoded", b""),
        ("text/plain", b"x"),
    ],
)
def test_a_form_that_no_browser_sends_is_refused(live: Start, kind: str, body: bytes) -> None:
    for name in ("fare", "colour"):
        status, text = live(name).ask("/ask", method="POST", body=body, Content_Type=kind)
        assert 400 <= status < 500, text[:300]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(live: Start, method: str) -> None:
    assert 400 <= live("fare").ask("/ask", method=method)[0] < 500
    assert live("fare").values("/", {"v0": "1"})[0] == 405


def test_a_token_is_asked_for_once(live: Start) -> None:
    demo = live("fare", token="secret")
    assert demo.ask("/")[0] == 401
    assert demo.values("/ask?token=secret", {"v0": "1", "v1": "card"})[0] == 401
    status, text = demo.ask("/?token=secret")
    assert status == 303
    cookie = re.search(r"\r\nSet-Cookie: ([^;]+); (.*)\r\n", text)
    assert cookie
    assert "HttpOnly" in cookie[2]
    assert "SameSite=Strict" in cookie[2]
    assert demo.ask("/", Cookie=cookie[1])[0] == 200
    assert demo.values("/ask", {"v0": "1", "v1": "card"}, Cookie=cookie[1])[0] == 200
    assert "Location: /\r\n" in demo.ask("//evil.example?token=secret")[1]


def test_headers_of_every_answer(live: Start) -> None:
    for target in ("/", "/nothing", "/assets/style.css", "/assets/demo.js", "/?format=json", "/ask?sample=1"):
        text = live("fare").ask(target)[1]
        head = text.partition("\r\n\r\n")[0]
        assert "default-src 'none'" in head
        assert "nosniff" in head
        assert "frame-ancestors 'none'" in head
        assert "Access-Control" not in head
        assert "aiohttp" not in head.lower()
        assert "unsafe" not in head


@pytest.mark.soak
@pytest.mark.parametrize("name", ["colour", "fare", "columns", "pixels"])
def test_every_page_in_a_browser(
    live: Start, colours: ModuleType, look_at: Callable[..., None], tmp_path: Path, name: str
) -> None:
    demo = live(*(["colour", "colour@stable"] if name == "colour" else [name]))
    address = f"http://127.0.0.1:{demo.port}"
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(colours.encode("red", 1))

    def ask(page: Any) -> None:
        files, form = page.locator('input[type="file"]'), page.locator('form[action^="/ask"]').first
        if files.count():
            files.first.set_input_files(str(photo))
        for number in form.locator('input[type="text"], input[type="number"]').all():
            number.fill("1")
        form.locator("button").first.click()
        page.wait_for_url("**/ask**")
        assert page.locator(".version").count() >= 1, page.content()
        pictures = page.locator(".seen img")
        for picture in pictures.all():
            assert picture.evaluate("each => each.complete && each.naturalWidth") > 0

    look_at(f"{address}/nothing")
    for signature in data_of(demo.ask("/?format=json")[1])["signatures"]:
        look_at(f"{address}/?signature={signature}")
        look_at(f"{address}/?signature={signature}", ask)
