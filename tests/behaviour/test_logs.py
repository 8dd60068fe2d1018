"""What a function prints, logs and reports, seen as it comes and kept; phases; Ctrl-C at a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
from pathlib import Path
from typing import IO

import pytest
from commands import command, told_of
from waiting import until

from remote_exec import RemoteFuture, get_future, progress, remote
from remote_exec.errors import WorkerDied

SECONDS = 60.0


def script(folder: Path, text: str) -> list[str]:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path), str(folder)]


class Terminal:
    """A program at a terminal of its own, which it controls."""

    def __init__(self, command: list[str], *, stdout: IO[str] | None = None) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 72, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=stdout or slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""

    def until(self, text: str) -> None:
        """Read until this has been seen."""
        while text not in self.seen:
            assert self._read(), f"{text!r} did not come: {self.seen!r}"

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def end(self) -> int:
        """Read to the end, and return the exit status."""
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(SECONDS)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], SECONDS)
        assert ready, f"it stands still: {self.seen!r}"
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the last of its processes has closed the terminal
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


# --- what is printed ----------------------------------------------------------------------------------------------


def test_all_that_is_printed_comes_home_in_order(tmp_path: Path) -> None:
    """From Python, C, children, logging and warnings; before the return."""
    printing = script(
        tmp_path,
        """
        import ctypes, logging, os, subprocess, sys, warnings
        from remote_exec import remote

        logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
        logging.getLogger("chatty").setLevel(logging.ERROR)
        logging.getLogger("mine").setLevel(logging.DEBUG)

        @remote
        def speak():
            assert not (sys.stdout.isatty() or sys.stderr.isatty())
            print("out 1"); print("err 1", file=sys.stderr)
            print("out 2"); print("err 2", file=sys.stderr)
            ctypes.CDLL(None).puts(b"from C"); ctypes.CDLL(None).fflush(None)
            print("err 3", file=sys.stderr)
            os.write(2, "h\\u00e9".encode()[:2]); os.write(2, "h\\u00e9\\n".encode()[2:])
            subprocess.run("echo from a child", shell=True)
            for name in "root", "chatty", "mine":
                logging.getLogger(name).info("info")
                logging.getLogger(name).debug("debug")
            warnings.warn("careful")
            print("no newline", end="")

        if __name__ == "__main__":
            speak()
            print(", returned")
        """,
    )
    done = subprocess.run(printing, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("remote_exec: ")]
    assert lines[:8] == ["out 1", "err 1", "out 2", "err 2", "from C", "err 3", "hé", "from a child"]
    assert lines[8:11] == ["root info", "mine info", "mine debug"]
    assert lines[11].endswith("UserWarning: careful")
    assert lines[13:] == ["no newline, returned"]


def test_a_line_that_redraws_itself_is_live(tmp_path: Path) -> None:
    terminal = Terminal(
        script(
            tmp_path,
            """
            import os, sys, time
            from remote_exec import remote

            @remote
            def train(go):
                assert sys.stdout.isatty() and sys.stderr.isatty()  # bars and colours go by it
                for step in 1, 2:
                    print(f"\\rstep {step}", end="", flush=True)
                    while not os.path.exists(f"{go}-{step}"):
                        time.sleep(0.01)
                print()

            if __name__ == "__main__":
                train(sys.argv[1] + "/go")
            """,
        )
    )
    terminal.until("\rstep 1")
    (tmp_path / "go-1").touch()
    terminal.until("\rstep 2")
    (tmp_path / "go-2").touch()
    assert terminal.end() == 0
    _, _, seen = terminal.seen.partition("\rstep 1")
    assert seen == "\rstep 2\r\n"  # no line of ours has come in between


def test_what_a_thread_prints_after_its_call_is_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    go = tmp_path / "go"

    @remote
    def leave_a_thread() -> None:
        threading.Thread(target=lambda: (until(go.exists), print("from the thread"))).start()

    leave_a_thread()
    assert capfd.readouterr().out == ""
    go.touch()
    seen: list[str] = []
    until(lambda: seen.append(capfd.readouterr().out) or "from the thread\n" in seen)


def test_calls_that_print_at_the_same_time_come_in_whole_lines(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    @remote(max_workers=2)
    def speak(name: str, other: str) -> None:
        for number in range(3):
            print(f"{name}{number} ", end="", flush=True)
            (tmp_path / f"{name}{number}").touch()
            until((tmp_path / f"{other}{number}").exists)
            print("end", flush=True)

    futures = [speak.submit("a", "b"), speak.submit("b", "a")]
    for future in futures:
        future.result(SECONDS)
    lines = [line.rstrip() for line in capfd.readouterr().out.splitlines()]
    whole = [f"{name}{number} end" for name in "ab" for number in range(3)]
    assert len(set(lines) & set(whole)) >= 5  # of the very first, some may have passed before the other began
    assert [future.logs() for future in futures] == ["a0 end\na1 end\na2 end\n", "b0 end\nb1 end\nb2 end\n"]


def test_a_flood_is_bounded_and_keeps_nobody_waiting(capfd: pytest.CaptureFixture[str]) -> None:
    @remote(log_size_limit="1MB", environment_variables={"FLOOD": "1"})  # its peak is told, so no used worker
    def flood() -> int:
        os.write(1, b"the beginning\n")
        for _ in range(100):
            os.write(1, b"x" * 99_999 + b"\n" + b"y" * 900_000)
        print("\nthe end")
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    @remote
    def quick() -> int:
        return 1

    future = flood.submit()
    assert [quick() for _ in range(20)] == [1] * 20
    assert future.result(SECONDS) < 80_000  # kB
    assert future.logs().endswith("\nthe end\n")
    assert len(future.logs()) < 3 << 20
    until(lambda: "succeeded" in command("jobs", "--prefix", future.job))
    kept = get_future(future.job).logs()
    assert kept.startswith("the beginning\n")
    assert kept.endswith("\nthe end\n")
    assert "bytes left out]\n" in kept
    assert len(kept) <= 1_000_000
    capfd.readouterr()


@pytest.mark.parametrize("attached", [True, False], ids=["call", "job"])
def test_the_log_of_a_killed_worker_is_complete(attached: bool, capfd: pytest.CaptureFixture[str]) -> None:
    @remote
    def die() -> None:
        for number in range(1000):
            print("line", number)
        os.kill(os.getpid(), signal.SIGKILL)

    everything = "".join(f"line {number}\n" for number in range(1000))
    future: RemoteFuture[None] = die.submit() if attached else die.options(detach=True).submit()
    with pytest.raises(WorkerDied):
        future.result(SECONDS)
    assert future.logs() == everything
    if attached:
        assert capfd.readouterr().out == everything


# --- what is kept and followed --------------------------------------------------------------------------------------


def test_log_records_and_progress_are_kept_with_a_job(caplog: pytest.LogCaptureFixture) -> None:
    @remote(name="kept-with-the-job")
    def work() -> None:
        for _ in progress(range(2), desc="epochs"):
            for _ in progress(range(50), desc="batches"):
                pass
        logging.getLogger("kept").warning("watch %s", "out")
        print("done")

    with caplog.at_level(logging.INFO):
        work()
    assert [(one.name, one.getMessage()) for one in caplog.records if one.name == "kept"] == [
        ("kept", "watch out")
    ]
    logged, printed = get_future("kept-with-the-job").logs().splitlines()
    assert logged.endswith(" WARNING kept: watch out")
    assert printed == "done"
    (bar,) = told_of("kept-with-the-job")["progress"]
    assert (bar["desc"], bar["done"], bar["total"], bar["ended"]) == ("epochs", 2, 2, True)
    rows = [json.loads(line) for line in command("logs", "kept-with-the-job", "--json").splitlines()]
    assert [row["event"]["message"] for row in rows if row["stream"] == "log"] == ["watch out"]


@pytest.mark.parametrize("attached", [True, False], ids=["call", "job"])
def test_logs_follows_what_runs_until_it_ends(attached: bool, tmp_path: Path) -> None:
    go = tmp_path / "go"

    @remote
    def work() -> None:
        print("first", flush=True)
        until(go.exists)
        for number in range(40_000):
            print("line", number)

    future = work.submit() if attached else work.options(detach=True).submit()
    until(lambda: future.job and future.job in command("jobs", "--state", "running"))
    following = [sys.executable, "-m", "remote_exec.cli", "logs", "-f", future.job]
    with subprocess.Popen(following, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "first\n"
        go.touch()
        assert follower.stdout.read() == "".join(f"line {number}\n" for number in range(40_000))
        assert follower.wait(SECONDS) == 0
    future.result(SECONDS)


def test_the_log_of_a_job_is_that_of_all_its_attempts(tmp_path: Path) -> None:
    @remote(detach=True, max_retry_attempts=1)
    def try_again() -> None:
        first = not (tmp_path / "tried").exists()
        (tmp_path / "tried").touch()
        print("first" if first else "second", flush=True)
        if first:
            os.kill(os.getpid(), signal.SIGKILL)

    future = try_again.submit()
    future.result(SECONDS)
    assert future.logs() == "first\nsecond\n"


# --- phases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attached", [True, False], ids=["call", "job"])
def test_no_phase_is_forgotten(attached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold call with a large bundle tells in the end how long each phase took."""
    monkeypatch.chdir(tmp_path)
    with open("large.bin", "wb") as file:
        for _ in range(40):
            file.write(os.urandom(1_000_000))

    @remote(include_local_workdir=True, environment_variables={"PHASES": str(attached)})
    def work() -> None:
        time.sleep(0.6)

    future = work.submit() if attached else work.options(detach=True).submit()
    future.result(SECONDS)
    until(lambda: future.job in command("jobs", "--state", "succeeded"))  # the agent is told after the client
    (attempt,) = told_of(future.job)["attempts"]
    assert {"capture", "transfer", "start"} <= {phase["name"] for phase in attempt["phases"]}
    assert attempt["ended_at"] - attempt["started_at"] >= 0.6
    told = told_of(future.job)["job"]
    waited = sum(phase["seconds"] for phase in attempt["phases"])
    if attached:
        assert told["started_at"] - told["created_at"] == pytest.approx(waited, abs=0.01)


