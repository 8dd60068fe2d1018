"""`remote-exec` as a user types it, about jobs here and on other hosts: the real command, a real agent."""

from __future__ import annotations

import json
import os
import pickle
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from at_a_shell import SECONDS, User

from remote_exec.backends.host import Host

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
        f = remote(environment_variables={"A_POOL": "of its own"})(work)  # so that a worker has to be started
        for name, n, seconds in ("good", 1, 0), ("bad", 13, 0), ("dead", 9, 0), ("slow", 2, 600):
            f.options(name=name).submit(n, seconds=seconds)
        os._exit(0)
"""


@pytest.fixture(scope="module")
def user(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user whose agent has run four jobs: one is good, one bad, one dead, one slow."""
    user = User(tmp_path_factory.mktemp("cli"), host)
    user.write("jobs.py", JOBS)
    subprocess.run([sys.executable, "jobs.py"], cwd=user.work, env=user.environ, check=True, timeout=SECONDS)
    user("result", "good")
    user("result", "bad", code=1)
    user("result", "dead", code=1)
    yield user
    user("hosts", "stop")


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


def test_a_shell_is_in_the_process_of_a_running_job(user: User) -> None:
    pid = user.json("jobs", "slow")["attempts"][-1]["worker_pid"]
    beside = f'echo "$A_POOL"; [ "$(pwd -P)" = "$(readlink /proc/{pid}/cwd)" ] && exit 3'
    assert user("shell", "slow", "--", "sh", "-c", beside, code=3).stdout == "of its own\n"
    assert "good has ended: it has no process" in user("shell", "good", code=1).stderr
    assert "there is no host 'nobody'" in user("shell", "nobody", code=1).stderr


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
    assert "slow has ended" in user("stack", "slow", code=1).stderr


@pytest.mark.parametrize("command", ["jobs", "logs", "result", "stack", "debug", "cancel"])
def test_an_unknown_job_is_an_expected_error_with_a_hint(user: User, command: str) -> None:
    ran = user(command, "nobody", code=1)
    assert ran.stdout == ""
    assert "error: there is no job named 'nobody'" in ran.stderr
    assert "Traceback" not in ran.stderr


# --- the host ----------------------------------------------------------------------------------------------


def test_top_draws_one_frame(user: User, host: Host) -> None:
    frame = user.json("top", "--once", *user.on)
    assert frame["agent"]["pid"] == next(row["pid"] for row in user.json("hosts") if row["host"] == host.name)
    assert {"good", "bad"} & {job["name"] for job in frame["jobs"]} or len(frame["jobs"]) == 15
    shown = user("top", "--once", *user.on).stdout
    assert "WORKER" in shown
    assert "MEMORY" in shown


def test_released_pools_have_no_idle_workers(user: User) -> None:
    user("run", "train.py:fit", "1")
    user("pools", "release", *user.on)
    pools = user.json("pools", *user.on)
    assert all(worker["state"] != "Available" for pool in pools for worker in pool["workers"])
    user("pools", "release", "not a key", *user.on, code=1)


# --- at a terminal -----------------------------------------------------------------------------------------


def test_names_of_commands_and_jobs_are_completed(user: User) -> None:
    def completed(words: str) -> list[str]:
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        ran = user(env={"_REMOTE_EXEC_COMPLETE": "bash_complete", **asked})
        return [line.partition(",")[2] for line in ran.stdout.splitlines()]

    assert completed("remote-exec ca") == ["cancel", "cache"]
    assert completed("remote-exec logs goo") == ["good"]
    assert completed("remote-exec cancel slow de") == ["dead"]


@pytest.mark.here("a terminal is")
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
