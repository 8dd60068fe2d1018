"""Libraries that do not bear to be forked, or hang when they are imported ahead: the call succeeds all the same.

Each is a module in a folder of installed packages that misbehaves in a fork server only, or in what it forks.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from own_home import agent_pid, lives
from waiting import until

from remote_exec import remote
from remote_exec.client.connections import connections
from remote_exec.errors import RuntimeEnvironmentError

SECONDS = 60.0
IN_FORK_SERVER = "import sys\nif sys.argv[0] == '-c':\n    "  # a worker's is empty by the time it imports
LIBRARIES = {
    "starts_thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, name='monitor', daemon=True).start()\n"
    ),
    "hangs_ahead": f"import time\n{IN_FORK_SERVER}time.sleep(3600)\n",
    "hangs_deaf": (
        "import signal, time\n"
        f"{IN_FORK_SERVER}signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); time.sleep(3600)\n"
    ),
    "dies_ahead": f"import os\n{IN_FORK_SERVER}os.abort()\n",
    "hangs_after_fork": (
        f"import os, time\n{IN_FORK_SERVER}os.register_at_fork(after_in_child=lambda: time.sleep(3600))\n"
    ),
    "hangs_before_fork": (
        f"import os, time\n{IN_FORK_SERVER}os.register_at_fork(before=lambda: time.sleep(3600))\n"
    ),
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages with all of them, on the path of this process and its workers."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    for name, source in LIBRARIES.items():
        (folder / f"{name}.py").write_text(source + "READY = True\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def log(fresh_home: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Counts the lines of an agent's log that hold a text. The agent is impatient with imports."""
    monkeypatch.setenv("REMOTE_EXEC_AGENT_IMPORT_SECONDS", "1")
    return lambda text: (fresh_home / "agent.log").read_text().count(text)


def notes() -> set[str]:
    return {pool["note"] for pool in connections.session().ask("host")["pools"]}


@remote
def after_thread() -> bool:
    import starts_thread  # type: ignore[import-not-found]

    return bool(starts_thread.READY)


@remote
def after_hang() -> bool:
    import hangs_ahead  # type: ignore[import-not-found]

    return bool(hangs_ahead.READY)


@remote
def after_deaf_hang() -> bool:
    import hangs_deaf  # type: ignore[import-not-found]

    return bool(hangs_deaf.READY)


@remote
def after_death() -> bool:
    import dies_ahead  # type: ignore[import-not-found]

    return bool(dies_ahead.READY)


@remote
def after_hang_in_child() -> bool:
    import hangs_after_fork  # type: ignore[import-not-found]

    return bool(hangs_after_fork.READY)


@remote
def after_hang_in_fork() -> bool:
    import hangs_before_fork  # type: ignore[import-not-found]

    return bool(hangs_before_fork.READY)


def test_a_library_that_starts_a_thread_is_not_forked_and_the_next_agent_knows(
    log: Callable[[str], int],
) -> None:
    assert after_thread()
    (note,) = notes()
    assert "started afresh: imports started threads" in note
    assert "monitor of starts_thread" in note
    os.kill(agent_pid(), signal.SIGTERM)
    session = connections.session()
    until(lambda: session.lost or not lives(session.welcome.pid), SECONDS)
    assert after_thread()
    assert "started afresh" in notes().pop()
    assert log("WARNING") == log("imports started threads") == 1


def test_an_import_that_hangs_is_named_given_up_and_left_out(log: Callable[[str], int]) -> None:
    future = after_hang.submit()
    until(lambda: "hangs_ahead is being imported" in future.why(), SECONDS)
    assert future.result(SECONDS)
    assert after_hang.options(environment_variables={"ANOTHER": "pool"})()
    assert log("the import of hangs_ahead was given up after 1 s") == 1
    assert notes() == {""}, "forking works"


def test_a_fork_server_that_does_not_come_back_from_an_import_is_replaced(log: Callable[[str], int]) -> None:
    future = after_deaf_hang.submit()
    assert future.result(SECONDS)
    assert log("the import of hangs_deaf hangs: it took over 1 s") == 1
    assert notes() == {""}


def test_a_fork_server_that_dies_of_an_import_is_replaced(log: Callable[[str], int]) -> None:
    assert after_death()
    assert log("the fork server died importing dies_ahead") == 1
    assert notes() == {""}


def test_the_last_words_of_a_fork_server_that_cannot_start_are_told(fresh_home: Path) -> None:
    function = remote(environment_variables={"PYTHONHOME": "/nowhere"})(os.getpid)
    with pytest.raises(RuntimeEnvironmentError, match="exit status 1") as told:
        function()
    assert "No module named 'encodings'" in told.value.output


@pytest.mark.parametrize("function", [after_hang_in_child, after_hang_in_fork], ids=["child", "fork server"])
def test_where_a_fork_hangs_workers_are_interpreters_of_their_own(
    log: Callable[[str], int], function: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOTE_EXEC_AGENT_READY_SECONDS", "2")
    assert function()
    assert "not ready within 2 s" in notes().pop()
    assert function.options(environment_variables={"ANOTHER": "pool"})()  # type: ignore[attr-defined]
    assert len(notes()) == log("not ready within 2 s") == 1, "it is known already"


def test_an_edited_module_does_not_pay_for_third_party_imports_again(
    fresh_home: Path, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports = tmp_path / "imports"
    (packages / "slow_library.py").write_text(
        f"import os\nwith open({str(imports)!r}, 'a') as file:\n    file.write(f'{{os.getpid()}}\\n')\n"
    )
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.syspath_prepend(project)
    module = project / "edited_module.py"

    @remote
    def use() -> tuple[int, int]:
        import edited_module  # type: ignore[import-not-found]

        return edited_module.VALUE, os.getpid()

    workers: list[int] = []
    for value in (1, 2, 3):
        module.write_text(f"import slow_library\nVALUE = {value}\n")
        found, pid = use()
        assert found == value
        workers.append(pid)
    assert len(set(workers)) == 3
    (fork_server,) = imports.read_text().split()
    assert int(fork_server) not in workers, "it was imported once, before the forks"
