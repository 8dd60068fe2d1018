"""`remote-exec` as a user types it, about this machine: its agent, what that keeps; configuration, help, errors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from at_a_shell import SECONDS, User

from remote_exec.cli import hosts, main
from remote_exec.cli.group import COMMANDS
from remote_exec.model.layout import Layout
from remote_exec.worker.blobs import BlobStore


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user whose agent has run something."""
    user = User(tmp_path_factory.mktemp("cli"))
    user("run", "train.py:fit", "1")
    yield user
    user("hosts", "stop")


@pytest.fixture
def newcomer(tmp_path: Path) -> User:
    """A user who has never used it: no agent runs."""
    return User(tmp_path)


# --- run ---------------------------------------------------------------------------------------------------


def test_a_functions_arguments_become_what_its_annotations_say(user: User) -> None:
    user.write(
        "typed.py",
        """
        from pathlib import Path
        from typing import Literal

        def show(rate: float, name: str, *layers: int, where: Path | None = None, how: Literal["a", "b"] = "a"):
            return rate, name, layers, where, how
        """,
    )
    ran = user("run", "--local", "typed.py:show", "1", "007", "3", "4", "where=/tmp", "how=b")
    assert ran.stdout == "(1.0, '007', (3, 4), PosixPath('/tmp'), 'b')\n"
    for typed, said in (
        (["one", "x"], "argument 'rate' must be a number, not 'one'"),
        (["1", "x", "how=c"], "argument 'how' must be one of a, b, not 'c'"),
        (["1"], "missing a required argument: 'name'"),
        (["1", "x", "--how", "b"], "hint: how=VALUE"),
    ):
        assert said in user("run", "typed.py:show", *typed, code=1).stderr


def test_a_dry_run_tells_what_travels_and_what_not_and_starts_nothing(newcomer: User) -> None:
    (newcomer.work / ".gitignore").write_text("secret.csv\n")
    (newcomer.work / "secret.csv").write_text("1")
    ran = newcomer("run", "--json", "--dry-run", "--include-local-workdir", "train.py:fit")
    told = json.loads(ran.stdout)
    assert {"helper.py", "train.py"} <= {file["path"] for file in told["files"]}
    assert [Path(one["path"]).name for one in told["left_out"] if "ignore" in one["why"]] == ["secret.csv"]
    assert told["bundle_bytes"] == sum(file["size_bytes"] for file in told["files"])
    assert "helper.py" in newcomer("run", "--dry-run", "train.py").stdout
    assert not (newcomer.home / "agent.log").exists()


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (["nope.py"], "FILE must be a Python script", "hint: remote-exec run --help"),
        (["train.py:fi"], "did you mean 'fit'?", "hint: it has: Model, fit, count, fail"),
        (["--memory", "lots", "train.py:fit", "1"], "option 'memory'", ""),
        (["--nope", "train.py"], "--nope", "--help"),
    ],
)
def test_what_was_typed_wrong_is_named(user: User, arguments: list[str], said: str, hint: str) -> None:
    ran = user("run", *arguments, code=1)
    assert ran.stdout == ""
    assert said in ran.stderr
    assert hint in ran.stderr
    assert "Traceback" not in ran.stderr


# --- the host ----------------------------------------------------------------------------------------------


def test_the_host_its_pools_and_what_it_keeps_are_told(user: User) -> None:
    (host,) = user.json("hosts")
    assert host["home"] == str(user.home)
    assert f"{host['pid']}" in user("hosts").stdout
    (pool,) = user.json("pools")
    heading, row = user("pools").stdout.splitlines()
    shown = {name: row[heading.index(name) :].split("  ")[0] for name in ("POOL", "USED BY", "ENVIRONMENT")}
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert shown == {"POOL": pool["key"], "USED BY": "fit", "ENVIRONMENT": f"{version} {pool['python']}"}
    assert user.json("env", "ls") == []
    assert user("env").stderr == "no environments were built\n"
    assert user("cache", "path").stdout == f"{user.home}/cache\n"
    user("env", "remove", "0123", code=1)


def test_doctor_finds_all_well_and_makes_a_call(user: User) -> None:
    checks = {check["name"]: check for check in user.json("doctor")}
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert "first in" in checks["test call"]["found"]


