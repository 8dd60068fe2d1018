"""Where a container engine listens, and a connection to it: a unix socket, TCP with or without TLS, or OpenSSH.

Over SSH each connection is the system's ``ssh HOST docker system dial-stdio``, as docker's own command has it, so the
user's configuration, keys and jump hosts hold. (The ``docker`` package's way wants paramiko, and cannot carry a
command's streams.)
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...model.digests import digest_of
from ...model.errors import ConfigurationError
from ...model.record import record

DEFAULT_URL = "unix:///var/run/docker.sock"
CONNECT_SECONDS = 30.0
END_SECONDS = 3.0
SCHEMES = ("unix", "tcp", "http", "https", "ssh")

_ssh: list[subprocess.Popen[bytes]] = []  # each ends with its connection, and is then waited for
_lock = threading.Lock()


@record(kw_only=True)
class Endpoint:
    """Where an engine listens.

    Attributes:
        url: with one of the schemes above.
        ca: the file of the authority that signed its certificate; empty: the system's.
        certificate: the client's own, and its key; empty: none.
        tls: whether it speaks TLS.
        verify: whether its certificate must be good.
    """

    url: str
    tls: bool = False
    ca: str = ""
    certificate: tuple[str, str] | None = None
    verify: bool = True

    @property
    def is_here(self) -> bool:
        """Whether it is reached through a file of this machine."""
        return self.url.startswith("unix:")

    def dial(self) -> socket.socket:
        """Return a new connection, blocking.

        Raises:
            OSError: nobody answers.
        """
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(parts.path)
            except OSError:
                sock.close()
                raise
            return sock
        if parts.scheme == "ssh":
            return _dial_ssh(parts.hostname or "", parts.port, parts.username)
        port = parts.port or (2376 if self.tls else 2375)
        plain = socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS)
        plain.settimeout(None)
        return self._secured(plain, parts.hostname or "") if self.tls else plain

    def _secured(self, plain: socket.socket, host: str) -> socket.socket:
        context = ssl.create_default_context(cafile=self.ca or None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            context.load_cert_chain(*self.certificate)
        return context.wrap_socket(plain, server_hostname=host)


def _dial_ssh(host: str, port: int | None, user: str | None) -> socket.socket:
    command = ["ssh", "-T", "-o", f"ConnectTimeout={CONNECT_SECONDS:.0f}"]
    command += ["-p", str(port)] if port else []
    command += ["-l", user] if user else []
    ours, theirs = socket.socketpair()
    with theirs, _lock:
        _ssh[:] = [process for process in _ssh if process.poll() is None]
        _ssh.append(
            subprocess.Popen(
                [*command, "--", host, "docker system dial-stdio"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
            )
        )
    return ours


def end_ssh() -> None:
    """Wait for the ssh commands whose connections were closed; those that still serve one go on."""
    deadline = time.monotonic() + END_SECONDS
    with _lock:
        while _ssh and time.monotonic() < deadline:
            _ssh[:] = [process for process in _ssh if process.poll() is None]
            time.sleep(0.01)


def find_endpoint(engine: str, environ: Mapping[str, str]) -> Endpoint:
    """Return where an engine listens.

    Args:
        engine: an address, or the name of a docker context; empty: what ``DOCKER_HOST``, ``DOCKER_CONTEXT`` or the
            current context say, as for docker's own command.
        environ: environment variables.

    Raises:
        ConfigurationError: there is no such context, or the address is none.
    """
    if "://" in engine:
        return _from_url(engine, environ)
    if not engine and environ.get("DOCKER_HOST"):
        return _from_url(environ["DOCKER_HOST"], environ)
    folder = Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    name = engine or environ.get("DOCKER_CONTEXT") or ""
    try:
        name = name or _current_context(folder)
        return _from_context(folder, name) if name != "default" else _from_url(DEFAULT_URL, environ)
    except ConfigurationError:
        raise
    except FileNotFoundError:
        raise ConfigurationError(f"there is no docker context {name!r}", hint="docker context ls") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"docker's contexts in {folder} cannot be read: {error!r}") from error


def _current_context(folder: Path) -> str:
    file = folder / "config.json"
    told: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return str(told.get("currentContext") or "default")


def _from_context(folder: Path, name: str) -> Endpoint:
    """Return where the engine of a docker context listens, from docker's own files.

    Raises:
        FileNotFoundError: there is no such context.
    """
    contexts, digest = folder / "contexts", digest_of(name)
    told = json.loads((contexts / "meta" / digest / "meta.json").read_text())["Endpoints"]["docker"]
    url, files = _checked(str(told.get("Host") or DEFAULT_URL)), contexts / "tls" / digest / "docker"
    if not (url.startswith("https:") or files.is_dir()):
        return Endpoint(url=url)
    return _with_tls(url, files, verify=not told.get("SkipTLSVerify", False))


def _from_url(url: str, environ: Mapping[str, str]) -> Endpoint:
    url = _checked(url)
    folder = environ.get("DOCKER_CERT_PATH") or ""
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not url.startswith(("tcp:", "https:")) or not (folder or verify or url.startswith("https:")):
        return Endpoint(url=url)
    return _with_tls(url, Path(folder or Path.home() / ".docker"), verify=verify)


def _with_tls(url: str, folder: Path, *, verify: bool) -> Endpoint:
    """Return one that speaks TLS, with the certificates that a folder has."""
    ca, certificate, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    return Endpoint(
        url=url,
        tls=True,
        ca=str(ca) if ca.exists() else "",
        certificate=(str(certificate), str(key)) if certificate.exists() else None,
        verify=verify,
    )


def _checked(url: str) -> str:
    url = url.removeprefix("http+")
    if urlsplit(url).scheme not in SCHEMES:
        raise ConfigurationError(
            f"a container engine cannot be reached at {url!r}",
            hint=f"an address begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}",
        )
    return url
