"""Where things lie on a host: one directory for all that is kept, one short one for sockets.

`REMOTE_EXEC_HOME` moves the first (default: ``$XDG_DATA_HOME/remote_exec``, else ``~/.local/share/remote_exec``).
Sockets live where the backend that started the agent says (`REMOTE_EXEC_AGENT_SOCKETS`); else in
``$XDG_RUNTIME_DIR/remote_exec/<8 hex>``, else (or where that is too long) in ``/tmp/remote_exec-<uid>/<8 hex>``, since
a unix socket's path is limited to about 100 bytes; the hex is a digest of the first directory's path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .digests import digest_of
from .record import record

# a socket's path may have 103 bytes on macOS, 107 on Linux; ours add a folder and a fork server's name
LONGEST_FOLDER = 103 - len("/f-0123456789abcdef")
LONGEST_BASE = LONGEST_FOLDER - len("/01234567")


@record
class Layout:
    """All paths of one agent: one user and one state directory."""

    home: Path
    sockets: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Layout:
        """Return the layout that these environment variables ask for."""
        home = environ.get("REMOTE_EXEC_HOME")
        if not home:
            data = environ.get("XDG_DATA_HOME") or os.path.join(
                environ.get("HOME") or os.path.expanduser("~"), ".local", "share"
            )
            home = os.path.join(data, "remote_exec")
        home = os.path.realpath(home)
        runtime = environ.get("XDG_RUNTIME_DIR")
        base = os.path.join(runtime, "remote_exec") if runtime else ""
        if not base or len(os.fsencode(base)) > LONGEST_BASE:
            base = f"/tmp/remote_exec-{os.getuid()}"  # noqa: S108
        told = environ.get("REMOTE_EXEC_AGENT_SOCKETS", "")
        if told and len(os.fsencode(told)) <= LONGEST_FOLDER:
            return cls(home=Path(home), sockets=Path(told))
        digest = digest_of(os.fsencode(home))[:8]
        return cls(home=Path(home), sockets=Path(base, digest))

    @classmethod
    def beside(cls, jobs: str) -> Layout:
        """Return the layout whose folder of jobs this is, for what is kept alone: it tells nothing of the sockets."""
        return cls(home=Path(jobs).parent, sockets=Path())

    @property
    def agent_socket(self) -> Path:
        """Where the agent listens."""
        return self.sockets / "agent"

    @property
    def agent_lock(self) -> Path:
        """Held by the one agent of this layout for as long as it lives."""
        return self.home / "agent.lock"

    @property
    def agent_log(self) -> Path:
        """What the agent has to say."""
        return self.home / "agent.log"

    @property
    def journal(self) -> Path:
        """The journal's SQLite file."""
        return self.home / "journal.sqlite3"

    @property
    def jobs(self) -> Path:
        """A folder for each job or call that left something: its log, its working directory."""
        return self.home / "jobs"

    @property
    def blobs(self) -> Path:
        """Content-addressed bytes."""
        return self.home / "cache" / "blobs-v1"

    @property
    def environments(self) -> Path:
        """Built environments, by digest."""
        return self.home / "cache" / "environments-v1"

    @property
    def bundles(self) -> Path:
        """Unpacked bundles, by digest."""
        return self.home / "cache" / "bundles-v1"

    @property
    def trees(self) -> Path:
        """Folders of data that calls are given or have returned, by digest."""
        return self.home / "cache" / "trees-v1"

    @property
    def tree_users(self) -> Path:
        """What each living process uses of these."""
        return self.home / "cache" / "tree-users-v1"

    @property
    def runtimes(self) -> Path:
        """Unpacked copies of the carried runtime, by digest."""
        return self.home / "cache" / "runtimes-v1"

    @property
    def tools(self) -> Path:
        """Copies of uv that clients have brought, by version."""
        return self.home / "cache" / "tools-v1"

    @property
    def pythons(self) -> Path:
        """Pythons that uv has brought."""
        return self.home / "cache" / "python"

    @property
    def uv_variables(self) -> dict[str, str]:
        """What keeps uv from writing anything outside of the state directory."""
        return {
            "UV_CACHE_DIR": str(self.home / "cache" / "uv"),
            "UV_PYTHON_INSTALL_DIR": str(self.pythons),
            "UV_PYTHON_INSTALL_BIN": "0",  # nothing into ~/.local/bin
        }

    @property
    def persistent_cache(self) -> Path:
        """The directory that functions find under `REMOTE_EXEC_PERSISTENT_CACHE`."""
        return self.home / "cache" / "persistent"
