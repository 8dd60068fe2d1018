"""Engines, and the ways to them: sockets, contexts, OpenSSH, TLS; Podman's and rootless ones; registries."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from waiting import until

from remote_exec.backends.docker import kept
from remote_exec.backends.docker.engine import Engine, close_engines, open_engine
from remote_exec.backends.docker.host import DockerHost, close_ways
from remote_exec.backends.docker.images import Progress, find_image
from remote_exec.client.session import open_session
from remote_exec.errors import ConfigurationError, HostUnavailable
from remote_exec.testing import check_transport

from .certificates import make_certificates
from .containers import BOX, LOOK, opened, python, run, tunnel_to_echo
from .docker_engine import IMAGE, DockerEngine, PodmanEngine, base_image
from .fixtures import missing
from .sshd import SshClient, SshServer

pytestmark = pytest.mark.usefixtures("docker_engine")


def test_an_engine_that_is_not_there_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for url in (f"unix://{tmp_path}/none", "tcp://127.0.0.1:9"):
        monkeypatch.setenv("DOCKER_HOST", url)
        with pytest.raises(
            HostUnavailable, match=r"no container engine runs at[\s\S]*systemctl start docker"
        ):
            open_engine("")
    with pytest.raises(ConfigurationError, match="cannot be reached at 'gopher://x'"):
        open_engine("gopher://x")
    with pytest.raises(ConfigurationError, match="no docker context 'nowhere'"):
        open_engine("nowhere")


def test_an_engine_that_lets_this_user_not_in_is_told(docker_engine: DockerEngine) -> None:
    program = (
        "import os, sys; from remote_exec.backends.docker.engine import Engine\n"
        "from remote_exec.backends.docker.dialing import Endpoint\n"
        "import docker, docker.context; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: Engine(Endpoint(url=sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, docker_engine.url], capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith("HostUnavailable the container engine at unix:")
    assert "usermod -aG docker" in told


def test_a_docker_context_is_followed(
    docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch, session_home: Path
) -> None:
    configuration = session_home / "home" / ".docker"
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(configuration))
    docker = partial(subprocess.run, check=True, capture_output=True)
    docker(["docker", "context", "create", "box", "--docker", f"host={docker_engine.url}"])
    try:
        docker(["docker", "context", "use", "box"])
        assert open_engine("").endpoint.url == docker_engine.url
        assert open_engine("box").api.version()["Version"]
    finally:
        close_engines()
        shutil.rmtree(configuration)


def test_an_engine_of_another_machine_is_reached_over_ssh(
    docker_engine: DockerEngine, engine: Engine, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = SshClient(short_folder / "client")
    with SshServer(short_folder / "box", client.public_key) as server:
        client.add("box", server)
        wrapper = server.path / "docker"
        wrapper.unlink(missing_ok=True)
        wrapper.write_text(f'#!/bin/sh\nDOCKER_HOST={docker_engine.url} exec {shutil.which("docker")} "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", client.environ()["PATH"])
        far = open_engine("ssh://box")
        assert opened(far) == replace(opened(engine), is_fresh=True)
        assert run(far, opened(far), "/bin/echo", "over ssh")[0] == "over ssh\n"
        with pytest.raises(HostUnavailable, match=r"at ssh://nowhere[\s\S]*try: ssh nowhere docker system"):
            open_engine("ssh://nowhere")


def test_an_engine_that_demands_certificates_is_reached_with_the_users_own(
    docker_engine: DockerEngine, engine: Engine, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = docker_engine.certificates
    monkeypatch.setenv("DOCKER_HOST", docker_engine.tls_url)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(own))
    secured = open_engine("")
    assert (secured.endpoint.url, secured.endpoint.tls) == (docker_engine.tls_url, True)
    with tunnel_to_echo(secured, BOX) as tunnel:
        check_transport(tunnel.connect)

    monkeypatch.setenv("DOCKER_CONFIG", str(short_folder / "docker"))
    files = ",".join(f"{option}={own / f'{option}.pem'}" for option in ("ca", "cert", "key"))
    told = f"host={docker_engine.tls_url},{files}"
    subprocess.run(["docker", "context", "create", "box", "--docker", told], check=True, capture_output=True)
    assert run(open_engine("box"), opened(secured), "/bin/echo", "by a context")[0] == "by a context\n"

    make_certificates(short_folder / "others")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(short_folder / "others"))
    with pytest.raises(HostUnavailable, match="certificate verify failed"):
        open_engine("")
    (short_folder / "others" / "ca.pem").write_bytes((own / "ca.pem").read_bytes())
    with pytest.raises(HostUnavailable, match=f"at {docker_engine.tls_url} does not answer"):
        open_engine("")  # it trusts the engine, which does not trust it


def test_podmans_socket_serves_as_well(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("podman") is None:
        missing("podman; apt-get install podman")
    with PodmanEngine(short_folder / "podman") as podman:
        podman.load(base_image(), IMAGE)
        monkeypatch.setenv("DOCKER_HOST", podman.url)
        engine = open_engine("")
        settings = replace(BOX, image=f"localhost/{IMAGE}", read_only=True)
        container = opened(engine, settings)
        try:
            seen = python(engine, container, LOOK)
            assert (seen["uid"], seen["capabilities"]) == (os.getuid() or 1000, 0)
            assert seen["written"]["/usr"] == "Read-only file system"
            session = open_session(DockerHost(settings))
            assert session.ask("host")["home"] == "/remote_exec/state"
            session.close()
            with tunnel_to_echo(engine, settings) as tunnel:
                check_transport(tunnel.connect, cut=lambda: engine.api.kill(container.id))
        finally:
            close_ways()
            kept.stop(engine, container.name)
            kept.prune(engine)
            assert kept.list_kept(engine) == []
            close_engines()


HASHED = "$2b$05$QgRL3JhmTc1hwYvlUCxaj.7QHnHvUxcnN4MtTojk3Qu1giBAMtQLe"  # bcrypt of "secret"
REGISTRY = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: tests, path: {folder}/users}}}}
"""