def test_doctor_names_the_first_thing_wrong_and_its_fix(newcomer: User) -> None:
    nowhere = {"REMOTE_EXEC_HOME": "/proc/nowhere"}
    ran = newcomer("doctor", code=1, env=nowhere)
    assert "\nwrong: home: /proc/nowhere cannot be written to" in ran.stderr
    assert "hint: set REMOTE_EXEC_HOME" in ran.stderr
    assert "skipped" in ran.stdout


def test_the_cache_is_pruned_of_what_nothing_uses(user: User) -> None:
    user("run", "train.py:fit", "1")  # its helper's blob is in use
    store = BlobStore(Layout.of(user.environ).blobs)
    digest = store.put(b"x" * 5000)
    os.utime(store.path(digest), (1, 1))
    blobs = {blob["id"]: blob for blob in user.json("cache", "ls", "--what", "blobs")}
    assert (blobs[digest]["size_bytes"], blobs[digest]["held_by"]) == (5000, "")
    assert "local code or data" in {blob["held_by"] for blob in blobs.values()}
    bundles = user.json("cache", "ls", "--what", "bundles")
    assert any(bundle["held_by"].startswith("worker ") for bundle in bundles)
    told = user.json("cache", "prune", "--limit", "1 kB")
    assert (told["removed"], told["removed_bytes"]) == (1, 5000)
    left = {blob["id"] for blob in user.json("cache", "ls", "--what", "blobs")}
    assert left == set(blobs) - {digest}
    assert "--limit" in user("cache", "prune", "--limit", "two", code=1).stderr


def test_looking_starts_no_agent_and_says_so(newcomer: User) -> None:
    for command in ("jobs", "env", "cache ls"):
        assert newcomer.json(*command.split()) == []
    assert "no agent runs on this machine" in newcomer("jobs").stderr
    for command in ("logs x", "result x", "jobs x"):
        assert "error: there is no job named 'x'" in newcomer(*command.split(), code=1).stderr
    for command in ("top", "stack x", "cancel x"):
        ran = newcomer(*command.split(), code=1)
        assert "error: no agent runs on this machine" in ran.stderr
        assert "hint: remote-exec hosts start" in ran.stderr
    assert newcomer.json("hosts") == []
    assert newcomer.json("pools") == []
    assert "no agent runs" in newcomer("hosts", "stop").stderr
    assert not newcomer.home.exists()


def test_what_an_agent_kept_is_told_when_it_is_gone(newcomer: User) -> None:
    newcomer("run", "--name", "kept", "train.py:fit", "1")
    newcomer("run", "--name", "failed", "train.py:fail", "1", code=1)
    newcomer("hosts", "stop")
    assert [row["name"] for row in newcomer.json("jobs")] == ["failed", "kept"]
    assert newcomer("result", "kept").stdout == "{'rate': 1, 'epochs': 1}\n"
    assert "ValueError: no luck with 1" in newcomer("result", "failed", code=1).stderr
    assert newcomer("logs", "kept").stdout == "hello 1\n"
    assert "0.5" in newcomer("debug", "failed", typed="p half\nq\n").stdout
    assert {kept["what"] for kept in newcomer.json("cache")} >= {"blobs", "bundles", "runtimes"}
    assert newcomer.json("hosts") == []


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder, as sockets need it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_one_agent_serves_sessions_that_look_for_its_socket_elsewhere(
    newcomer: User, short_path: Path
) -> None:
    first, second = short_path / "1", short_path / "2"
    first.mkdir(mode=0o700)
    second.mkdir(mode=0o700)
    newcomer("hosts", "start", env={"XDG_RUNTIME_DIR": str(first)})
    newcomer.environ["XDG_RUNTIME_DIR"] = str(second)  # as after a change of user, or in a cron job
    (host,) = newcomer.json("hosts")
    shutil.rmtree(first)  # as at a logout
    first.mkdir(mode=0o700)
    newcomer("run", "train.py:fit", "1")
    assert newcomer.json("hosts")[0]["pid"] == host["pid"]
    newcomer("hosts", "stop")