WAIT_IN_LINE = """
    import sys, time
    from remote_exec import progress, remote

    @remote(max_workers=1, environment_variables={"PLACE": sys.argv[1]})
    def work(seconds):
        time.sleep(seconds)

    if __name__ == "__main__":
        first = work.submit(3)
        work(0.7)
        print("done")
"""


def test_the_terminal_shows_what_a_call_waits_for_and_is_clean_in_the_end(tmp_path: Path) -> None:
    output = tmp_path / "stdout"
    with output.open("w") as stdout:
        terminal = Terminal(script(tmp_path, WAIT_IN_LINE), stdout=stdout)
        assert terminal.end() == 0
    assert output.read_text() == "done\n"  # nothing of ours
    lines = terminal.seen.split("\r\x1b[K")
    assert any(line.startswith("work: queue: ") for line in lines)
    assert any(line.startswith("work: run (") for line in lines)
    assert all(len(line) < 72 for line in lines)
    assert "\n" not in terminal.seen  # one line, drawn again and again
    assert lines[-1] == ""


def test_elsewhere_each_phase_that_lasts_is_a_line_on_stderr(tmp_path: Path) -> None:
    waiting = script(tmp_path, WAIT_IN_LINE)
    done = subprocess.run(waiting, capture_output=True, text=True, check=True, timeout=SECONDS)
    assert done.stdout == "done\n"
    assert all(line.startswith("remote_exec: work: ") for line in done.stderr.splitlines())
    assert "remote_exec: work: queue: " in done.stderr


