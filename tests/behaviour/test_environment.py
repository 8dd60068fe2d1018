"""Environments as users ask for them: every form of `dependencies`, built once, entered, held; nothing of ours in them.

Real uv. Most wheels are made on the spot, so that which version came tells which form was understood.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import environment_work as work
import pytest
import uv as uv_package
from interpreters import python_of
from waiting import until
from wheels import make_wheel

from remote_exec import remote
from remote_exec.agent.builders import tool_environ
from remote_exec.agent.environments import EnvironmentStore
from remote_exec.backends import local
from remote_exec.backends.host import Host
from remote_exec.client.connections import connections
from remote_exec.errors import HostUnavailable, RuntimeEnvironmentError
from remote_exec.model.layout import Layout

UV = uv_package.find_uv_bin()
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
REPOSITORY = Path(__file__).parents[2]
SECONDS = 30.0


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels: apple 1.0 to 6.0, and pear, which needs apple."""
    folder = tmp_path_factory.mktemp("index")
    for number in range(1, 7):
        make_wheel(folder, "apple", version=f"{number}.0")
    make_wheel(folder, "pear", requires="apple")
    return folder


class Wheels(NamedTuple):
    """Where they lie, and where any host finds them."""

    folder: Path
    url: str


@pytest.fixture(scope="module")
def wheels(index: Path) -> Iterator[Wheels]:
    with Index(index) as server:
        server.asked.set()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Wheels(index, f"{server.url}/apple/")
        server.shutdown()
        thread.join()


# --- what `dependencies` may be -----------------------------------------------------------------------------------


def as_list(folder: Path, wheels: Wheels) -> Any:
    return ["--no-index", f"--find-links {wheels.url}", "apple==1.0"]


def as_requirements(folder: Path, wheels: Wheels) -> Any:
    (folder / "base.txt").write_text("apple==2.0\n")
    path = folder / "requirements.txt"
    path.write_text(f"--no-index\n--find-links {wheels.url}\n-r base.txt  # nested\npear\n")
    return path


def as_pyproject(folder: Path, wheels: Wheels) -> Any:
    wheel = shutil.copy(wheels.folder / "apple-3.0-py3-none-any.whl", folder)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "0"\nrequires-python = ">=3.10"\ndependencies = ["apple"]\n'
        f'[tool.uv.sources]\napple = {{ path = "{wheel}" }}\n'
    )
    return folder


def as_script(folder: Path, wheels: Wheels) -> Any:
    path = folder / "train.py"
    wheel = (wheels.folder / "apple-4.0-py3-none-any.whl").as_uri()
    path.write_text(
        f'# /// script\n# dependencies = ["apple @ {wheel}"]\n# ///\nraise SystemExit("not run")\n'
    )
    return path


def as_wheels(folder: Path, wheels: Wheels) -> Any:
    return [wheels.folder / "apple-5.0-py3-none-any.whl", str(wheels.folder / "pear-1.0-py3-none-any.whl")]


@pytest.mark.parametrize("form", [as_list, as_requirements, as_pyproject, as_script, as_wheels])
def test_every_form_of_dependencies_is_understood(
    form: Callable[[Path, Wheels], Any], wheels: Wheels, tmp_path: Path
) -> None:
    expected = f"{[as_list, as_requirements, as_pyproject, as_script, as_wheels].index(form) + 1}.0"
    found, prefix, python = remote(dependencies=form(tmp_path, wheels))(work.apple)()
    assert (found, python) == (expected, HERE)
    assert prefix != sys.prefix


def test_a_lock_is_installed_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\nname = "mine"\nversion = "0"\nrequires-python = ">={HERE}"\ndependencies = ["iniconfig<2.1"]\n'
    )
    subprocess.run(
        [UV, "lock", "--quiet", "--python", sys.executable],
        cwd=tmp_path,
        env=tool_environ(os.environ),
        check=True,
    )
    locked = remote(dependencies=tmp_path)(work.imported)
    found, prefix = locked("iniconfig")
    assert found.startswith("2.0")
    assert prefix != sys.prefix
    (tmp_path / "uv.lock").unlink()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "0"\ndependencies = ["iniconfig==2.1"]\n'
    )
    assert locked("iniconfig")[0].startswith("2.1"), "a file that was edited holds for the very next call"