@pytest.fixture
def registry(short_folder: Path) -> Iterator[str]:
    """A real registry that lets in who knows a password."""
    server = shutil.which("docker-registry")
    if server is None:
        missing("a registry; apt-get install docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (short_folder / "users").write_text(f"ann:{HASHED}\n")
    (short_folder / "config.yml").write_text(REGISTRY.format(folder=short_folder, port=port))
    with (
        (short_folder / "log").open("wb") as log,
        subprocess.Popen(
            [server, "serve", str(short_folder / "config.yml")], stdout=log, stderr=log
        ) as process,
    ):
        try:
            until(lambda: process.poll() is not None or _listens(port))
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_an_image_is_pulled_with_the_users_credentials_and_progress(
    docker_engine: DockerEngine, registry: str, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{registry}/some/image:1"
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)
    monkeypatch.setenv("DOCKER_CONFIG", str(short_folder / "docker"))
    with tarfile.open(short_folder / "root.tar", "w") as tar:
        file = tarfile.TarInfo("random")
        file.size = 1 << 22
        tar.addfile(file, io.BytesIO(os.urandom(file.size)))
    docker_engine.load(short_folder / "root.tar", name)
    settings = replace(BOX, image=name)
    told: list[Progress] = []
    try:
        docker = partial(subprocess.run, check=True, capture_output=True)
        docker(["docker", "login", "-u", "ann", "--password-stdin", registry], input=b"secret")
        docker(["docker", "push", name])
        docker(["docker", "rmi", name])
        pulled = find_image(open_engine(""), settings, told.append)
        assert pulled["RepoTags"] == [name]
        assert max(progress.done_bytes for progress in told) >= 1 << 22
        told.clear()
        assert find_image(open_engine(""), settings, told.append) == pulled
        assert told == []
        find_image(open_engine(""), replace(settings, pull="always"), told.append)
        assert told != []
        shutil.rmtree(short_folder / "docker")
        close_engines()
        with pytest.raises(HostUnavailable, match=rf"could not pull {name}[\s\S]*docker login {registry}"):
            find_image(open_engine(""), replace(settings, pull="always"), told.append)
    finally:
        close_engines()
        docker_engine.docker("rmi", name)