def test_progress_is_a_bar_in_the_terminal(tmp_path: Path) -> None:
    terminal = Terminal(
        script(
            tmp_path,
            """
            import os, sys, time
            from remote_exec import progress, remote

            @remote
            def train(go):
                for epoch in progress(range(4), desc="epochs"):
                    for batch in progress(range(2), desc="batches"):
                        while epoch == 2 and not os.path.exists(go):
                            time.sleep(0.01)

            if __name__ == "__main__":
                train(sys.argv[1] + "/go")
            """,
        )
    )
    terminal.until("train: epochs [##########..........] 2/4")
    terminal.until(" · batches 0/2")
    (tmp_path / "go").touch()
    assert terminal.end() == 0
    assert terminal.seen.endswith("\r\x1b[K")


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------

START = """
    import os, subprocess, sys, time
    from remote_exec import remote

    def block(stubborn=False):
        child = subprocess.Popen(["sleep", "600"])
        open(f"{folder}/pid-{child.pid}", "w").close()
        open(f"{folder}/pid-{os.getpid()}", "w").close() if stubborn else None
        print("it runs", flush=True)
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                if not stubborn:
                    raise

    folder = sys.argv[1]
    if __name__ == "__main__":
"""


def interrupted(terminal: Terminal, folder: Path) -> None:
    """Assert that it ended as a local program does, and that nothing of it runs any longer."""
    assert terminal.end() == -signal.SIGINT
    assert "Traceback (most recent call last):" in terminal.seen
    assert terminal.seen.rstrip().endswith("KeyboardInterrupt")
    until(lambda: not alive([path.name.partition("-")[2] for path in folder.glob("pid-*")]))


