"""What model servers say that they serve, asked over TensorFlow Serving's REST API.

Only servers that whoever started the dashboard named are asked: never an address that a record holds.

Source: TensorFlow Serving, RESTful API, "Model status API".
"""

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from mlplatform.redirects import NoRedirect

_TIMEOUT_S = 2.0
_KNOWN_FOR_S = 3.0
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Served:
    """What a server says of a model.

    Attributes:
        server: Its URL.
        versions: The state of each version that it knows, such as `AVAILABLE`, by its number.
        problem: Why it says nothing; empty where it does.
    """

    server: str
    versions: dict[int, str]
    problem: str = ""

    @property
    def available(self) -> list[int]:
        """The versions that answer, the newest first."""
        return sorted((n for n, state in self.versions.items() if state == "AVAILABLE"), reverse=True)


class Servers:
    """Some servers; threads may share it. An answer counts for a few seconds.

    Args:
        urls: Their REST addresses, such as `http://10.0.0.7:8501`.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._known: dict[tuple[str, str], tuple[float, Served]] = {}
        self._lock = threading.Lock()
        self._opener = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({}))

    def served(self, model: str) -> list[Served]:
        """Return what each server says of a model."""
        return [self._served(url, model) for url in self._urls]

    def _served(self, url: str, model: str) -> Served:
        key = (url, model)
        with self._lock:
            at, known = self._known.get(key, (0.0, None))
        if known is None or time.monotonic() - at > _KNOWN_FOR_S:
            known = self._asked(url, model)
            with self._lock:
                self._known[key] = (time.monotonic(), known)
        return known

    def _asked(self, url: str, model: str) -> Served:
        try:
            with self._opener.open(
                f"{url}/v1/models/{quote(model, safe='')}", timeout=_TIMEOUT_S
            ) as response:
                found = json.loads(response.read(_MOST_BYTES))
            states = found["model_version_status"]
            return Served(url, {int(each["version"]): str(each["state"]) for each in states})
        except urllib.error.HTTPError as error:
            return Served(
                url, {}, f"it answers {error.code}" if error.code != 404 else "it does not know the model"
            )
        except (OSError, http.client.HTTPException) as error:
            return Served(url, {}, f"it does not answer: {error}")
        except (ValueError, TypeError, KeyError, RecursionError):
            return Served(url, {}, "it answers something else than a model server")
