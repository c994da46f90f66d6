"""What code a node's result depends on: the user's files that it imports, and the libraries behind them."""

import ast
import importlib.metadata
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mlplatform.orchestration.local.digests import file_digest, text_digest

_IMPORT_PATH = re.compile(r"^([A-Za-z_]\w*(?:\.\w+)+)(?::\w+)?$")
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


@dataclass(frozen=True)
class Closure:
    """Code as it is now.

    Attributes:
        files: Digest per source file of the user's (all that is neither installed nor Python's own).
        libraries: Version per installed distribution.
    """

    files: dict[str, str]
    libraries: dict[str, str]


def closure_of(modules: Iterable[str], files: Iterable[Path] = ()) -> Closure:
    """Follow the imports of modules and files.

    Import statements are read, not run, also those inside functions. Installed packages are followed by
    their declared requirements.

    Args:
        modules: Names of modules.
        files: Source files that are imported from where they lie, next to their neighbours.
    """
    sources: dict[str, str] = {}
    tops: set[str] = set()
    pending: list[tuple[str | None, Path, Path | None]] = [(None, path, path.parent) for path in files]
    for module in modules:
        pending.extend(_sources(module, None, tops))
    while pending:
        name, path, beside = pending.pop()
        path = path.resolve()
        if str(path) in sources:
            continue
        sources[str(path)] = file_digest(str(path))
        for imported in _imports(path, name).always if path.suffix == ".py" else ():
            pending.extend(_sources(imported, beside, tops))
    return Closure(dict(sorted(sources.items())), _libraries(tops))


def modules_named_in(value: object) -> Iterator[str]:
    """Yield the import paths (`a.b.c`, `a.b:c`) that are strings within a parsed JSON value."""
    if isinstance(value, str):
        match = _IMPORT_PATH.match(value)
        if match and not value.endswith(".py"):
            yield match[1]
    elif isinstance(value, dict):
        for entry in value.values():
            yield from modules_named_in(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from modules_named_in(entry)


def is_user_file(path: str) -> bool:
    """Say whether a file is neither Python's own nor part of an installed distribution."""
    return not path.startswith(library_folders()) and not path.startswith("<")


@cache
def library_folders() -> tuple[str, ...]:
    """Return the folders of Python itself and of installed distributions."""
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(sorted({f"{folder}/" for folder in folders} | {f"{Path(f).resolve()}/" for f in folders}))


def environment_fingerprint() -> str:
    """Return a digest that changes whenever a distribution is installed, upgraded or removed."""
    facts = []
    for folder in sorted({entry for entry in sys.path if entry}):
        path = Path(folder)
        if path.is_dir():
            facts += [f"{p}:{p.stat().st_mtime_ns}" for p in path.glob("*.dist-info")]
    return text_digest("\n".join([sys.version, *sorted(facts)]))


def _sources(
    module: str, beside: Path | None, tops: set[str]
) -> Iterator[tuple[str | None, Path, Path | None]]:
    """Yield the user's source files that importing a module would run; note what is installed in `tops`."""
    top, *rest = module.split(".")
    if beside is not None and not _is_known(top):
        for candidate in (beside / f"{top}.py", beside / top / "__init__.py"):
            if candidate.is_file():
                yield None, candidate, beside
                return
    folder, package = _top_level(top)
    if package is None and folder is None:
        return
    origin = str(package or folder)
    if not is_user_file(origin):
        tops.add(top)
        return
    if package is not None:
        yield top, package, None
    name = top
    for part in rest:
        if folder is None:
            return
        lazy = _imports(folder / "__init__.py", name).by_name if (folder / "__init__.py").is_file() else {}
        if part in lazy and lazy[part] != f"{name}.{part}":
            yield from _sources(lazy[part], None, tops)
            return
        name = f"{name}.{part}"
        inner = folder / part
        if (inner / "__init__.py").is_file():
            yield name, inner / "__init__.py", None
            folder = inner
        elif (folder / f"{part}.py").is_file():
            yield name, folder / f"{part}.py", None
            folder = None
        elif inner.is_dir():
            folder = inner
        else:
            return


def _is_known(top: str) -> bool:
    return top in sys.stdlib_module_names or _top_level(top) != (None, None)


@cache
def _top_level(top: str) -> tuple[Path | None, Path | None]:
    """Return the folder of a top-level package (None for a plain module) and its source file."""
    if top in sys.stdlib_module_names:
        return None, None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None, None
    if spec is None:
        return None, None
    folders = list(spec.submodule_search_locations or ())
    file = Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None
    return (Path(folders[0]) if folders else None), file


@dataclass(frozen=True)
class _Imports:
    """What a source file imports.

    Attributes:
        always: Modules; of `from a import b`, `a.b`.
        by_name: Imports for type checkers only, by the name that they bind: how a lazy package says where its
            names come from. They are followed where somebody imports that name.
    """

    always: frozenset[str]
    by_name: dict[str, str]


@cache
def _imports(path: Path, name: str | None) -> _Imports:
    """Return what a source file imports; one that cannot be parsed imports nothing."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return _Imports(frozenset(), {})
    package = ""
    if name:
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    lazy = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    always: set[str] = set()
    by_name: dict[str, str] = {}
    for node in ast.walk(tree):
        for bound, module in _bindings(node, package):
            if node in lazy:
                by_name[bound] = module
            else:
                always.add(module)
    return _Imports(frozenset(always), by_name)


def _bindings(node: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """Yield the names that an import statement binds, each with its module (and name within it)."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name, alias.name
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parts, base] if base else parts)
        for alias in node.names:
            yield alias.asname or alias.name, f"{base}.{alias.name}" if base else alias.name


def read_distributions() -> None:
    """Read what is installed, so that processes forked from this one know it."""
    _libraries({"tfx"})


def _libraries(tops: set[str]) -> dict[str, str]:
    """Return the versions of the distributions that bring these packages, and of all that they require."""
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
    return importlib.metadata.packages_distributions()


@cache
def _distribution(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a distribution's version and what it requires in any case; empty where it is not installed."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
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