@remote
def alive(pids: list[str]) -> list[str]:
    """Return those of its host's processes that have not ended."""
    found: list[str] = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
    return found


@pytest.mark.parametrize(
    "code",
    [
        "remote(block)()",
        "remote(block).submit().result()",
        "list(remote(block).map([False, False]))",
        "remote(block)(True)",
        "remote(name=f'interrupted-{os.getpid()}')(block)()",
    ],
    ids=["call", "future", "map", "stubborn", "job"],
)
def test_ctrl_c_stops_what_runs(code: str, tmp_path: Path) -> None:
    terminal = Terminal(script(tmp_path, f"{START}        {code}\n"))
    terminal.until("it runs")
    until(lambda: list(tmp_path.glob("pid-*")))
    terminal.press_ctrl_c()
    interrupted(terminal, tmp_path)


def test_a_second_ctrl_c_does_not_hang(tmp_path: Path) -> None:
    terminal = Terminal(script(tmp_path, f"{START}        remote(block)(True)\n"))
    terminal.until("it runs")
    terminal.press_ctrl_c()
    terminal.until("^C")
    terminal.press_ctrl_c()
    assert terminal.end() == -signal.SIGINT
    until(lambda: not alive([path.name.partition("-")[2] for path in tmp_path.glob("pid-*")]))


def test_ctrl_c_ends_waiting_in_line(tmp_path: Path) -> None:
    code = "f = remote(max_workers=1, environment_variables={'LINE': folder})(block)"
    lines = f"        {code}\n        f.submit()\n        f()\n"
    terminal = Terminal(script(tmp_path, START + lines))
    terminal.until("block: queue: ")
    terminal.press_ctrl_c()
    interrupted(terminal, tmp_path)


@pytest.mark.here("a host elsewhere has package indexes of its own")
def test_ctrl_c_ends_the_building_of_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as index:  # it never answers
        index.settimeout(SECONDS)
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{index.getsockname()[1]}/simple")
        code = "remote(dependencies=['nothing-of-that-name'])(block)()"
        terminal = Terminal(script(tmp_path, f"{START}        {code}\n"))
        terminal.until("block: environment: ")
        builder, _ = index.accept()
        with builder:
            terminal.press_ctrl_c()
            interrupted(terminal, tmp_path)
            builder.settimeout(SECONDS)
            while builder.recv(1 << 16):  # until it is gone
                pass
