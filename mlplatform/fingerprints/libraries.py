"""What is installed: the folders of libraries, the distributions in them, and what they require."""

import importlib.metadata
import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from mlplatform.fingerprints.digests import text_digest

_NAME = re.compile(r"^Name: (\S+)", re.MULTILINE)
_PACKAGE = Path(__file__).parents[1]
_OURS = tuple(f"{(_PACKAGE / name).resolve()}/" for name in (".", "components"))
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def is_user_file(path: str) -> bool:
    """Say whether a file is neither Python's own nor part of an installed distribution."""
    return not path.startswith(library_folders()) and not path.startswith("<")


def is_ours(path: str) -> bool:
    """Say whether a file belongs to this package, wherever that lies."""
    return path.startswith(_OURS)


@cache
def library_folders() -> tuple[str, ...]:
    """Return the folders of Python itself and of installed distributions."""
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(sorted({f"{folder}/" for folder in folders} | {f"{Path(f).resolve()}/" for f in folders}))


def _import_path() -> list[str]:
    """Return where installed distributions lie.

    Setuptools, once imported, adds its private copies of libraries, which nothing else was installed to use:
    whether some code of this process has imported it must not tell environments apart.
    """
    return [entry for entry in sys.path if not entry.endswith("setuptools/_vendor")]


def environment_fingerprint() -> str:
    """Return a digest that changes whenever a distribution is installed, upgraded or removed."""
    facts = []
    for folder in sorted({entry for entry in _import_path() if entry}):
        path = Path(folder)
        if path.is_dir():
            facts += [f"{p}:{p.stat().st_mtime_ns}" for p in path.glob("*.dist-info")]
    return text_digest("\n".join([sys.version, *sorted(facts)]))


def read_distributions() -> None:
    """Read what is installed, so that processes forked from this one know it."""
    versions_behind({"tfx"})


def versions_behind(tops: Iterable[str]) -> dict[str, str]:
    """Return the versions of the distributions that bring these packages, and of all that they require.

    Args:
        tops: Names of top-level packages.
    """
    of_package = _distributions_of_packages()
    pending = [name for top in tops for name in of_package.get(top, ())]
    found: dict[str, str] = {}
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name in found:
            continue
        version, required = _distribution(name)
        if version:
            found[name] = version
            pending.extend(required)
    found["python"] = ".".join(map(str, sys.version_info[:3]))
    return dict(sorted(found.items()))


@cache
def _distributions_of_packages() -> Mapping[str, list[str]]:
    """Return the distributions that bring each top-level package.

    As `importlib.metadata.packages_distributions` does from Python 3.11 on; before, it knows only those that
    declare a `top_level.txt`, which newer build tools do not write.
    """
    found: dict[str, list[str]] = {}
    for distribution in importlib.metadata.distributions(path=_import_path()):
        tops = set((distribution.read_text("top_level.txt") or "").split())
        if not tops:
            files = (line.partition(",")[0] for line in (distribution.read_text("RECORD") or "").splitlines())
            tops = {file.partition("/")[0].partition(".")[0] for file in files} - {""}
        if name := _NAME.search(distribution.read_text("METADATA") or ""):
            for top in tops:
                found.setdefault(top, []).append(name[1])
    return found


@cache
def _distribution(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a distribution's version and what it requires in any case; empty where it is not installed."""
    distribution = next(iter(importlib.metadata.distributions(name=name, path=_import_path())), None)
    if distribution is None:
        return "", ()
    # The headers alone, line by line: the parser behind `distribution.requires` takes ten times as long.
    headers = (distribution.read_text("METADATA") or "").partition("\n\n")[0].splitlines()
    version, required = "", []
    for line in headers:
        if line.startswith("Version: "):
            version = line[9:].strip()
        elif line.startswith("Requires-Dist: ") and "extra ==" not in line:
            match = _REQUIREMENT.match(line[15:])
            required += [match[1]] if match else []
    return version or distribution.version, tuple(required)
