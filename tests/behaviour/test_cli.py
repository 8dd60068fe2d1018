"""`remote-exec` as a user types it: the real command, a real agent, a home of its own."""

from __future__ import annotations

import json
import os
import pickle
import pty
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_exec.cli import hosts, main
from remote_exec.cli.group import COMMANDS
from remote_exec.model.layout import Layout
from remote_exec.worker.blobs import BlobStore

SECONDS = 60
Run = subprocess.CompletedProcess[str]

SCRIPT = """
    import sys
    import helper

    class Model:
        def fit(self, rate, *, epochs=1):
            return [rate, epochs]

    def fit(rate, *, epochs=1):
        print(helper.greet(rate))
        return {"rate": rate, "epochs": epochs}

    def count(n):
        yield from range(n)

    def fail(x):
        half, password = x / 2, "hunter2"
        raise ValueError(f"no luck with {x}")

    if __name__ == "__main__":
        print(helper.greet(sys.argv[1]), *sys.argv[2:])
        print("to stderr", file=sys.stderr)
        if sys.argv[1] == "seven":
            sys.exit(7)
        if sys.argv[1] == "fail":
            fail(1)
        if sys.argv[1] == "wait":
            sys.stdout.flush()
            __import__("time").sleep(600)
"""

JOBS = """
    import os, signal, time
    from remote_exec import remote

    def work(n, *, seconds=0):
        print("working on", n, flush=True)
        print("second line", flush=True)
        half, password = n / 2, "hunter2"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.05)
        if n == 13:
            raise ValueError("unlucky")
        if n == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"n": n}

    if __name__ == "__main__":
        f = remote(work)
        for name, n, seconds in ("good", 1, 0), ("bad", 13, 0), ("dead", 9, 0), ("slow", 2, 600):
            f.options(name=name).submit(n, seconds=seconds)
        os._exit(0)
"""


class User:
    """Somebody at a shell, with a home and a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.home, self.work = folder / "home", folder / "work"
        self.work.mkdir()
        self.environ = {
            **os.environ,
            "REMOTE_EXEC_HOME": str(self.home),
            "REMOTE_EXEC_AGENT_IDLE_SECONDS": "30",
            "PYTHONUNBUFFERED": "1",
        }
        self.write("train.py", SCRIPT)
        self.write("helper.py", 'def greet(name):\n    return f"hello {name}"\n')

    def write(self, name: str, text: str) -> None:
        (self.work / name).write_text(textwrap.dedent(text))

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "remote_exec.cli", *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        return subprocess.Popen(
            command, cwd=self.work, env={**self.environ, **options.pop("env", {})}, **options
        )

    def __call__(self, *arguments: str, code: int = 0, **options: Any) -> Run:
        typed = options.pop("typed", None)
        if typed is not None:
            options["stdin"] = subprocess.PIPE
        with self.popen(*arguments, **options) as process:
            out, err = process.communicate(typed, timeout=SECONDS)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return Run(arguments, process.returncode, out, err)

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def sees(self, *arguments: str, says: str) -> None:
        """Look until something is said: calls are recorded a moment after they have ended."""
        deadline = time.monotonic() + SECONDS
        while says not in (shown := self(*arguments).stdout):
            assert time.monotonic() < deadline, shown


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user whose agent has run four jobs: one is good, one bad, one dead, one slow."""
    user = User(tmp_path_factory.mktemp("cli"))
    user.write("jobs.py", JOBS)
    subprocess.run([sys.executable, "jobs.py"], cwd=user.work, env=user.environ, check=True, timeout=SECONDS)
    user("result", "good")
    user("result", "bad", code=1)
    user("result", "dead", code=1)
    yield user
    user("hosts", "stop")


@pytest.fixture
def newcomer(tmp_path: Path) -> User:
    """A user who has never used it: no agent runs."""
    return User(tmp_path)


# --- run ---------------------------------------------------------------------------------------------------


def test_a_script_runs_as_main_with_its_arguments_and_its_two_streams(user: User) -> None:
    ran = user("run", "train.py", "world", "--epochs", "3")
    assert ran.stdout == "hello world --epochs 3\n"
    assert ran.stderr == "to stderr\n"


def test_a_scripts_exit_code_is_the_commands(user: User) -> None:
    user("run", "train.py", "seven", code=7)
    user.sees("jobs", "--prefix", "train", says="SystemExit: 7")


