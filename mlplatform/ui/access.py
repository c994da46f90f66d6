"""Who may ask the dashboard: decided from a request's line and headers alone.

A page of any site can send requests to loopback from within its visitor's browser, and can have its own name
resolve there (DNS rebinding). So the `Host` must be one of a list, exactly; and a browser must say that the
request comes from a page of this server or from the address bar. Nothing but GET and HEAD is answered, as
nothing here changes anything; where people may approve pushes, POST is, too, and then a browser must say that
the request comes from a page of this server. There, and beyond loopback, a token is asked for as well.

Source: Fetch Metadata Request Headers, W3C (`Sec-Fetch-*`); RFC 9110 on 421.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from mlplatform.errors import UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN = "token"  # the query parameter
_WORDS = 32  # bytes of a token


class OpenAddressError(UsageError):
    """The dashboard would listen beyond loopback without a list of the names that it answers to."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host

    def __str__(self) -> str:
        return (
            f"{self.host} is reached from other machines: name the hosts that people will use in their "
            "browsers, such as dashboard.example.org; a request for any other is refused."
        )


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered.

    Attributes:
        status: The HTTP status, 4xx.
        text: Why, in a sentence.
    """

    status: int
    text: str


@dataclass(frozen=True)
class Access:
    """What a request needs to be answered.

    Attributes:
        hosts: The names that are answered to, without a port.
        port: The port that the server listens on.
        token: What must be known; empty for nothing.
        may_approve: Pushes may be approved and refused; never without a token.
    """

    hosts: tuple[str, ...]
    port: int
    token: str = ""
    may_approve: bool = False

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token; another port has another one."""
        return f"mlplatform-ui-{self.port}"

    def refusal(self, method: str, headers: Mapping[str, str], given: str) -> Refusal | None:
        """Return why a request is not answered; None where it is.

        Args:
            method: HTTP's.
            headers: Its headers.
            given: The token that came with it, in the address or a cookie.
        """
        is_answer = method == "POST" and self.may_approve and bool(self.token)
        if method not in ("GET", "HEAD") and not is_answer:
            return Refusal(405, "only GET and HEAD are answered: nothing is changed here")
        if not self._is_host(headers.get("Host", "")):
            return Refusal(421, "this name is not one that the dashboard answers to")
        site, origin = headers.get("Sec-Fetch-Site", ""), headers.get("Origin", "")
        is_visit = headers.get("Sec-Fetch-Mode") == "navigate" and (
            headers.get("Sec-Fetch-Dest") in ("document", None)
        )
        if site not in ("", "same-origin", "none") and not is_visit:
            return Refusal(403, "requests of other sites are not answered")
        if is_answer and site != "same-origin" and not (origin and not site):
            return Refusal(403, "an answer must come from a page of this server")
        if origin and not self._is_host(origin.partition("://")[2]):
            return Refusal(403, "requests of other sites are not answered")
        if self.token and not hmac.compare_digest(given.encode(), self.token.encode()):
            return Refusal(401, "the token is missing or wrong: open the address that the server printed")
        return None

    def _is_host(self, header: str) -> bool:
        names = {f"[{host}]" if ":" in host else host for host in self.hosts}
        allowed = {f"{name}:{self.port}" for name in names} | (names if self.port == 80 else set())
        return header.lower() in {name.lower() for name in allowed}


def access_for(
    host: str, port: int, *, allowed: tuple[str, ...] = (), token: str = "", may_approve: bool = False
) -> Access:
    """Return what a request needs, for a server that listens on an address.

    Args:
        host: The address.
        port: The port.
        allowed: Names that people use for it, beside loopback's own.
        token: What must be known; empty makes a new one where the address is not loopback, or pushes may be
            approved.
        may_approve: Pushes may be approved and refused.

    Raises:
        OpenAddressError: It is reached from other machines, and no name is allowed.
    """
    is_open = host not in LOOPBACK
    if is_open and not allowed:
        raise OpenAddressError(host)
    if (is_open or may_approve) and not token:
        token = secrets.token_urlsafe(_WORDS)
    return Access((*LOOPBACK, *allowed), port, token, may_approve)
