"""The conformance suite: what a user relies on holds unchanged on every kind of host.

The modules named below run once for each backend; all others are about this machine's agent itself. A test that asks
something which only holds here is marked ``here`` with the reason, and the other backends that it holds for, if any.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hosts.docker_engine import IMAGE, DockerEngine, docker_engine  # noqa: F401 - a fixture
from hosts.fixtures import ssh_client, ssh_server  # noqa: F401 - fixtures
from hosts.letting_go import let_go
from hosts.sshd import SshClient
from leftovers import LINUX, Leftovers
from own_host import own_host  # noqa: F401 - a fixture

from remote_exec.backends import local
from remote_exec.backends.host import Host
from remote_exec.client.connections import connections
from remote_exec.client.placement import hosts_of
from remote_exec.config import load_config

CONFORMING = (
    "test_calls",
    "test_exceptions",
    "test_map",
    "test_classes",
    "test_values",
    "test_logs",
    "test_metrics",
    "test_directories",
    "test_capture",
    "test_preflight",
    "test_result_cache",
    "test_queued_jobs",
    "test_fairness",
    "test_portable",
    "test_jobs",
    "test_contract",
    "test_environment",
    "test_groups",
    "test_cli",
    "test_housekeeping",
    "test_gpus",
    "test_costs",
)
INDEX_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_", "PIP_")
Table = Mapping[str, str | list[str]]


def ssh(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Table:
    """An account of this machine's, by an OpenSSH server of the tests' own."""
    client: SshClient = request.getfixturevalue("ssh_client")
    client.add("conforming", request.getfixturevalue("ssh_server"))
    patch.setenv("PATH", client.environ()["PATH"])
    return {"host": "conforming"}


def docker(request: pytest.FixtureRequest, _patch: pytest.MonkeyPatch) -> Table:
    """A container of a bare Debian; it sees the tests' own files, and what the package indexes' variables name."""
    engine: DockerEngine = request.getfixturevalue("docker_engine")
    temporary: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    home: Path = request.getfixturevalue("session_home")
    named = [Path(word) for value in index_variables().values() for word in value.split()]
    read = {path for path in named if path.is_absolute() and path.exists()}
    return {
        "engine": engine.url,
        "image": IMAGE,
        "user": f"{os.getuid()}:{os.getgid()}",
        "network_mode": "host",
        "volumes": [
            *(f"{path}:{path}" for path in (temporary.getbasetemp(), home / "tmp")),
            *(f"{path}:{path}:ro" for path in read if read.isdisjoint(path.parents)),
        ],
    }


Backend = Callable[[pytest.FixtureRequest, pytest.MonkeyPatch], Table]
BACKENDS: Mapping[str, Backend | None] = {"local": None, "ssh": ssh, "docker": docker}
MARKS = {"docker": pytest.mark.slow}  # to be left out where the image's Python is not that of the tests


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what conforms on each backend; the fixture says what is missing where one cannot be had."""
    if metafunc.module.__name__.rpartition(".")[2] in CONFORMING:
        here = metafunc.definition.get_closest_marker("here")
        names = ["local", *here.args[1:]] if here else BACKENDS
        backends = [pytest.param(name, marks=MARKS.get(name, ())) for name in names]
        metafunc.parametrize("host", backends, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def host(request: pytest.FixtureRequest, session_home: Path) -> Iterator[Host]:
    """Have calls go to a host of this backend, by the user's configuration alone."""
    name = getattr(request, "param", "local")
    backend = BACKENDS[name]
    if backend is None:
        yield local.here()
        return
    patch = pytest.MonkeyPatch()
    file = session_home / "config" / "remote_exec" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = "".join(f"{key} = {value!r}\n" for key, value in backend(request, patch).items())
    told = ", ".join(f"{name} = {value!r}" for name, value in index_variables().items())
    file.write_text(
        f'instance_type = "conforming"\n[instances.conforming]\nbackend = "{name}"\n{settings}'
        f"environment_variables = {{ {told} }}\n"
    )
    instance = load_config().instances["conforming"]
    (there,) = hosts_of(instance, instance.options)
    connections.session(there)
    yield there
    let_go("conforming")
    file.unlink()
    patch.undo()


@pytest.fixture(scope="module", autouse=LINUX)
def nothing_left_by_fixtures(nothing_left_by_fixtures: Leftovers, host: Host) -> Leftovers:
    """Servers and engines that come with a host are the session's."""
    nothing_left_by_fixtures.forgive()
    return nothing_left_by_fixtures


def index_variables() -> dict[str, str]:
    """Return what tells uv and pip of this machine's package indexes."""
    return {name: value for name, value in os.environ.items() if name.startswith(INDEX_VARIABLES)}
