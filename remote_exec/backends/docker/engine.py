"""One container engine: the ``docker`` package's client for it, and its errors in this project's words."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import ssl
import threading
from collections.abc import Generator, Iterator
from functools import cached_property
from importlib import import_module
from typing import Any, NoReturn

from ...model.errors import ConfigurationError, HostUnavailable
from .dialing import Endpoint, end_ssh, find_endpoint

ANSWER_SECONDS = 60.0


class EngineError(HostUnavailable):
    """The engine answered with an error.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Engine:
    """Use `open_engine`. Any thread may use it; a forked child opens its own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        with self.asking("does not answer"):
            if not endpoint.url.startswith("ssh:"):
                endpoint.dial().close()  # the package would leave a socket open if nobody answers
            self.api = _client(endpoint)

    def dial(self) -> socket.socket:
        """Return a new connection of our own, for a command's streams.

        Raises:
            HostUnavailable: nobody answers.
        """
        with self.asking("does not answer"):
            return self.endpoint.dial()

    @contextlib.contextmanager
    def asking(self, failed: str) -> Generator[None]:
        """Turn what the ``docker`` package raises within into this project's errors.

        Args:
            failed: what could not be done, for messages: "<the engine> <failed>: why".

        Raises:
            EngineError: the engine answered with an error.
            HostUnavailable: it did not answer.
        """
        try:
            yield
        except (HostUnavailable, ConfigurationError):
            raise
        except Exception as error:
            self._raise(failed, error)

    @cached_property
    def info(self) -> dict[str, Any]:
        """What it tells of itself and of its machine.

        Raises:
            HostUnavailable: it did not answer.
        """
        with self.asking("cannot tell of itself"):
            info: dict[str, Any] = self.api.info()
            return info

    def inspect(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return what the engine knows of a ``container``, ``image`` or ``volume``; None where there is none."""
        try:
            with self.asking(f"cannot tell of the {kind} {name}"):
                found: dict[str, Any] = getattr(self.api, f"inspect_{kind}")(name)
                return found
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    def stat(self, container: str, path: str) -> dict[str, Any] | None:
        """Return what lies at a path in a container, running or not; None where nothing does.

        A link's ``linkTarget`` is where it leads in the end.
        """
        import base64

        with self.asking("cannot look into a container"):
            url = f"{self.api.base_url}/v{self.api.api_version}/containers/{container}/archive"
            answer = self.api.head(url, params={"path": path}, timeout=ANSWER_SECONDS)
            told = answer.headers.get("X-Docker-Container-Path-Stat")
            found: dict[str, Any] | None = json.loads(base64.b64decode(told)) if answer.ok and told else None
            return found

    def close(self) -> None:
        """Close all connections of the package's client."""
        manager: Any = getattr(self.api.get_adapter(self.api.base_url), "poolmanager", None)
        pools: Any = manager.pools if manager is not None else {}
        for key in list(pools.keys()):
            pools[key].close()  # urllib3 leaves that to when they are collected
        self.api.close()

    def _raise(self, failed: str, error: BaseException) -> NoReturn:
        where = self.endpoint.url
        for cause in _causes(error):
            status = getattr(getattr(cause, "response", None), "status_code", None)
            if status is not None:
                said = getattr(cause, "explanation", None) or cause
                raise EngineError(
                    f"the container engine {failed}: {str(said).strip()}", status=status
                ) from error
            number = getattr(cause, "errno", None)
            if isinstance(cause, ssl.SSLError):
                raise HostUnavailable(
                    f"the container engine at {where} {failed}: {cause}",
                    hint="docker info; the certificates are those of DOCKER_CERT_PATH, or of the docker context",
                ) from error
            if number in (errno.EACCES, errno.EPERM):
                raise HostUnavailable(
                    f"the container engine at {where} does not let this user in",
                    hint="sudo usermod -aG docker $USER, then log in anew; or use a rootless engine",
                ) from error
            if number in (errno.ENOENT, errno.ECONNREFUSED):
                raise HostUnavailable(
                    f"no container engine runs at {where}",
                    hint="start it (sudo systemctl start docker), or name another: DOCKER_HOST, "
                    'docker context use, or engine = "…" in the instance type',
                ) from error
        if not _is_about_the_way(error):
            raise error
        host = self.endpoint.url.removeprefix("ssh://")
        hint = f"try: ssh {host} docker system dial-stdio" if host != where else "docker info"
        raise HostUnavailable(f"the container engine at {where} {failed}: {error}", hint=hint) from error