@pytest.mark.parametrize("where", [(), ("--local",)])
def test_a_failing_script_shows_its_own_frames_and_exits_with_1(user: User, where: tuple[str, ...]) -> None:
    ran = user("run", *where, "train.py", "fail", code=1)
    assert ran.stderr.endswith("ValueError: no luck with 1\n")
    traceback = ran.stderr.partition("Traceback")[2]
    assert traceback.count("  File ") == traceback.count("train.py") == 2
    assert 'raise ValueError(f"no luck with {x}")' in traceback


@pytest.mark.parametrize("where", [(), ("--local",)])
def test_a_functions_arguments_are_literals_or_texts(user: User, where: tuple[str, ...]) -> None:
    ran = user("run", *where, "train.py:fit", "0.1", "epochs=[1, 2]")
    assert ran.stdout == "hello 0.1\n{'rate': 0.1, 'epochs': [1, 2]}\n"
    ran = user("run", "--json", *where, "train.py:fit", "adam")
    assert json.loads(ran.stdout.splitlines()[-1]) == {"rate": "adam", "epochs": 1}
    assert user("run", *where, "train.py:count", "3").stdout == "0\n1\n2\n"


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


def test_a_detached_run_prints_the_jobs_name_and_goes_on(user: User) -> None:
    name = user("run", "--detach", "train.py:fit", "2").stdout.strip()
    assert user("result", name).stdout == "{'rate': 2, 'epochs': 1}\n"
    user("run", "--detach", "--name", "waiting", "train.py", "wait")
    assert "waiting: stopped" in user("cancel", "--wait", "waiting").stderr
    assert user.json("jobs", "waiting")["job"]["state"] == "cancelled"


def test_an_edited_helper_is_seen_by_the_next_run(user: User) -> None:
    helper = user.work / "helper.py"
    before = helper.read_text()
    try:
        helper.write_text(before.replace("hello", "goodbye"))
        assert user("run", "train.py:fit", "1").stdout.startswith("goodbye 1\n")
    finally:
        helper.write_text(before)


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


def test_ctrl_c_exits_with_130_and_cancels_the_call(user: User) -> None:
    with user.popen("run", "train.py", "wait") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hello wait\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    user.sees("jobs", "--prefix", "train", "--state", "cancelled", says="train")


# --- jobs --------------------------------------------------------------------------------------------------


