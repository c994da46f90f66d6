"""What code a node's result depends on: the user's files that it imports, and the libraries behind them."""

import ast
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeGuard

from mlplatform.fingerprints.digests import file_digest
from mlplatform.fingerprints.imported import is_edited
from mlplatform.fingerprints.libraries import is_ours, is_user_file, versions_behind

_IMPORT_PATH = re.compile(r"^([A-Za-z_]\w*(?:\.\w+)*)(?::(\w+)(?:\.\w+)*)?$")
_FILE_ENDINGS = (".py", *importlib.machinery.EXTENSION_SUFFIXES)


@dataclass(frozen=True)
class Closure:
    """Code as it is now.

    Attributes:
        files: Digest per source file of the user's (all that is neither installed nor Python's own).
        libraries: Version per installed distribution.
        variables: Environment variables that these files read by a name that stands in them.
        missing: Modules that were asked for and are not to be found.
        edited: Files that this process imported before they became what they are now.
        is_open: A file of the user's imports by a name that it computes, so that more may belong to it.
    """

    files: dict[str, str]
    libraries: dict[str, str]
    variables: tuple[str, ...]
    missing: tuple[str, ...]
    edited: tuple[str, ...]
    is_open: bool


def closure_of(modules: Iterable[str], files: Iterable[Path] = (), named: Iterable[str] = ()) -> Closure:
    """Follow the imports of modules and files.

    Import statements are read, not run, also those inside functions. Installed packages are followed by
    their declared requirements.

    Args:
        modules: Names of modules.
        files: Source files that are imported from where they lie, next to their neighbours.
        named: Names that may be modules, or something in modules, or nothing of the kind.
    """
    walk = _Walk({}, set(), set())
    pending = [_SourceFile(None, path, path.parent) for path in files]
    missing = []
    for module in modules:
        found = list(walk.sources(module, None))
        pending.extend(found)
        top = module.partition(".")[0]
        if not found and top not in walk.tops and top not in sys.stdlib_module_names:
            missing.append(module)
    for name in named:
        pending.extend(walk.sources(name, None))
    while pending:
        pending.extend(walk.visit(pending.pop()))
    return Closure(
        files=dict(sorted(walk.files.items())),
        libraries=versions_behind(walk.tops),
        variables=tuple(sorted(walk.variables)),
        missing=tuple(missing),
        edited=tuple(file for file, digest in sorted(walk.files.items()) if is_edited(file, digest)),
        is_open=walk.is_open,
    )


def modules_named_in(value: object) -> Iterator[str]:
    """Yield, dotted, the import paths (`a.b.c`, `a.b:c`, `a:c`) that are strings in a parsed JSON value."""
    if isinstance(value, str):
        match = _IMPORT_PATH.match(value)
        if match and not value.endswith(".py") and (match[2] or "." in value):
            yield f"{match[1]}.{match[2]}" if match[2] else match[1]
    elif isinstance(value, dict):
        for entry in value.values():
            yield from modules_named_in(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from modules_named_in(entry)


@dataclass(frozen=True)
class _SourceFile:
    """A source file, the module that it is (None for a file by itself), and the folder of its neighbours."""

    module: str | None
    path: Path
    beside: Path | None


@dataclass
class _Walk:
    """The files found so far, the top-level packages behind which libraries are, the variables read, and
    whether a file of the user's imports by computed names."""

    files: dict[str, str]
    tops: set[str]
    variables: set[str]
    is_open: bool = False

    def visit(self, source: _SourceFile) -> Iterator[_SourceFile]:
        """Take a file, and yield what it imports."""
        path = source.path.resolve()
        if str(path) in self.files:
            return
        self.files[str(path)] = file_digest(str(path))
        if path.suffix == ".py":
            found = _imports(path, source.module)
            self.variables.update(found.variables)
            self.is_open |= found.is_open and not is_ours(str(path))
            for module in found.always:
                yield from self.sources(module, source.beside)

    def sources(self, module: str, beside: Path | None) -> Iterator[_SourceFile]:
        """Yield the user's source files that importing a module would run; note what is installed."""
        top, *rest = module.split(".")
        folders, package = _top_level(top)
        if not folders and package is None and beside is not None and top not in sys.stdlib_module_names:
            folders, package = _find_in((beside,), top)
        origin = package or (folders[0] if folders else None)
        if origin is None:
            return
        if not is_user_file(str(origin)):
            self.tops.add(top)
            return
        if package is not None:
            yield _SourceFile(top, package, beside)
        name = top
        for part in rest:
            if not folders:
                return
            own = _imports(package, name) if package and package.suffix == ".py" else _NOTHING
            if part == "*":
                for exported in own.exports:
                    yield from self.sources(f"{name}.{exported}", beside)
                return
            elsewhere = own.by_name.get(part)
            if elsewhere and elsewhere != f"{name}.{part}":
                yield from self.sources(elsewhere, beside)
                return
            name = f"{name}.{part}"
            folders, package = _find_in(folders, part)
            if package is not None:
                yield _SourceFile(name, package, beside)


def _find_in(folders: tuple[Path, ...], part: str) -> tuple[tuple[Path, ...], Path | None]:
    """Return a package's folders (none of a plain module) and the source file (None of a namespace)."""
    for folder in folders:
        if (folder / part / "__init__.py").is_file():
            return (folder / part,), folder / part / "__init__.py"
        for ending in _FILE_ENDINGS:
            if (folder / f"{part}{ending}").is_file():
                return (), folder / f"{part}{ending}"
    return tuple(folder / part for folder in folders if (folder / part).is_dir()), None


@cache
def _top_level(top: str) -> tuple[tuple[Path, ...], Path | None]:
    """Return what `_find_in` returns, of a top-level module on the import path."""
    if top in sys.stdlib_module_names:
        return (), None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):  # a script, or a module that was made by hand
        file = getattr(sys.modules.get(top), "__file__", None)
        return (), Path(file) if file and Path(file).is_file() else None
    if spec is None:
        return (), None
    file = Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None
    return tuple(Path(folder) for folder in spec.submodule_search_locations or ()), file


