"""What is answered to the panel, asked of the agents. For threads: each function blocks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from concurrent.futures import TimeoutError as Unanswered  # the same, but for Python 3.10
from pathlib import Path
from typing import Any

from remote_exec.backends import local
from remote_exec.client.looking import NoAgent
from remote_exec.client.reruns import rerun_job
from remote_exec.client.session import Session, open_session
from remote_exec.config import load_config
from remote_exec.errors import ConfigurationError, JobNotFound, RemoteExecError
from remote_exec.serial.failures_json import from_json

from .agents import ANSWER_SECONDS, PAGE, Agents
from .board import LOCAL
from .busy import SILENT_SECONDS, Busy
from .messages import (
    UNFINISHED,
    Cancelled,
    CancelledAll,
    Hosts,
    InstanceTypes,
    JobDetail,
    LogPiece,
    Pool,
    Released,
    Rerun,
    Status,
)
from .problems import NotPossible, problem_of
from .series import AllSeries
from .views import (
    MOST_PREVIEW_BYTES,
    detail_of,
    instance_types_of,
    pool_of,
    preview_of,
    records_of,
)

# `remote-exec` of this very installation, whatever the PATH, and whatever lies in the folder where a terminal starts.
# It becomes the shell; where it returns it has said why it cannot, in a terminal that would close with it.
COMMAND_LINE = """
import sys
sys.path[:] = filter(None, sys.path)
from remote_exec.cli import main
main()
input("Press Enter to close this terminal.")
"""


class Answers:
    """Answers requests.

    Args:
        agents: who is asked.
    """

    def __init__(self, agents: Agents) -> None:
        self.agents = agents
        self._busy = Busy(agents)

    # --- jobs -------------------------------------------------------------------------------------------------

    def job(self, name: str, host: str = "") -> JobDetail:
        """Return all of one job.

        Raises:
            JobNotFound: there is none.
        """
        host = self.agents.host_of(name, host)
        told = self.agents.ask(host, "job", name=name)
        result = failure = None
        if told["kept"] and told["job"]["state"] == "succeeded":
            size, body = told.get("kept_bytes", 0), b""
            if size <= MOST_PREVIEW_BYTES:
                _, body = self.agents.ask_whole(host, "result", name=name, wait=False)
            result = preview_of(body, size)
        elif told["kept"] and told["job"]["state"] not in UNFINISHED:
            _, body = self.agents.ask_whole(host, "result", name=name, wait=False)
            failure = from_json(body.decode()) if body else None
        return detail_of(host, told, result, failure)

    def logs(self, name: str, host: str = "", start: str = "") -> LogPiece:
        """Return a piece of a job's log, from an offset on; an empty text is the beginning.

        Raises:
            JobNotFound: there is none.
            ConfigurationError: the offset is none.
        """
        host = self.agents.host_of(name, host)
        offset = _offset(start)
        piece = self.agents.ask(host, "logs", name=name, offset=offset)
        ended = False
        if piece["offset"] == offset and not self._runs(host, name):
            piece = self.agents.ask(host, "logs", name=name, offset=offset)  # what came just before the end
            ended = piece["offset"] == offset
        return LogPiece(records_of(piece["records"]), str(piece["offset"]), ended)

    def _runs(self, host: str, name: str) -> bool:
        return self.agents.ask(host, "job", name=name)["job"]["state"] in UNFINISHED

    def whole_log(self, name: str, host: str = "") -> Iterator[str]:
        """Yield the text of all that is kept of a job's log.

        Raises:
            JobNotFound: there is none.
        """
        host = self.agents.host_of(name, host)
        offset, before = 0, -1
        while offset != before:
            piece = self.agents.ask(host, "logs", name=name, offset=offset)
            before, offset = offset, piece["offset"]
            yield "".join(record.text for record in records_of(piece["records"]))

    def metrics(self, name: str, host: str, series: AllSeries) -> bool:
        """Add what a job has logged since the last time; return whether it has ended and all is there.

        Raises:
            JobNotFound: there is none.
        """
        host = self.agents.host_of(name, host)
        ended = not self._runs(host, name)
        while True:
            piece = self.agents.ask(host, "metrics", name=name, offset=series.offset)
            if piece["offset"] == series.offset:
                return ended
            series.add(piece["points"])
            series.offset = piece["offset"]

    def cancel(self, name: str, host: str = "") -> Cancelled:
        """Have a job stopped.

        Raises:
            JobNotFound: there is none.
        """
        host = self.agents.host_of(name, host)
        return Cancelled(bool(self.agents.ask(host, "cancel", name=name)["cancelled"]))

    def cancel_all(self) -> CancelledAll:
        """Have all stopped that runs or waits, on all hosts that are connected to; whatever the lists show of it."""
        self.agents.ready()
        count, problems = 0, list[str]()
        for host, session in self.agents.connected().items():
            try:
                count += _cancel_all_on(session)
            except (RemoteExecError, Unanswered) as error:
                problems.append(f"{host}: {problem_of(error).message}")
        return CancelledAll(count, problems)

    def rerun(self, name: str, host: str = "") -> Rerun:
        """Submit a job again. Where no agent runs on this machine, one is started.

        Raises:
            JobNotFound: there is none.
            NotPossible: not all is kept that it needs.
        """
        host = self.agents.host_of(name, host)
        own: Session | None = None
        try:
            session = self.agents.session(host)
        except NoAgent:
            session = own = open_session(local.here())
        try:
            return Rerun(host, rerun_job(session, name))
        except ConfigurationError as error:
            raise NotPossible(error.message, hint=error.hint or "call the function again") from error
        finally:
            if own is not None:
                own.close()

    def shell(self, name: str, host: str = "") -> list[str]:
        """Return the command that opens a shell where a job runs.

        Raises:
            JobNotFound: there is none.
            NotPossible: it does not run.
        """
        host = self.agents.host_of(name, host)
        if self.agents.ask(host, "job", name=name)["job"]["state"] != "running":
            raise NotPossible(f"{name} does not run: there is no process to enter")
        return [sys.executable, "-c", COMMAND_LINE, "shell", "--on", host, "--", name]

    # --- hosts ------------------------------------------------------------------------------------------------

    def hosts(self, patience: float = SILENT_SECONDS) -> Hosts:
        """Return this machine and all hosts that are known, as they are now, or were when they last answered.

        Args:
            patience: for so many seconds, at most, hosts are waited for that do not answer at once.
        """
        return Hosts(self._busy.hosts(patience))

    def keep(self, key: str, seconds: float, host: str = "") -> Pool:
        """Keep a pool's workers warm for so long from now; return it.

        Raises:
            ConfigurationError: there is no such pool.
        """
        host = host or LOCAL
        self._pool(host, key)
        self.agents.ask(host, "keep", pool=key, seconds=seconds)
        self._busy.forget(host)
        return pool_of(self._pool(host, key), {}, {})

    def release(self, key: str, host: str = "") -> Released:
        """End a pool's idle workers.

        Raises:
            ConfigurationError: there is no such pool.
        """
        host = host or LOCAL
        self._pool(host, key)
        self.agents.ask(host, "release", pool=key)
        self._busy.forget(host)
        return Released(key)

    def _pool(self, host: str, key: str) -> dict[str, Any]:
        for pool in self.agents.ask(host, "host")["pools"]:
            if pool["key"] == key:
                found: dict[str, Any] = pool
                return found
        raise ConfigurationError(f"there is no pool {key!r} on {host}: it may have ended")

    # --- all else ---------------------------------------------------------------------------------------------

    def instance_types(self, folder: Path) -> InstanceTypes:
        """Return what the configuration has that holds in a folder.

        Raises:
            ConfigurationError: it is wrong.
        """
        return instance_types_of(load_config(folder))

    def status(self, since: int | None = None) -> tuple[Status, int]:
        """Return how things stand, and what to give the next time, for the jobs that have ended since."""
        board = self.agents.board
        counts = board.counts()
        number, ended = board.ended_since(since)
        status = Status(
            agent=board.agent,
            version=board.version,
            message=board.message,
            hint=board.hint,
            queued=counts["queued"],
            running=counts["running"],
            ended=ended,
        )
        return status, number


def _cancel_all_on(session: Session) -> int:
    """Have all stopped that runs or waits on a host; return how many.

    What waits is stopped first, the newest before the others: nothing begins meanwhile.
    """
    names: list[str] = []
    for state in UNFINISHED:
        asked: dict[str, Any] = {"states": [state], "limit": PAGE}
        while True:
            page, _ = session.start("jobs", asked).result(ANSWER_SECONDS)
            names += [row["name"] for row in page["jobs"]]
            if page["next"] is None:
                break
            asked["before"] = page["next"]
    count = 0
    for at in range(0, len(names), PAGE):
        for answer in [session.start("cancel", {"name": name}) for name in names[at : at + PAGE]]:
            with contextlib.suppress(JobNotFound):  # it has ended, and was not kept
                count += bool(answer.result(ANSWER_SECONDS)[0]["cancelled"])
    return count


def _offset(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ConfigurationError(f"from must be an offset that was told before, not {text[:40]!r}")
    return int(text or "0")
