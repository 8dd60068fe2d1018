"""`Dir`: a path whose content travels, where any other path travels as its name.

What is pickled of one is the digest of its tree. How the tree itself gets to the other side, and where it lies there,
is for this process's side to say: the client's or the worker's, whichever has called `install`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..model.errors import SerializationError

if TYPE_CHECKING:
    _Path = Path
    from .pickling import Named
else:
    _Path = type(Path())  # Path itself cannot be a base before Python 3.12


class Dir(_Path):
    """A folder, or a single file, that travels with its content: a path in every other respect.

    As an argument, wherever in it: the content is brought to the host once, under its digest, and the function gets
    a plain `Path` to it there, read-only. In what a function returns: the content comes back, and the caller has a
    `Dir` that is read-only, too, and stays for as long as this process lives; `copy_to` makes a copy of one's own.
    Paths made from a `Dir` (``folder / "train"``, ``folder.iterdir()``) are `Dir` as well.

    Example:
        >>> import tempfile
        >>> from remote_exec import remote
        >>> @remote
        ... def total(folder: Path) -> int:
        ...     return sum(file.stat().st_size for file in folder.iterdir())
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Dir(name)
        ...     _ = (folder / "a.txt").write_text("abc")
        ...     total(folder)
        3
    """

    def copy_to(self, target: str | os.PathLike[str]) -> Path:
        """Copy the folder or file to a path where nothing is yet, so that it can be changed; return that path.

        Args:
            target: the copy's own path, not the folder to put it into.

        Raises:
            FileExistsError: there is something.
        """
        copy = Path(target)
        if self.is_dir():
            _copy_folder(self, copy)
        elif os.path.lexists(copy):
            raise FileExistsError(f"{copy} exists")
        else:
            _copy_file(self, copy)
        return copy


def _copy_folder(source: Path, target: Path) -> None:
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries:
            copy = target / entry.name
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)
            elif entry.is_dir():
                _copy_folder(Path(entry.path), copy)
            else:
                _copy_file(Path(entry.path), copy)


def _copy_file(source: Path, target: Path) -> None:
    import shutil

    shutil.copyfile(source, target)
    target.chmod(target.stat().st_mode | (source.stat().st_mode & 0o111))


class Side(Protocol):
    """What a process does about the trees that are pickled and unpickled in it."""

    def pack(self, path: Path, named: Named | None) -> tuple[str, str]:
        """Return the tree's digest and the name of its top, and see to it that the other side can have it."""
        ...

    def unpack(self, digest: str, name: str) -> Path:
        """Return where the tree is, or will be when this value is given to anyone."""
        ...

    def end(self) -> None:
        """Let go of what it holds."""
        ...


class Noted(threading.local):
    """Digests of trees that this thread has come across, until somebody takes them."""

    def __init__(self) -> None:
        self.digests: list[str] = []
        self.by_name = False

    def take(self) -> tuple[str, ...]:
        """Return what has been noted since the last time, each once."""
        found, self.digests = self.digests, []
        return tuple(dict.fromkeys(found))


noted = Noted()  # a worker's side: what went into pickles; a client's side: what came in them

_make: Callable[[], Side] | None = None
_side: Side | None = None


def install(make: Callable[[], Side]) -> None:
    """Have a side decide about the trees of this process from now on; it is made when it is first asked."""
    global _make, _side
    _make, _side = make, None


def leave() -> None:
    """Nobody decides any longer."""
    global _make, _side
    side, _make, _side = _side, None, None
    if side is not None:
        side.end()


@contextlib.contextmanager
def by_name() -> Generator[None, None, None]:
    """Have a `Dir` travel as any other path does: one in an exception is there to be read, not to be fetched."""
    noted.by_name = True
    try:
        yield
    finally:
        noted.by_name = False


def pack(path: Path, named: Named | None) -> tuple[str, str]:
    """Ask this process's side, as `Side.pack`.

    Raises:
        SerializationError: it cannot travel.
    """
    return _asked().pack(path, named)


def unpack(digest: str, name: str) -> Path:
    """Ask this process's side, as `Side.unpack`; stands in pickles by way of `rebuild`."""
    return _asked().unpack(digest, name)


def _asked() -> Side:
    global _side
    if _side is None:
        if _make is None:
            raise SerializationError(
                "a Dir travels with a call or its result alone",
                path=("Dir",),
                hint="pass it as an argument of a remote function, or return it from one",
            )
        _side = _make()
    return _side
