"""What went wrong in a node: the cause in a few lines, found where it is buried, able to cross processes."""

import io
import pickle
import re
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.errors import GateError, MlplatformError, UsageError

MAX_MESSAGE_CHARS = 4000
MAX_CODE_CHARS = 200
_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\n(?:    (?P<code>[^\n]*))?'
)
# Beam says where an error happened behind the error's own text.
_BEAM_TAIL = re.compile(r"\s*\[while running '.*'\]\s*$", re.DOTALL)


@dataclass(frozen=True)
class Frame:
    """One line of code that took part in a failure."""

    file: str
    line: int
    function: str
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}" + (f": {self.code}" if self.code else "")


@dataclass(frozen=True)
class Failure:
    """An exception as facts.

    Attributes:
        type: Name of the exception's class.
        message: Its own text, without Beam's additions.
        frame: The innermost line of code of the user's, None where no such line took part.
        pickled: The exception itself, empty where it cannot be pickled.
        is_ours: It is an `MlplatformError`, whose text says all that a reader needs.
        exit_code: 3 for a gate, 2 for wrong usage, else 1.
    """

    type: str
    message: str
    frame: Frame | None
    pickled: bytes
    is_ours: bool
    exit_code: int

    @classmethod
    def of_death(cls, message: str) -> "Failure":
        """Return the failure of a process that ended without a word."""
        return cls("killed", message, None, b"", is_ours=True, exit_code=1)

    def exception(self) -> Exception | None:
        """Return the exception itself, None where it cannot be had in this process.

        Of a class that is not ours, it cannot be had where its module is not imported: nobody here can catch
        it by name, and importing TensorFlow for it takes seconds and prints. What would end this process
        (`SystemExit`, `KeyboardInterrupt`) is a failure of the node and no more.
        """
        load = pickle.Unpickler if self.is_ours else _OfLoadedModules
        try:
            error = load(io.BytesIO(self.pickled)).load()
        except Exception:  # noqa: BLE001 - a class that cannot be imported or rebuilt here
            return None
        return error if isinstance(error, Exception) else None


class _OfLoadedModules(pickle.Unpickler):
    """Imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of a module that is imported.

        Raises:
            UnpicklingError: It is not.
        """
        if module not in sys.modules:
            raise pickle.UnpicklingError(f"{module} is not imported")
        return super().find_class(module, name)


def text_of(error: BaseException) -> str:
    """Return the text of an exception, also of one that fails to make it."""
    try:
        return str(error)
    except Exception as failed:  # noqa: BLE001 - the user's own class
        return f"(its text could not be made: {type(failed).__name__} in {type(error).__qualname__}.__str__)"


def describe_failure(error: BaseException) -> Failure:
    """Return the facts of `error`."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    ours = isinstance(error, MlplatformError)
    exit_code = 3 if isinstance(error, GateError) else 2 if isinstance(error, UsageError) else 1
    return Failure(
        type=type(error).__qualname__,
        message=_own_message(error)[:MAX_MESSAGE_CHARS],
        frame=innermost_user_frame(text),
        pickled=_pickled(error),
        is_ours=ours,
        exit_code=exit_code,
    )


def innermost_user_frame(traceback_text: str) -> Frame | None:
    """Return the last line of the user's own code in a traceback, also inside text that Beam passed on."""
    found = None
    for match in _FRAME.finditer(traceback_text):
        if _is_user_code(match["file"]):
            code = (match["code"] or "").strip()[:MAX_CODE_CHARS]
            found = Frame(match["file"], int(match["line"]), match["function"], code)
    return found


def _own_message(error: BaseException) -> str:
    """Return the text of an exception; of one whose text is a whole traceback (Beam), its last line."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    message = _BEAM_TAIL.sub("", text_of(error)).strip()
    if "Traceback (most recent call last)" in message:
        lines = [line for line in message.splitlines() if line.strip() and not line.startswith(" ")]
        message = lines[-1] if lines else message
    return message


def _is_user_code(file: str) -> bool:
    paths = sysconfig.get_paths()
    library = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]}
    here = str(Path(__file__).parents[1])
    return not (file.startswith(("<", here)) or any(file.startswith(folder) for folder in library))


def _pickled(error: BaseException) -> bytes:
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # noqa: BLE001 - many exceptions of others cannot be pickled
        return b""
    return content
