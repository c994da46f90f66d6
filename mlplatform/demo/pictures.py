"""Pictures of a page that are drawn when the page fetches them, so that an answer need not wait for them."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable

MOST = 16  # that nobody fetched yet; each holds a photo


class Pictures:
    """Pictures to be drawn; each is given out once, and then forgotten. Threads may share it."""

    def __init__(self) -> None:
        self._wanted: OrderedDict[str, Callable[[], bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, draw: Callable[[], bytes]) -> str:
        """Return the name of a new picture, which nobody can guess. The oldest is forgotten beyond `MOST`.

        Args:
            draw: Returns the image file.
        """
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._wanted[name] = draw
            if len(self._wanted) > MOST:
                self._wanted.popitem(last=False)
        return name

    def take(self, name: str) -> bytes:
        """Draw a picture, and forget it; empty where there is none of this name.

        Raises:
            PhotoError: It cannot be drawn.
        """
        with self._lock:
            draw = self._wanted.pop(name, None)
        return draw() if draw else b""