def _is_about_the_way(error: BaseException) -> bool:
    requests: Any = import_module("requests")
    docker: Any = import_module("docker")
    return isinstance(error, (OSError, requests.RequestException, docker.errors.DockerException))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it wraps: urllib3 and requests keep the first one in their arguments."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, BaseException) and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [*found.args, getattr(found, "reason", None), found.__cause__, found.__context__]


def _client(endpoint: Endpoint) -> Any:
    docker: Any = import_module("docker")
    if endpoint.url.startswith("ssh:"):
        return _client_over(endpoint, docker)
    tls: Any = False
    if endpoint.tls:
        tls = docker.tls.TLSConfig(
            client_cert=endpoint.certificate, ca_cert=endpoint.ca or None, verify=endpoint.verify
        )
    version = docker.constants.DEFAULT_DOCKER_API_VERSION
    client = docker.APIClient(base_url=endpoint.url, version=version, timeout=ANSWER_SECONDS, tls=tls)
    client.trust_env = False  # REQUESTS_CA_BUNDLE would rank above the engine's own authority
    return _introduced(client)


def _client_over(endpoint: Endpoint, docker: Any) -> Any:
    """Return a client whose connections are this endpoint's: made for a unix socket, which it does not open."""
    unix: Any = import_module("docker.transport.unixconn")
    client = docker.APIClient(
        base_url="unix:///over/ssh", version=docker.constants.DEFAULT_DOCKER_API_VERSION
    )
    pool = unix.UnixHTTPConnectionPool("", "", timeout=ANSWER_SECONDS)
    adapter = unix.UnixHTTPAdapter("http+unix:///")

    def new_connection() -> Any:
        connection = unix.UnixHTTPConnection("", "", ANSWER_SECONDS)

        def connect() -> None:
            connection.sock = endpoint.dial()
            connection.sock.settimeout(ANSWER_SECONDS)

        connection.connect = connect
        return connection

    pool._new_conn = new_connection

    def get_connection(_url: str, _proxies: Any = None) -> Any:
        return pool

    adapter.get_connection = get_connection
    adapter.close = pool.close
    client.mount("http+docker://", adapter)
    return _introduced(client)


def _introduced(client: Any) -> Any:
    """Have a client speak the version that its engine speaks; it is closed if there is none."""
    try:
        client._version = client._retrieve_server_version()
    except BaseException:
        client.close()
        raise
    return client


_engines: dict[tuple[int, Endpoint], Engine] = {}
_lock = threading.Lock()


def open_engine(name: str) -> Engine:
    """Return this process's client of an engine.

    Args:
        name: a docker context or an address; empty: the current one.

    Raises:
        ConfigurationError: the ``docker`` package is missing, or there is no such context.
        HostUnavailable: it does not answer.
    """
    try:
        import_module("docker")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "containers need the docker package, which is not installed",
            hint='pip install "remote_exec[docker]"',
        ) from None
    endpoint = find_endpoint(name, os.environ)
    key = (os.getpid(), endpoint)
    with _lock:
        found = _engines.get(key)
        if found is None:
            found = _engines[key] = Engine(endpoint)
        return found


def close_engines() -> None:
    """Close this process's connections; what is still needed is opened anew."""
    with _lock:
        for (pid, _), engine in _engines.items():
            if pid == os.getpid():
                engine.close()
        _engines.clear()
    end_ssh()