def test_jobs_are_listed_newest_first_and_filtered(user: User) -> None:
    rows = user.json("jobs", "--all")
    names = [row["name"] for row in rows]
    assert {"good", "bad", "dead", "slow"} <= set(names)
    assert "slow.1" not in names
    times = [row["created_at"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert [row["name"] for row in user.json("jobs", "--state", "running")] == ["slow"]
    assert [row["name"] for row in user.json("jobs", "--prefix", "go")] == ["good"]
    limited = user("jobs", "--limit", "2")
    assert len(limited.stdout.splitlines()) == 3
    assert "--all" in limited.stderr
    assert "\x1b" not in limited.stdout


def test_a_job_is_told_with_its_phases_and_its_death_certificate(user: User) -> None:
    told = user.json("jobs", "dead")
    (attempt,) = told["attempts"]
    assert attempt["certificate"]["signal"] == signal.SIGKILL
    shown = user("jobs", "dead").stdout
    assert "attempt 1:   failed, signal" in shown
    assert "last lines:  working on 9" in shown
    # whether it had to queue depends on how soon the jobs before it ended: what is kept of its way is what is shown
    bars = {line.split()[0] for line in shown.splitlines() if "█" in line}
    assert bars == {phase["name"] for phase in attempt["phases"]} | {"run"}
    (first,) = user.json("jobs", "good")["attempts"]
    assert "start" in {phase["name"] for phase in first["phases"]}


def test_logs_are_shown_whole_by_their_end_and_as_json(user: User) -> None:
    assert user("logs", "bad").stdout == "working on 13\nsecond line\n"
    assert user("logs", "bad", "--tail", "1").stdout == "second line\n"
    assert user("logs", "bad", "-f").stdout == "working on 13\nsecond line\n"
    records = [json.loads(line) for line in user("logs", "bad", "--json").stdout.splitlines()]
    assert "".join(record["text"] for record in records) == "working on 13\nsecond line\n"
    assert {record["stream"] for record in records} == {"out"}


def test_logs_of_a_running_job_are_followed(user: User) -> None:
    with user.popen("logs", "slow", "-f") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working on 2\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert user.json("jobs", "slow")["job"]["state"] == "running"


def test_a_result_is_printed_and_can_be_kept(user: User) -> None:
    assert user("result", "good").stdout == "{'n': 1}\n"
    user("result", "good", "--out", "value.pickle")
    assert pickle.loads((user.work / "value.pickle").read_bytes()) == {"n": 1}
    assert user.json("result", "good")["repr"] == "{'n': 1}"


def test_the_result_of_a_failed_job_is_its_traceback(user: User) -> None:
    ran = user("result", "bad", code=1)
    assert ran.stdout == ""
    assert ran.stderr.endswith("ValueError: unlucky\n")
    assert user.json("result", "bad", code=1)["error"] == {
        "type": "builtins.ValueError",
        "message": "unlucky",
    }
    assert "SIGKILL" in user("result", "dead", code=1).stderr
    assert "it is running" in user("result", "slow", "--no-wait", code=1).stderr


def test_a_failed_job_is_debugged_at_home_and_secrets_stay_away(user: User) -> None:
    shown = user("debug", "bad", typed="p half\np password\nq\n").stdout
    assert "work()" in shown
    assert "6.5" in shown
    assert "hunter2" not in shown.replace('password = n / 2, "hunter2"', "")
    assert "did not fail" in user("debug", "good", code=1).stderr


def test_a_running_job_shows_its_stack_and_is_stopped(user: User) -> None:
    assert "in work" in user("stack", "slow").stdout
    assert "remote_exec_runtime" not in user("stack", "slow").stdout
    assert "remote_exec_runtime" in user("stack", "slow", "--all").stdout
    ran = user("cancel", "slow", "nobody", code=1)
    assert "slow: being stopped" in ran.stderr
    assert "no job named 'nobody'" in ran.stderr
    user("result", "slow", code=1)
    assert user.json("jobs", "slow")["job"]["state"] == "cancelled"
    assert user.json("cancel", "slow") == [{"name": "slow", "found": True, "cancelled": False}]
    user("stack", "slow", code=1)


@pytest.mark.parametrize("command", ["jobs", "logs", "result", "stack", "debug", "cancel"])
def test_an_unknown_job_is_an_expected_error_with_a_hint(user: User, command: str) -> None:
    ran = user(command, "nobody", code=1)
    assert ran.stdout == ""
    assert "error: there is no job named 'nobody'" in ran.stderr
    assert "Traceback" not in ran.stderr


# --- the host ----------------------------------------------------------------------------------------------


def test_the_host_its_pools_and_what_it_keeps_are_told(user: User) -> None:
    (host,) = user.json("hosts")
    assert host["home"] == str(user.home)
    assert f"{host['pid']}" in user("hosts").stdout
    assert user.json("pools")[0]["key"] in user("pools").stdout
    assert user.json("env", "ls") == []
    assert user("env").stderr == "no environments were built\n"
    assert user("cache", "path").stdout == f"{user.home}/cache\n"
    user("env", "remove", "0123", code=1)


def test_top_draws_one_frame(user: User) -> None:
    frame = user.json("top", "--once")
    assert frame["agent"]["pid"] == user.json("hosts")[0]["pid"]
    assert {"good", "bad"} & {job["name"] for job in frame["jobs"]} or len(frame["jobs"]) == 15
    shown = user("top", "--once").stdout
    assert "WORKER" in shown
    assert "MEMORY" in shown


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


def test_released_pools_have_no_idle_workers(user: User) -> None:
    user("run", "train.py:fit", "1")
    user("pools", "release")
    assert all(worker["state"] != "Available" for pool in user.json("pools") for worker in pool["workers"])
    user("pools", "release", "not a key", code=1)


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


# --- configuration, help, completion, errors ---------------------------------------------------------------


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


def test_names_of_commands_and_jobs_are_completed(user: User) -> None:
    def completed(words: str) -> list[str]:
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        ran = user(env={"_REMOTE_EXEC_COMPLETE": "bash_complete", **asked})
        return [line.partition(",")[2] for line in ran.stdout.splitlines()]

    assert completed("remote-exec ca") == ["cancel", "cache"]
    assert completed("remote-exec logs goo") == ["good"]
    assert completed("remote-exec cancel slow de") == ["dead"]


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


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_it_wants_none(
    user: User, variables: dict[str, str], coloured: bool
) -> None:
    ours, theirs = pty.openpty()
    environ = {"TERM": "xterm-256color", "COLUMNS": "120", **variables}
    with user.popen("jobs", "--state", "failed", stdout=theirs, env=environ) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:
            pass  # so a terminal ends on Linux
        finally:
            os.close(ours)
    assert process.returncode == 0
    assert b"unlucky" in shown
    assert (b"\x1b[31m" in shown) is coloured


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
