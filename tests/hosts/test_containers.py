"""Containers against a real engine: made locked down, shared, kept warm, ended by themselves, nothing left behind."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from remote_exec import remote
from remote_exec.backends.docker import kept
from remote_exec.backends.docker.container import Container, describe_end, open_container
from remote_exec.backends.docker.dialing import find_endpoint
from remote_exec.backends.docker.engine import Engine, close_engines, open_engine
from remote_exec.backends.docker.host import DockerHost, close_ways
from remote_exec.backends.docker.images import Progress, find_image
from remote_exec.backends.docker.settings import ContainerSettings
from remote_exec.backends.docker.streams import start_command
from remote_exec.client.connections import connections
from remote_exec.client.session import open_session
from remote_exec.errors import ConfigurationError, HostUnavailable, RuntimeEnvironmentError, WorkerDied

from .docker_engine import IMAGE, DockerEngine, PodmanEngine, base_image
from .sshd import SshClient, SshServer

pytestmark = pytest.mark.usefixtures("docker_engine")

PATIENCE_SECONDS = 60.0
BOX = ContainerSettings(instance="box", image=IMAGE, network="none")


@pytest.fixture
def engine(docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)
    found = open_engine("")
    yield found
    for left in kept.list_kept(found):
        if left.kind == "container":
            kept.remove(found, left.name)
    kept.prune(found)
    assert kept.list_kept(found) == []
    close_engines()


def opened(engine: Engine, settings: ContainerSettings = BOX) -> Container:
    return open_container(engine, settings, lambda _: None)


def run(engine: Engine, container: Container, *argv: str) -> tuple[str, str, int | None]:
    """Run a command in a container; return what it says on both outputs, and its exit code."""
    with start_command(engine, container.id, argv) as command:
        command.end_input()
        output = command.read_all().decode()
        until(lambda: command.exit_code() is not None)
        return output, command.errors.decode(), command.exit_code()


def python(engine: Engine, container: Container, program: str) -> Any:
    """Run a program in a container's Python; return the JSON that it prints."""
    output, errors, code = run(engine, container, container.python, "-I", "-S", "-c", program)
    assert code == 0, errors
    return json.loads(output)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def state(engine: Engine, container: Container) -> str:
    found = engine.inspect("container", container.id)
    return found["State"]["Status"] if found else "gone"


# --- what it is ---


LOOK = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
def writable(path):
    try:
        open(path + "/x", "w").close()
    except OSError as error:
        return error.strerror
    return True
