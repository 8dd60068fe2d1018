"""What is sent to a host's Python ahead of all else: `boot`'s text, what it is asked, the archive if it lacks that."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
import tarfile
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from ..model.layout import Layout
from ..version import VERSION
from . import boot, runtime

_RELAY = (
    "import sys; sys.path.append(sys.argv[1]); from remote_exec_runtime.agent.relay import main; "
    "sys.exit(main(sys.argv[2]))"
)


def program() -> bytes:
    """Return the text of `boot`."""
    return Path(boot.__file__).read_bytes()


def relay(python: str, folder: str, target: str) -> list[str]:
    """Return the command of a tunnel's far end.

    Args:
        python: there, which runs it.
        folder: of the carried runtime there.
        target: of `agent.relay`: what it connects to.
    """
    return [python, "-I", "-S", "-c", _RELAY, folder, target]


def wishes(home: str) -> dict[str, str]:
    """Return what `boot` is asked.

    Args:
        home: the state directory there; empty: the usual one.
    """
    return {
        "home": home,
        "digest": runtime.digest(),
        "version": VERSION,
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "magic": MAGIC_NUMBER.hex(),
    }


def archive(magic: str = MAGIC_NUMBER.hex()) -> bytes:
    """Return the carried runtime as `boot` reads it: its length, and a compressed tar file.

    The one with bytecode is kept beside the runtime: it is as large again to make as to send.

    Args:
        magic: of the Python there; another than this one's compiles the runtime itself.
    """
    place = runtime.unpack(Layout.of(os.environ).runtimes)
    compiled, kept = magic == MAGIC_NUMBER.hex(), place / "archive.tar.gz"
    if compiled and kept.is_file():
        return _with_length(kept.read_bytes())
    buffer = io.BytesIO()

    def only(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member if compiled or "__pycache__" not in member.name else None

    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=4) as tar:
        tar.add(place / runtime.NAME, runtime.NAME, filter=only)
    if compiled:
        with contextlib.suppress(OSError):
            temporary = kept.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(buffer.getvalue())
            temporary.replace(kept)
    return _with_length(buffer.getvalue())


def _with_length(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data
