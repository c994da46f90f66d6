"""Code that travels with a package: the Python files beside a `module_file`, or beside a function component.

TFX packs the files beside a `module_file` into a wheel below the pipeline's root, which the container then
installs with pip. Here they are part of the task's arguments, so that compiling needs no credentials, other
code is another key of the cluster's cache, and the image needs no pip.
"""

import base64
import io
import sysconfig
import zipfile
from pathlib import Path

_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold


def packed(folder: Path) -> str:
    """Return the `.py` files of a folder, not of those below it, as a zip file in base64.

    The same files give the same text.
    """
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.glob("*.py")):
            if file.is_file():
                info = zipfile.ZipInfo(file.name, _TIME)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, file.read_bytes(), compresslevel=9)
    return base64.b64encode(data.getvalue()).decode()


def is_lone(file: str, module: str) -> bool:
    """Say whether a module is a file of its own, which no image has: neither in a package nor installed."""
    if not file or "." in module:
        return False
    path = Path(file).resolve()
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(path.is_relative_to(Path(place).resolve()) for place in installed if place)
