"""The files of a model's folder: listed, checked, copied and digested."""

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from mlplatform.registry.errors import UnpushableFileError

PUSH_FILE = "push.json"
SIGNATURE_FILE = "push.sig"
WITHDRAWN = "withdrawn"
_BESIDE = (PUSH_FILE, SIGNATURE_FILE)  # written by a push; no part of the model


def model_folder(version: Path) -> Path:
    """Return the model's folder, which a version's folder lies in, withdrawn or not."""
    above = version.absolute().parent
    return above.parent if above.name == WITHDRAWN else above


@dataclass(frozen=True)
class Contents:
    """What a folder holds, paths relative to it, links followed."""

    files: tuple[Path, ...]
    folders: tuple[Path, ...]


def contents(source: Path) -> Contents:
    """List what a push of `source` copies.

    Links are followed as long as they stay within the folder: the copy holds what they point to.

    Raises:
        UnpushableFileError: It holds something other than files and folders (a FIFO, a socket, a device), or
            a link that is broken, leaves the folder or forms a loop.
    """
    files: list[Path] = []
    folders: list[Path] = []
    inside = source.resolve()

    def visit(folder: Path, ancestors: frozenset[Path]) -> None:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = Path(entry.path)
            relative = path.relative_to(source)
            if entry.name in _BESIDE and folder == source:
                continue
            real = _real(path, inside, source) if entry.is_symlink() else None
            mode = path.stat().st_mode
            if stat.S_ISREG(mode):
                files.append(relative)
            elif stat.S_ISDIR(mode):
                real = real or path.resolve()
                if real in ancestors:
                    raise UnpushableFileError(source, relative, "is a link to a folder that holds it")
                folders.append(relative)
                visit(path, ancestors | {real})
            else:
                raise UnpushableFileError(source, relative, f"is a {_kind(mode)}")

    if source.is_dir():  # one that is not there holds nothing
        visit(source, frozenset({inside}))
    return Contents(tuple(files), tuple(folders))


def _real(link: Path, inside: Path, source: Path) -> Path:
    relative = link.relative_to(source)
    try:
        real = link.resolve(strict=True)
    except FileNotFoundError as error:
        target = link.readlink()
        raise UnpushableFileError(source, relative, f"is a link to {target}, which does not exist") from error
    except (OSError, RuntimeError) as error:  # Python 3.13 raises OSError, earlier versions RuntimeError
        raise UnpushableFileError(source, relative, "is a link that leads back to itself") from error
    if not real.is_relative_to(inside):
        raise UnpushableFileError(source, relative, f"is a link to {real}, outside of the folder")
    return real


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")


def copy_contents(source: Path, found: Contents, target: Path) -> None:
    """Copy what `contents` listed into the new folder `target`."""
    target.mkdir()
    for folder in found.folders:
        (target / folder).mkdir()
    for file in found.files:
        shutil.copy2(source / file, target / file)


def tree_digest(folder: Path, found: Contents | None = None) -> str:
    """Return the sha256 over all files below `folder` (paths and contents), those of a push left out.

    Args:
        folder: The folder.
        found: Its contents, where they are known already.

    Raises:
        UnpushableFileError: As `contents`.
    """
    digest = hashlib.sha256()
    for relative in sorted((found or contents(folder)).files):
        path, name = folder / relative, os.fsencode(relative.as_posix())
        digest.update(len(name).to_bytes(8, "little") + name + path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def sync_tree(folder: Path) -> None:
    """Make the files below `folder` survive a power failure."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
