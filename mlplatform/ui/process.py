"""The dashboard as a process: listens, prints its address, and ends by Ctrl-C or SIGTERM."""

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

from mlplatform.errors import MlplatformError
from mlplatform.home import Home
from mlplatform.storage.urls import is_local
from mlplatform.ui.access import TOKEN, access_for
from mlplatform.ui.server import Pages, UiServer, WebServer, listen
from mlplatform.ui.site import Site, link


class PortTakenError(MlplatformError):
    """The dashboard cannot listen on an address."""

    def __init__(self, host: str, port: int, problem: str) -> None:
        super().__init__(host, port, problem)
        self.host, self.port, self.problem = host, port, problem

    def __str__(self) -> str:
        return f"cannot listen on {self.host}, port {self.port}: {self.problem}. Give another port; 0 is any."


def serve_until_stopped(
    home: Home,
    host: str,
    port: int,
    *,
    allowed: tuple[str, ...],
    token: str,
    say: Callable[[str], object],
    may_approve: bool = False,
    servers: Sequence[str] = (),
) -> None:
    """Show a root until the process is asked to stop.

    Args:
        home: The root.
        host: The address to listen on.
        port: The port; 0: any free one.
        allowed: Names that people use for it, beside loopback's own.
        token: What must be known; empty makes one where the address is not loopback, or `may_approve`.
        say: Takes the line with the address.
        may_approve: Pushes may be approved and refused.
        servers: REST addresses of model servers whose states are shown.

    Raises:
        OpenAddressError: It is reached from other machines, and no name is allowed.
        PortTakenError: It cannot listen there.
    """
    # Before anything is opened.
    access = access_for(host, port, allowed=allowed, token=token, may_approve=may_approve)
    listener = open_listener(host, port)
    port = listener.getsockname()[1]
    access = replace(access, port=port)
    name = allowed[0] if allowed else f"[{host}]" if ":" in host else host
    site = Site(home, may_approve=may_approve, servers=servers)
    pages = Pages(site)
    server = UiServer(pages, access)
    try:
        if is_local(home.root):
            pages.prepare()
        asyncio.run(
            answer_until_stopped(server, listener, lambda: say(f"http://{name}:{port}{_start(access.token)}"))
        )
    finally:
        server.close()
        site.index.close()


def _start(token: str) -> str:
    return link(**{TOKEN: token})


def open_listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address. Raises PortTakenError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise PortTakenError(host, port, error.strerror or str(error)) from error


async def answer_until_stopped(
    server: WebServer, listener: socket.socket, ready: Callable[[], object]
) -> None:
    """Answer at a socket until SIGINT or SIGTERM comes.

    Args:
        server: What answers.
        listener: The socket.
        ready: Called once it is listened to.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    runner = await listen(server, listener)
    ready()
    await stopped.wait()
    await runner.cleanup()