def test_an_agent_that_cannot_start_says_why_at_once(newcomer: User) -> None:
    newcomer.home.mkdir(mode=0o700)
    journal = newcomer.home / "journal.sqlite3"
    journal.write_bytes(b"no database at all")
    ran = newcomer("run", "train.py:fit", "1", code=1)
    assert "error: the agent cannot start: " in ran.stderr
    assert f"the journal {journal} cannot be opened" in ran.stderr
    ran = newcomer("doctor", code=1)
    assert f"wrong: journal: the journal {journal} cannot be read" in ran.stderr
    assert f"hint: move {journal} away" in ran.stderr


def test_a_stopped_agent_is_named_at_once(newcomer: User) -> None:
    newcomer("hosts", "start")
    pid = newcomer.json("hosts")[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        for command in ("jobs", "doctor"):
            ran = newcomer(command, code=1)
            assert f"the agent (process {pid}) is stopped" in ran.stderr
            assert f"hint: kill -CONT {pid}" in ran.stderr
    finally:
        os.kill(pid, signal.SIGCONT)
    newcomer("hosts", "stop")


def test_an_agent_is_started_and_stopped_by_hand(newcomer: User) -> None:
    newcomer("hosts", "start")
    assert len(newcomer.json("hosts")) == 1
    newcomer("hosts", "stop")
    assert newcomer.json("hosts") == []


# --- configuration, help, errors ---------------------------------------------------------------------------


def test_config_shows_each_value_with_its_source(newcomer: User) -> None:
    newcomer.write("pyproject.toml", "[tool.remote_exec]\ncpus = 2\n")
    newcomer.environ["REMOTE_EXEC_MEMORY"] = "2 GB"
    shown = {row["option"]: row for row in newcomer.json("config", "show")}
    assert shown["cpus"]["source"] == f"project file {newcomer.work}/pyproject.toml, tool.remote_exec.cpus"
    assert shown["memory"]["source"] == "environment variable REMOTE_EXEC_MEMORY"
    assert shown["gpus"]["source"] == "default"
    assert newcomer("config", "path").stdout == f"{newcomer.work}/pyproject.toml\n"
    newcomer.write("pyproject.toml", "[tool.remote_exec]\ncpu = 2\n")
    assert "did you mean 'cpus'?" in newcomer("config", "show", code=1).stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_each_commands_help_teaches_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example" in shown
    assert f"remote-exec {name}" in shown


def test_help_and_lists_load_nothing_heavy(user: User) -> None:
    code = (
        "import sys; from remote_exec.cli import main; main(sys.argv[1:]); print(sorted("
        "name for name in sys.modules if name.split('.')[0] in ('rich', 'numpy', 'cloudpickle', 'yaml') "
        "or name == 'remote_exec.cli.run'), file=sys.stderr)"
    )
    for arguments in (["--help"], ["jobs"], ["hosts", "--json"]):
        command = [sys.executable, "-c", code, *arguments]
        ran = subprocess.run(command, env=user.environ, capture_output=True, text=True, timeout=SECONDS)
        assert ran.stderr.splitlines()[-1] == "[]"


def test_a_mistyped_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jbos"]) == 1
    assert "did you mean 'jobs'?" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_one_line_to_install(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert f"_REMOTE_EXEC_COMPLETE={shell}_source remote-exec" in line


def test_a_bug_of_ours_exits_with_3_and_leaves_a_log_for_an_issue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Callable[[], bool]:
        raise RuntimeError("we were wrong")

    monkeypatch.setenv("REMOTE_EXEC_HOME", str(tmp_path))
    monkeypatch.setattr(hosts, "running", broken)
    assert main(["hosts"]) == 3
    err = capsys.readouterr().err
    (log,) = (tmp_path / "bugs").iterdir()
    assert str(log) in err
    assert "in broken" in log.read_text()
    assert "Traceback" not in err
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


def test_a_reader_that_has_seen_enough_is_no_error(user: User) -> None:
    command = f"{sys.executable} -m remote_exec.cli config show | head -1"
    ran = subprocess.run(
        ["bash", "-c", command],
        cwd=user.work,
        env=user.environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ran.stdout.startswith("OPTION")
    assert ran.stderr == ""