print(json.dumps({
    "uid": os.getuid(), "capabilities": int(status["CapBnd"], 16) | int(status["CapEff"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(), "home": os.environ["HOME"],
    "written": {path: writable(path) for path in ("/usr", "/tmp", os.environ["HOME"], os.environ["REMOTE_EXEC_HOME"])},
    "networks": sorted(os.listdir("/sys/class/net")),
}))
"""


def test_a_container_is_locked_down_and_has_a_home(engine: Engine) -> None:
    seen = python(engine, opened(engine), LOOK)
    assert seen["uid"] == (os.getuid() or 1000)
    assert (seen["capabilities"], seen["no_new_privileges"]) == (0, "1")
    assert seen["written"] == {
        "/usr": "Permission denied",
        "/tmp": True,
        "/remote_exec/home": True,
        "/remote_exec/state": True,
    }
    assert seen["networks"] == ["lo"]


def test_a_read_only_root_leaves_home_and_temporary_files(engine: Engine) -> None:
    settings = replace(BOX, read_only=True, user="root", memory_bytes=1 << 28, cpus=1.0, shm_bytes=1 << 24)
    container = opened(engine, settings)
    seen = python(engine, container, LOOK)
    assert seen["uid"] == 0
    assert seen["written"]["/usr"] == "Read-only file system"
    assert seen["written"]["/tmp"] is seen["written"]["/remote_exec/home"] is True
    shm = python(
        engine, container, "import os, json; s = os.statvfs('/dev/shm'); print(s.f_blocks * s.f_frsize)"
    )
    assert shm == 1 << 24


def test_the_same_settings_find_the_same_container_and_others_another(engine: Engine) -> None:
    first = opened(engine)
    assert opened(engine).id == first.id
    assert opened(engine, replace(BOX, instance="other name of it")).id == first.id
    assert opened(engine, replace(BOX, read_only=True)).id != first.id


def test_what_is_kept_outlives_the_container(engine: Engine) -> None:
    first = opened(engine)
    run(engine, first, "/bin/sh", "-c", "echo kept > $HOME/file")
    engine.api.remove_container(first.id, force=True)
    second = opened(engine)
    assert second.id != first.id
    assert run(engine, second, "/bin/sh", "-c", "cat $HOME/file")[0] == "kept\n"


def test_volumes_show_the_hosts_files_as_asked(engine: Engine, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "data").write_text("of the host")
    settings = replace(BOX, volumes=(f"{tmp_path}:/data:ro", f"{tmp_path}:/out:rw"))
    container = opened(engine, settings)
    script = "cat /data/data; touch /data/new; echo made > /out/new"
    output, errors, _ = run(engine, container, "/bin/sh", "-c", script)
    assert output == "of the host"
    assert "Read-only file system" in errors
    assert (tmp_path / "new").read_text() == "made\n"
    missing = replace(BOX, volumes=(f"{tmp_path}/nothing:/data:ro",))
    with pytest.raises(HostUnavailable, match="nothing"):
        opened(engine, missing)


def test_processes_that_ask_at_once_get_one_container(docker_engine: DockerEngine, engine: Engine) -> None:
    engines = [Engine(find_endpoint("", os.environ)) for _ in range(4)]
    gate, found = threading.Barrier(len(engines)), []

    def ask(own: Engine) -> None:
        gate.wait()
        found.append(opened(own))

    threads = [threading.Thread(target=ask, args=(own,)) for own in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    for own in engines:
        own.api.close()
    assert len(found) == len(engines)
    assert len({container.id for container in found}) == 1
    assert [left.kind for left in kept.list_kept(engine)] == ["container", "volume"]


# --- its end ---


def test_a_container_ends_by_itself_and_comes_back_when_it_is_asked_for(engine: Engine) -> None:
    settings = replace(BOX, linger_seconds=1.0)
    container = opened(engine, settings)
    with start_command(engine, container.id, ["cat"]) as command:  # somebody is there: it stays
        time.sleep(2 * settings.linger_seconds)
        command.write(b"x")
        assert command.read() == b"x"
    until(lambda: state(engine, container) == "exited")
    assert opened(engine, settings).id == container.id
    assert state(engine, container) == "running"


TIDY = """
import signal, sys
def end(*_):
    open("/remote_exec/home/tidy", "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
signal.pause()
"""


def test_what_runs_in_it_is_told_before_it_is_stopped(engine: Engine) -> None:
    container = opened(engine)
    with start_command(engine, container.id, [container.python, "-c", TIDY]) as command:
        assert command.read() == b"ready\n"
        kept.stop(engine, container.name)
        assert command.read_all() == b""
    found = engine.inspect("container", container.id)
    assert describe_end(found) == "it is exited (exit 0)"
    assert run(engine, opened(engine), "/bin/ls", "/remote_exec/home")[0] == "tidy\n"


def test_orphans_are_waited_for(engine: Engine) -> None:
    container = opened(engine)
    run(engine, container, "/bin/sh", "-c", "(true & exec sleep 0.1) &")
    look = (
        "import os, json; ids = [name for name in os.listdir('/proc') if name.isdigit()]; "
        "print(json.dumps([open(f'/proc/{pid}/stat').read().split()[2] for pid in ids]))"
    )
    until(lambda: "Z" not in python(engine, container, look))


GREEDY = "x = bytearray(1 << 28); print(len(x))"


def test_memory_beyond_the_limit_kills_and_is_told(engine: Engine) -> None:
    settings = replace(BOX, memory_bytes=1 << 26)
    container = opened(engine, settings)
    assert run(engine, container, container.python, "-c", GREEDY) == ("", "", 137)
    assert state(engine, container) == "running"
    wanted_first = "open('/proc/1/oom_score_adj', 'w').write('1000'); "
    with start_command(engine, container.id, [container.python, "-c", wanted_first + GREEDY]) as command:
        command.read_all()
    until(lambda: state(engine, container) == "exited")
    told = describe_end(engine.inspect("container", container.id))
    assert told == "it was killed for using more memory than its limit (exit 137)"
    assert run(engine, opened(engine, settings), "/bin/echo", "back")[0] == "back\n"


def test_prune_removes_what_is_left_and_nothing_that_is_used(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = opened(engine)
    killed = opened(engine, replace(BOX, pids=100))
    engine.api.kill(killed.id)
    engine.api.create_container_from_config(  # its maker died before it could start it
        {
            "Image": IMAGE,
            "Cmd": ["true"],
            "Labels": {**_labels_of(engine, running), "remote_exec.created": "1"},
        },
        "half-made",
    )
    engine.api.create_container_from_config({"Image": IMAGE, "Cmd": ["true"]}, "somebody-elses")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(kept, "owner", lambda: "somebody else")
            assert kept.prune(engine) == []
        removed = {(left.kind, left.name) for left in kept.prune(engine)}
        assert removed == {("container", killed.name), ("container", "half-made"), ("volume", killed.name)}
        assert {left.name for left in kept.list_kept(engine)} == {running.name}
        assert engine.inspect("container", "somebody-elses") is not None
    finally:
        engine.api.remove_container("somebody-elses")
    kept.remove(engine, running.name)
    assert kept.list_kept(engine) == []


def _labels_of(engine: Engine, container: Container) -> dict[str, str]:
    found = engine.inspect("container", container.id)
    assert found is not None
    return found["Config"]["Labels"]


# --- its image ---


def dockerfile(folder: Path, *lines: str) -> ContainerSettings:
    (folder / "Dockerfile").write_text("\n".join((f"FROM {IMAGE}", *lines)))
    return replace(BOX, image="", dockerfile=str(folder / "Dockerfile"))


def test_an_image_is_built_once_for_the_same_files(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("hello")
    (tmp_path / ".dockerignore").write_text("ignored*\n")
    settings = dockerfile(tmp_path, "ARG WHO", "COPY greeting /greeting", "RUN echo $WHO >> /greeting")
    settings = replace(settings, build_args=(("WHO", "world"),))
    told: list[Progress] = []
    first = open_container(engine, settings, told.append)
    assert any("RUN echo $WHO" in progress.text for progress in told)
    assert run(engine, first, "/bin/cat", "/greeting")[0] == "helloworld\n"
    told.clear()
    (tmp_path / "ignored.log").write_text("this changes nothing")
    assert open_container(engine, settings, told.append).id == first.id
    assert told == []
    (tmp_path / "greeting").write_text("good night ")
    second = open_container(engine, settings, told.append)
    assert run(engine, second, "/bin/cat", "/greeting")[0] == "good night world\n"
    kept.remove(engine, first.name)
    assert [left.kind for left in kept.prune(engine)] == ["image"]


def test_a_build_that_fails_shows_its_last_lines(engine: Engine, tmp_path: Path) -> None:
    settings = dockerfile(tmp_path, "RUN echo the reason is this >&2; exit 3")
    with pytest.raises(RuntimeEnvironmentError) as caught:
        opened(engine, settings)
    assert "the reason is this" in caught.value.output
    assert "returned a non-zero code: 3" in str(caught.value)
    with pytest.raises(ConfigurationError, match="not there"):
        opened(engine, replace(settings, dockerfile=str(tmp_path / "none")))


def test_an_image_with_an_entrypoint_and_a_user_of_its_own_works(engine: Engine, tmp_path: Path) -> None:
    settings = dockerfile(
        tmp_path,
        "RUN mkdir /work && echo 'ann:x:1234:4321::/work:/bin/sh' >> /etc/passwd && rm /usr/bin/python3 && "
        "mkdir -p /opt/py/bin && ln -s /usr/bin/python3.11 /opt/py/bin/python3",
        "ENV PATH=/opt/py/bin:/usr/bin:/bin",
        'ENTRYPOINT ["/bin/false"]',
        'CMD ["--nothing"]',
        "USER nobody",
        "WORKDIR /work",
    )
    container = opened(engine, replace(settings, user="ann"))
    who = python(
        engine,
        container,
        "import os, json; print(json.dumps([os.getuid(), os.getgid(), os.environ['USER']]))",
    )
    assert who == [1234, 4321, "ann"]
    with pytest.raises(HostUnavailable, match="no user 'eve'"):
        opened(engine, replace(settings, user="eve"))
    assert sorted(left.kind for left in kept.list_kept(engine)) == ["container", "image", "volume"]


def test_an_image_without_a_python_says_which_it_has(engine: Engine, tmp_path: Path) -> None:
    settings = dockerfile(tmp_path, "RUN cd /usr/bin && mv python3.11 python3.8 && ln -sf python3.8 python3")
    with pytest.raises(HostUnavailable, match=r"no Python 3\.10 or newer; found: /usr/bin/python3 \(3\.8\)"):
        opened(engine, settings)
    assert [left.kind for left in kept.list_kept(engine)] == ["image"]


def test_gpus_that_the_engine_has_not_are_an_error_and_leave_no_container(engine: Engine) -> None:
    with pytest.raises(HostUnavailable, match="could not start a container: could not select device driver"):
        opened(engine, replace(BOX, gpu_devices=("all",)))
    assert [left.kind for left in kept.list_kept(engine)] == ["volume"]


def test_an_image_that_may_not_or_cannot_be_pulled_is_an_error_with_a_hint(engine: Engine) -> None:
    with pytest.raises(HostUnavailable, match="has no image nowhere:1, and pull is 'never'"):
        opened(engine, replace(BOX, image="nowhere:1", pull="never"))
    with pytest.raises(
        HostUnavailable, match=r"could not pull 127\.0\.0\.1:9/nothing[\s\S]*docker login 127"
    ):
        opened(engine, replace(BOX, image="127.0.0.1:9/nothing"))


# --- the engine ---


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


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """One whose path is short, since sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="re-", dir="/tmp") as folder:
        yield Path(folder)


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


def test_podmans_socket_serves_as_well(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("podman") is None:
        pytest.skip("no podman here: apt-get install podman")
    with PodmanEngine(short_folder / "podman") as podman:
        podman.load(base_image(), IMAGE)
        monkeypatch.setenv("DOCKER_HOST", podman.url)
        engine = open_engine("")
        container = opened(engine, replace(BOX, image=f"localhost/{IMAGE}", read_only=True))
        try:
            seen = python(engine, container, LOOK)
            assert (seen["uid"], seen["capabilities"]) == (os.getuid() or 1000, 0)
            assert seen["written"]["/usr"] == "Read-only file system"
            session = open_session(DockerHost(replace(BOX, image=f"localhost/{IMAGE}", read_only=True)))
            assert session.ask("host")["home"] == "/remote_exec/state"
            session.close()
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
        assert os.environ.get("CI") != "true", "CI tests pulls: apt-get install docker-registry"
        pytest.skip("no docker-registry here: apt-get install docker-registry")
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


# --- an agent in it ---


@pytest.fixture
def calls(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    """A project whose instance type ``box`` is a container; its sessions end with the test."""
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.remote_exec.instances.box]\nbackend = "docker"\nimage_uri = "{IMAGE}"\n'
        'network_mode = "none"\nread_only = true\nmemory_limit = "512 MB"\n'
    )
    monkeypatch.chdir(tmp_path)
    yield engine
    for (host, _), dispatcher in list(connections._dispatchers.items()):
        if isinstance(host, DockerHost):
            connections.drop(dispatcher, cancel=True)
    for host, session in list(connections._sessions.items()):
        if isinstance(host, DockerHost):
            session.close()
            del connections._sessions[host]
    close_ways()


def test_a_function_runs_in_a_container_as_it_would_here(
    calls: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    @remote(instance_type="box", dependencies=[])
    def where(number: int) -> tuple[int, int, str]:
        print("printed there")
        if number < 0:
            raise ValueError("no roots of", number)
        return number * 2, os.getuid(), os.environ["HOME"]

    assert where(21) == (42, os.getuid() or 1000, "/remote_exec/home")
    assert "printed there" in capfd.readouterr().out
    with pytest.raises(ValueError, match="no roots of"):
        where(-1)
    data = os.urandom(1 << 22)
    echo = remote(lambda data: data[::-1], instance_type="box", dependencies=[])
    assert echo(data) == data[::-1]


@pytest.mark.parametrize("user", ["", f"{os.getuid()}:{os.getgid()}"], ids=["by tunnel", "directly"])
def test_a_container_that_was_killed_is_told_and_started_again_with_what_it_kept(
    engine: Engine, user: str
) -> None:
    """As another user than this, whom an agent only hears through its relay; and as this one."""
    settings = replace(BOX, user=user)
    host = DockerHost(settings)
    try:
        first = open_session(host)
        assert first.ask("host")["home"] == "/remote_exec/state"
        first.close()
        (container,) = [left for left in kept.list_kept(engine) if left.kind == "container"]
        run(engine, opened(engine, settings), "/bin/touch", "/remote_exec/state/of-the-first")
        engine.api.kill(container.name)
        with pytest.raises(HostUnavailable, match=r"is gone: it is exited \(exit 137\)"):
            until(lambda: host.connect().close() is not None)
        second = open_session(host)
        assert second.welcome.runtime == first.welcome.runtime
        second.close()
    finally:
        close_ways()
    listed, _, _ = run(engine, opened(engine, settings), "/bin/ls", "/remote_exec/state")
    assert "of-the-first" in listed


@pytest.fixture(params=["1000:1000", f"{os.getuid()}:{os.getgid()}"], ids=["by tunnel", "directly"])
def user(request: pytest.FixtureRequest, calls: Engine, tmp_path: Path) -> None:
    """Whose rights processes in ``box`` have: a way to its agent for each."""
    with (tmp_path / "pyproject.toml").open("a") as file:
        file.write(f'user = "{request.param}"\n')


def kill_container(engine: Engine) -> None:
    (name,) = [left.name for left in kept.list_kept(engine) if left.kind == "container"]
    engine.api.kill(name)


def is_known_to_be_broken() -> bool:
    """Whether this process has found that there is no connection to any worker in a container."""
    return all(
        channel.stream.cut_at or channel.closed
        for (host, _), dispatcher in connections._dispatchers.items()
        for channel in dispatcher._lanes.channels
        if isinstance(host, DockerHost)
    )


@pytest.mark.usefixtures("user")
def test_a_call_whose_container_was_killed_has_died_and_is_not_run_again(calls: Engine) -> None:
    box = remote(instance_type="box", dependencies=[], connection_timeout=600)

    @box
    def hang() -> None:
        with (Path.home() / "begun").open("a") as file:
            file.write("once;")
        time.sleep(600)

    @box
    def begun() -> str:
        path = Path.home() / "begun"
        return path.read_text() if path.exists() else ""

    future = hang.submit()
    until(lambda: begun() == "once;")
    kill_container(calls)
    with pytest.raises(WorkerDied):
        future.result(PATIENCE_SECONDS)
    assert begun() == "once;"  # in the next container, which has the same home


@pytest.mark.usefixtures("user")
def test_a_call_after_its_idle_container_was_killed_starts_another(calls: Engine) -> None:
    # for so long an agent that is out of reach would be waited for: that it is gone is seen
    add = remote(lambda x, y: x + y, instance_type="box", dependencies=[], connection_timeout=600)
    assert add(1, 2) == 3
    for _ in range(2):
        kill_container(calls)
        until(is_known_to_be_broken)  # what is sent before may have begun there, for all that is known
        assert add.submit(3, 4).result(PATIENCE_SECONDS) == 7