def test_auto_capture_pins_what_the_function_imports() -> None:
    assert remote(dependencies="auto_capture")(work.captured)() == (version("iniconfig"), ["iniconfig"])


@pytest.mark.here("elsewhere the caller's environment is not")
def test_unset_it_is_the_callers_own_environment_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    found = remote(work.entered)()
    assert found["prefix"] == sys.prefix
    assert found["PYTHONPATH"] == "/somewhere"


def test_a_failing_requirement_is_told_in_the_resolvers_words(wheels: Wheels) -> None:
    bad = remote(dependencies=["--no-index", f"--find-links {wheels.url}", "apple>99"])(work.apple)
    with pytest.raises(RuntimeEnvironmentError) as caught:
        bad()
    assert "apple>99" in caught.value.output
    assert "apple>99" in str(caught.value)
    assert len(caught.value.output.splitlines()) <= 20
    with pytest.raises(RuntimeEnvironmentError):  # it is not remembered as something else
        bad()


@pytest.mark.here("a host elsewhere has package indexes of its own")
def test_the_index_is_the_callers_whoever_started_the_agent(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote(work.pid)()
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    assert remote(dependencies=["apple==6.0"])(work.apple)()[0] == "6.0"


def test_a_conda_file_without_conda_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "environment.yml"
    path.write_text("dependencies: [numpy]\n")
    if any(shutil.which(name) for name in ("micromamba", "mamba", "conda")) or "CONDA_EXE" in os.environ:
        pytest.skip("there is conda on this machine")
    with pytest.raises(RuntimeEnvironmentError, match="no micromamba, mamba or conda") as caught:
        remote(dependencies=path)(work.pid)()
    assert "install micromamba" in caught.value.hint


# --- inside ---------------------------------------------------------------------------------------------------------


def test_children_find_the_environments_commands_and_bytecode_is_written(
    wheels: Wheels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("VIRTUAL_ENV", "/another")
    monkeypatch.setenv("PYTHONPATH", "/another")
    options = {"dependencies": as_list(Path(), wheels), "environment_variables": {"GREETING": "hello"}}
    found = remote(**options)(work.entered)()
    assert found == {
        "child": found["prefix"], "prefix": found["prefix"], "VIRTUAL_ENV": found["prefix"], "GREETING": "hello",
    }  # fmt: skip
    assert remote(**options)(work.apple)()[1] == found["prefix"]
    assert remote(**options)(work.bytecode)() == ["apple"]


@pytest.mark.parametrize("wanted", [None, "1.6.0", version("cloudpickle")])
def test_the_users_cloudpickle_is_theirs_whichever_it_is(wanted: str | None) -> None:
    class Local:  # by value, and so through our own cloudpickle
        def __init__(self, value: int) -> None:
            self.value = value

    def add(local: Local, more: int) -> Local:
        return Local(local.value + more)

    if wanted is None:
        bare = remote(dependencies=[])
        assert bare(work.installed)() == []
        assert bare(add)(Local(1), more=1).value == 2
        with pytest.raises(ModuleNotFoundError, match="cloudpickle"):
            bare(work.own_cloudpickle)(b"")
        return
    theirs = remote(dependencies=[f"cloudpickle=={wanted}"])
    assert theirs(work.installed)() == ["cloudpickle"]
    assert theirs(add)(Local(1), more=1).value == 2
    pickled = cloudpickle.dumps([1, {"two": 2.0}])
    assert theirs(work.own_cloudpickle)(pickled) == (wanted, (2, [1, {"two": 2.0}]))
    if wanted == cloudpickle.__version__:
        by_their_own = cloudpickle.dumps(Local(5))
        assert theirs(lambda data: __import__("pickle").loads(data).value)(by_their_own) == 5


def test_pre_execution_commands_run_once_for_each_attempt_in_the_environment(
    tmp_path: Path, wheels: Wheels, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = tmp_path / "ran"
    place = "ran" if host.here else ran  # here they run where the caller is
    python = 'import sys, os; print(sys.prefix, os.environ["GREETING"])'
    commands = [f"python -c '{python}' >> {place}", f"echo second >> {place}"]
    options: dict[str, Any] = {
        "dependencies": as_list(tmp_path, wheels),
        "environment_variables": {"GREETING": "hello"},
    }
    prepared = remote(pre_execution_commands=commands, **options)
    prefix = prepared(work.apple)()[1]
    assert ran.read_text().splitlines() == [f"{prefix} hello", "second"]
    used = prepared(work.pid)()
    assert len(ran.read_text().splitlines()) == 4
    assert remote(**options)(work.pid)() != used, "a worker where commands have run is no longer like others"


def test_a_failing_pre_execution_script_is_told_with_its_stderr(tmp_path: Path) -> None:
    script = tmp_path / "setup.sh"
    script.write_text("echo no such licence >&2\nexit 3\n")
    failing = remote(pre_execution_script=str(script))(work.pid)
    with pytest.raises(RuntimeEnvironmentError, match="exit code 3") as caught:
        failing()
    assert "no such licence" in caught.value.output
    script.write_text("exit 0\n")
    assert failing() > 0, "a script that was edited holds for the very next call"


# --- another Python, other code -------------------------------------------------------------------------------------


def other_python() -> tuple[str, Path]:
    """The minor of another Python of this machine, and its executable."""
    minor, python = python_of(*(minor for minor in (13, 12, 11) if minor != sys.version_info[1]))
    return f"3.{minor}", python


def make_venv(python: Path | str, folder: Path) -> Path:
    command = [UV, "venv", "--quiet", "--python", str(python), str(folder)]
    subprocess.run(command, env=tool_environ(os.environ), check=True)
    return folder


@pytest.mark.here("a container has none of the environments here", "ssh")
def test_a_conda_environment_of_another_minor_is_refused_before_anything_runs(tmp_path: Path) -> None:
    minor, python = other_python()
    other, same = make_venv(python, tmp_path / "other"), make_venv(sys.executable, tmp_path / "same")
    with pytest.raises(
        RuntimeEnvironmentError, match=rf"is Python {minor}, but the caller runs {HERE}"
    ) as caught:
        remote(job_conda_env=str(other))(work.pid)()
    assert f"python={HERE}" in caught.value.hint
    found = remote(job_conda_env=str(same))(work.entered)()
    assert found["CONDA_PREFIX"] == found["prefix"] == found["child"] == str(same)


def run_client(
    python: Path | str, code: str, home: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script in a client process, with what is installed here on its path, whatever its minor."""
    import click

    path = os.pathsep.join(
        [str(REPOSITORY), str(Path(__file__).parent), str(Path(click.__file__).parents[1])]
    )
    environ = {**os.environ, "REMOTE_EXEC_HOME": str(home), "PYTHONPATH": path, **variables}
    return subprocess.run(
        [str(python), "-c", code], env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
    )


@pytest.mark.here("it has an agent of its own")
def test_a_host_builds_on_the_pythons_that_its_clients_bring(
    own_home: Path, index: Path, tmp_path: Path
) -> None:
    minor, python = other_python()
    hidden = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYENV_ROOT": "/nowhere", "UV_OFFLINE": "1"}
    code = (
        "from remote_exec import remote\nimport environment_work as work\n"
        f"print(*remote(dependencies=['--no-index', '--find-links {index}', 'apple==1.0'])(work.apple)())"
    )
    mine = run_client(sys.executable, code, own_home, **hidden)  # its agent is of this minor
    assert mine.stdout.split()[::2] == ["1.0", HERE], mine.stderr
    theirs = run_client(python, code, own_home, **hidden)
    assert theirs.stdout.split()[::2] == ["1.0", minor], theirs.stderr


@pytest.mark.here("it has an agent of its own")
def test_an_upgraded_package_is_seen_by_the_next_call(own_home: Path, index: Path, tmp_path: Path) -> None:
    venv = make_venv(sys.executable, tmp_path / "venv")
    environ = tool_environ(os.environ)
    install = [UV, "pip", "install", "-q", "--python", venv, "--no-index", "--find-links", index]
    subprocess.run([*install, "apple==1.0"], env=environ, check=True)
    code = f"""
import subprocess
from remote_exec import remote
import environment_work as work
apple, pid = remote(work.apple), remote(work.pid)
print(apple()[0], pid() == pid())
subprocess.run({[*map(str, install), "apple==2.0"]!r}, env={environ!r}, check=True)
print(apple()[0], pid() == pid())
"""
    done = run_client(venv / "bin" / "python", code, own_home)
    assert done.stdout.splitlines() == ["1.0 True", "2.0 True"], done.stderr


# --- built once, held, safe against crashes ---------------------------------------------------------------------------


@pytest.fixture
def own_home(session_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory with an agent of its own."""
    home = Path(tempfile.mkdtemp(prefix="h-", dir=session_home)) / "state"
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(home))
    layout = Layout.of(os.environ)
    yield home
    session = connections.session()
    with contextlib.suppress(HostUnavailable):
        session.ask("stop")
    until(lambda: session.lost)
    for folder in (layout.sockets, home.parent):
        shutil.rmtree(folder, ignore_errors=True)


def generations(home: Path) -> list[Path]:
    return sorted(home.glob("cache/environments-v1/*/g-*"))


@pytest.mark.here("it has an agent of its own")
def test_four_processes_that_ask_at_once_build_once(own_home: Path, index: Path) -> None:
    code = (
        "from remote_exec import remote\nimport environment_work as work\n"
        f"print(remote(dependencies=['--no-index', '--find-links {index}', 'pear'])(work.apple)()[1])"
    )
    environ = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{Path(__file__).parent}"}
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**environ, "CLIENT": str(number)},  # pools of their own, so that all four ask for it
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    prefixes = {client.communicate(timeout=SECONDS)[0].strip() for client in clients}
    assert len(prefixes) == 1
    (generation,) = generations(own_home)
    assert prefixes == {str(generation / "venv")}
    (module,) = generation.glob("venv/lib/python*/site-packages/apple.py")
    assert module.stat().st_nlink > 1, "not hard-linked"


class Index(ThreadingHTTPServer):
    """A package index over HTTP that does not answer the first who asks, until it is told to."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.asked, self.answer = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), partial(_IndexHandler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}/simple"


class _IndexHandler(SimpleHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        first = not self.server.asked.is_set()
        self.server.asked.set()
        if first:
            self.server.answer.wait(SECONDS)
        self.path = self.path.removeprefix("/simple/apple")
        with contextlib.suppress(OSError):
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slow_index(index: Path) -> Iterator[Index]:
    with Index(index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.answer.set()
        server.shutdown()
        thread.join()


@pytest.mark.here("it has an agent of its own")
def test_an_agent_killed_while_it_builds_leaves_nothing_half_done(own_home: Path, slow_index: Index) -> None:
    wanted = remote(dependencies=[f"--index-url {slow_index.url}", "apple==6.0"])
    waiting = wanted(work.apple).submit()
    assert slow_index.asked.wait(SECONDS)
    (half,) = generations(own_home)
    os.kill(connections.session().welcome.pid, signal.SIGKILL)
    assert waiting.result(SECONDS)[0] == "6.0", "the next agent builds it for those who wait"
    assert half.exists(), "the killed agent's uv, which still runs, lost the folder that it writes to"
    slow_index.answer.set()

    def only_the_whole_one_is_left() -> bool:
        connections.session().ask("tidy")
        return half not in generations(own_home)

    until(only_the_whole_one_is_left)
    assert len(generations(own_home)) == 1
    assert wanted(work.apple)()[0] == "6.0"


@pytest.mark.here("it has an agent of its own")
def test_an_environment_is_kept_while_a_worker_lives_even_without_an_agent(
    own_home: Path, wheels: Wheels, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    held = remote(dependencies=as_list(tmp_path, wheels), keep_alive_period_in_seconds=0)(work.wait_for)
    running = held.submit(gate)
    begun = gate.with_suffix(".begun")
    until(lambda: begun.exists() and begun.read_text())
    descriptors = Path("/proc", begun.read_text(), "fd").iterdir()
    assert any(str(descriptor.readlink()).endswith("in-use.lock") for descriptor in descriptors)
    ask = connections.session().ask
    (told,) = ask("environments")
    digest = told["digest"].partition(":")[2]
    assert told["in_use"]
    assert ask("remove_environment", {"digest": digest}) == {"removed": []}
    os.kill(connections.session().welcome.pid, signal.SIGKILL)
    until(lambda: connections._sessions[local.here()].lost)
    store = EnvironmentStore(own_home / "cache" / "environments-v1", None, Path)
    assert not store.remove(told["digest"]), "nobody but the fork server and its worker holds it now"
    gate.touch()
    assert running.result(SECONDS) > 0
    connections.session().ask("stop")  # and with it the fork servers
    until(lambda: store.remove(told["digest"]))
    assert generations(own_home) == []