@dataclass(frozen=True)
class _Imports:
    """What a source file imports and reads.

    Attributes:
        always: Modules; of `from a import b`, `a.b`.
        by_name: Imports for type checkers only, by the name that they bind: how a lazy package says where its
            names come from. They are followed where somebody imports that name.
        exports: The names in `__all__`.
        variables: Environment variables, read by their names.
        is_open: It imports by a name that does not stand in it.
    """

    always: frozenset[str] = frozenset()
    by_name: dict[str, str] = field(default_factory=dict)
    exports: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()
    is_open: bool = False


_NOTHING = _Imports()


@cache
def _imports(path: Path, name: str | None) -> _Imports:
    """Return what a source file imports; one that cannot be parsed imports nothing."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return _NOTHING
    package = ""
    if name:
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    nodes = list(ast.walk(tree))
    lazy = {
        inner
        for node in nodes
        if isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    always: set[str] = set()
    by_name: dict[str, str] = {}
    for node in nodes:
        for bound, module in _bindings(node, package):
            if node in lazy:
                by_name[bound] = module
            else:
                always.add(module)
    exports = {text for node in nodes for text in _exports(node)}
    variables = {text for node in nodes for text in _variables(node)}
    is_open = any(_is_computed_import(node) for node in nodes)
    return _Imports(frozenset(always), by_name, frozenset(exports), frozenset(variables), is_open)


def _bindings(node: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """Yield the names that an import binds, each with its module (and name within it)."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name, alias.name
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node.module or "", node.level, package)
        for alias in node.names:
            yield alias.asname or alias.name, f"{base}.{alias.name}" if base else alias.name
    elif _is_import_call(node):
        for text in _texts(node.args[:1]):
            module = text.lstrip(".")
            yield text, _absolute(module, len(text) - len(module), package)


def _is_import_call(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and _last_name(node.func) in ("import_module", "__import__")


def _is_computed_import(node: ast.AST) -> bool:
    return _is_import_call(node) and not list(_texts(node.args[:1]))


def _absolute(module: str, level: int, package: str) -> str:
    if not level:
        return module
    parts = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*parts, module] if module else parts)


def _exports(node: ast.AST) -> Iterator[str]:
    """Yield the names that an assignment to `__all__` lists."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(_last_name(target) == "__all__" for target in targets):
            yield from _texts(ast.walk(node.value))


def _variables(node: ast.AST) -> Iterator[str]:
    """Yield the variables that code reads, not sets: `environ["X"]`, `getenv("X")`, `"X" in environ`."""
    if isinstance(node, ast.Subscript) and _last_name(node.value) == "environ":
        if isinstance(node.ctx, ast.Load):
            yield from _texts([node.slice])
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript):
        if _last_name(node.target.value) == "environ":
            yield from _texts([node.target.slice])
    elif isinstance(node, ast.Compare) and _last_name(node.comparators[0]) == "environ":
        yield from _texts([node.left])
    elif isinstance(node, ast.Call):
        of = node.func.value if isinstance(node.func, ast.Attribute) else None
        if _last_name(node.func) == "getenv" or (of is not None and _last_name(of) == "environ"):
            yield from _texts(node.args[:1])


def _last_name(node: ast.AST) -> str:
    """Return `c` of the expressions `c` and `a.b.c`; empty for others."""
    return getattr(node, "attr", "") or getattr(node, "id", "")


def _texts(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
