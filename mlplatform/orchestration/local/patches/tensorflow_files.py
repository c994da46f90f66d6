"""TensorFlow's file system, which Python's audit hooks do not hear: a listener at its door."""

import sys
from collections.abc import Callable
from typing import Any

from mlplatform.private_names import Patch, apply_patches

_FILE_IO = "tensorflow.python.lib.io.file_io:_pywrap_file_io"
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
    if "tensorflow.python.lib.io.file_io" in sys.modules:
        apply_patches((Patch(lambda: _listen(functions, tell), (_FILE_IO,)),))


def _listen(functions: frozenset[str], tell: Tell) -> None:
    file_io: Any = sys.modules["tensorflow.python.lib.io.file_io"]
    file_io._pywrap_file_io = _ReportingModule(file_io._pywrap_file_io, functions, tell)
