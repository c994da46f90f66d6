"""TensorFlow's file system, which Python's audit hooks do not hear: a listener at its door."""

import sys
from collections.abc import Callable
from typing import Any

Tell = Callable[[str, tuple[Any, ...]], None]  # the function that is called, and what it is given


class _ReportingModule:
    def __init__(self, real: Any, functions: frozenset[str], tell: Tell) -> None:
        self._real, self._functions, self._tell = real, functions, tell

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._real, name)
        if name not in self._functions:
            return function

        def call(*arguments: Any, **named: Any) -> Any:
            self._tell(name, arguments)
            return function(*arguments, **named)

        return call


def listen(functions: frozenset[str], tell: Tell) -> None:
    """Tell of some functions of TensorFlow's file system whenever Python code calls one of them.

    What TensorFlow's own operations read and write is not heard. Nothing happens where it is not imported.
    """
    file_io = sys.modules.get("tensorflow.python.lib.io.file_io")
    if file_io is not None:
        file_io._pywrap_file_io = _ReportingModule(file_io._pywrap_file_io, functions, tell)  # type: ignore[attr-defined]
