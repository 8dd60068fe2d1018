"""Containers of a real engine: made locked down, shared, ended by themselves, nothing left behind; and images."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import until

from remote_exec.backends.docker import kept
from remote_exec.backends.docker.container import Container, describe_end, open_container
from remote_exec.backends.docker.dialing import find_endpoint
from remote_exec.backends.docker.engine import Engine
from remote_exec.backends.docker.images import Progress
from remote_exec.backends.docker.settings import ContainerSettings, hidden
from remote_exec.backends.docker.streams import start_command
from remote_exec.errors import (
    ConfigurationError,
    HostUnavailable,
    ResourceLimitExceeded,
    RuntimeEnvironmentError,
)

from .containers import BOX, LOOK, PATIENCE_SECONDS, opened, python, run, state
from .docker_engine import IMAGE, DockerEngine

pytestmark = pytest.mark.usefixtures("docker_engine")


# --- what it is ---


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
    assert told == "it was killed for using more memory than its limit of 67 MB (exit 137)"
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
    settings = replace(settings, build_args=hidden({"WHO": "world"}))
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


def test_an_image_whose_python_does_not_run_shows_its_last_words(engine: Engine, tmp_path: Path) -> None:
    script = "#!/bin/sh\\necho no such luck >&2; exit 126\\n"
    settings = dockerfile(tmp_path, f"RUN printf '{script}' > /usr/bin/python3.11")
    with pytest.raises(
        HostUnavailable, match=r"does not start: it is exited \(exit 126\)[\s\S]*no such luck"
    ):
        opened(engine, settings)


def test_gpus_that_the_engine_has_not_are_an_error_with_a_hint_and_leave_no_container(engine: Engine) -> None:
    told = "could not start a container: could not select device driver"
    with pytest.raises(ResourceLimitExceeded, match=told) as caught:
        opened(engine, replace(BOX, gpu_devices=("all",)))
    assert "install nvidia-container-toolkit" in caught.value.hint
    assert [left.kind for left in kept.list_kept(engine)] == ["volume"]


def test_an_image_that_may_not_or_cannot_be_pulled_is_an_error_with_a_hint(engine: Engine) -> None:
    with pytest.raises(HostUnavailable, match="has no image nowhere:1, and pull is 'never'"):
        opened(engine, replace(BOX, image="nowhere:1", pull="never"))
    with pytest.raises(
        HostUnavailable, match=r"could not pull 127\.0\.0\.1:9/nothing[\s\S]*docker login 127"
    ):
        opened(engine, replace(BOX, image="127.0.0.1:9/nothing"))
