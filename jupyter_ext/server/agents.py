"""The agents that are looked at: one session with each, one subscription to its jobs, whatever the tabs.

Everything here may block, and is for threads. Nothing is started by looking: where no agent runs on this machine, what
earlier ones have kept is read from the disk, and hosts are those to which some process's connection is open.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, as_completed, wait
from concurrent.futures import TimeoutError as Unanswered
from typing import Any

from remote_exec.backends import local
from remote_exec.client import kept
from remote_exec.client.looking import NoAgent, look, look_at_all
from remote_exec.client.naming import far_hosts
from remote_exec.client.session import Session
from remote_exec.errors import HostUnavailable, JobNotFound, RemoteExecError
from remote_exec.model.layout import Layout

from .board import LOCAL, Board

ANSWER_SECONDS = 30.0
HERE_SECONDS = 1.0  # after which this machine's agent is one that does not answer soon
POLL_SECONDS = 1.0  # how often one looks whether an agent runs
FAR_SECONDS = 10.0  # and whether another host is connected to
LINGER_SECONDS = 30.0  # how long after the last look the subscriptions last
READY_SECONDS = 10.0
PAGE = 1000

_log = logging.getLogger(__name__)


class Agents:
    """See the module's docstring.

    Args:
        changed: called after each change of the board, in any thread.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.board = Board(changed)
        self._condition = threading.Condition()
        self._sessions: dict[str, Session] = {}
        self._followed: dict[str, Session] = {}
        self._looks = 0
        self._looked_at = 0.0
        self._far_at = 0.0
        self._begun = False  # the board has some of what there is
        self._settled = False  # it has all
        self._closed = False
        self._thread: threading.Thread | None = None

    # --- looking ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def looking(self) -> Generator[None, None, None]:
        """Keep the board up to date meanwhile, and for a while afterwards."""
        with self._condition:
            self._looks += 1
            self._wake()
        try:
            yield
        finally:
            with self._condition:
                self._looks -= 1
                self._looked_at = time.monotonic()

    def ready(self, *, whole: bool = True) -> None:
        """Return when the board has the jobs of this machine: all, or at least the newest."""
        with self._condition:
            self._wake()
            self._condition.wait_for(
                lambda: self._settled or self._closed or (self._begun and not whole), READY_SECONDS
            )

    def _wake(self) -> None:
        self._looked_at = time.monotonic()
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._watch, name="jupyter_ext-agents", daemon=True)
            self._thread.start()
        self._condition.notify_all()

    def close(self) -> None:
        """End all sessions."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(READY_SECONDS)
        self._end_sessions()

    # --- keeping the board up to date -------------------------------------------------------------------------

    def _watch(self) -> None:
        """Have a subscription to each agent for as long as anybody looks."""
        while True:
            try:
                self._follow_here()
                if time.monotonic() - self._far_at > FAR_SECONDS:
                    self._follow_others()
                    self._far_at = time.monotonic()
            except Exception:  # a configuration that cannot be read, no descriptor left
                _log.exception("the agents could not be looked at")
            with self._condition:
                self._condition.wait(POLL_SECONDS)
                idle = not self._looks and time.monotonic() - self._looked_at > LINGER_SECONDS
                if idle or self._closed:
                    self._thread, self._far_at = None, 0.0
                    self._begun = self._settled = False
                    break
        self._end_sessions()

    def _follow_here(self) -> None:
        try:
            session = self.session(LOCAL)
        except NoAgent:
            self._read_kept("none")
        except HostUnavailable as error:
            self._read_kept("unreachable", error)
        else:
            self.board.set_agent("running", version=session.welcome.version)
            self._follow(LOCAL, session)

    def _follow_others(self) -> None:
        absent = [host for host in far_hosts() if host.name not in self._followed]
        for host, session in look_at_all(absent):
            if session is not None:
                self._follow(host.name, self._keep(host.name, session))

    def _follow(self, name: str, session: Session) -> None:
        if self._followed.get(name) is not session:
            self._followed[name] = session
            self.board.begin(name)
            threading.Thread(
                target=self._hear, args=(name, session), name="jupyter_ext-jobs", daemon=True
            ).start()

    def _hear(self, name: str, session: Session) -> None:
        try:
            for piece in session.follow("watch", {}):
                self.board.take(name, piece)
                if name == LOCAL:
                    self._settle(whole=piece["whole"])
        except RemoteExecError as error:
            _log.debug("no more is heard of the jobs on %s: %s", name, error)
        except Exception:
            _log.exception("what is told of the jobs on %s is not understood", name)
        session.close()
        if self._followed.get(name) is session:
            del self._followed[name]
            if name != LOCAL:
                self.board.leave(name)
        with self._condition:
            self._condition.notify_all()  # another agent may be there already

    def _read_kept(self, agent: Any, error: RemoteExecError | None = None) -> None:
        """Show what is on the disk; once, since nobody writes there while no agent runs."""
        if self.board.agent != agent or not self._settled:
            self.board.begin(LOCAL)
            try:
                for piece in _kept_jobs():
                    self.board.take(LOCAL, piece)
                    self._settle(whole=piece["whole"])
            except RemoteExecError as unreadable:
                error = error or unreadable
                self.board.take(LOCAL, {"jobs": [], "gone": [], "counts": {}, "whole": True, "older": False})
        self.board.set_agent(
            agent,
            message=error.message if error is not None else "",
            hint=error.hint if error is not None else "",
        )
        self._settle()

    def _settle(self, *, whole: bool = True) -> None:
        with self._condition:
            if not (self._settled if whole else self._begun):
                self._begun = True
                self._settled = self._settled or whole
                self._condition.notify_all()

    # --- asking -----------------------------------------------------------------------------------------------

    def session(self, host: str) -> Session:
        """Return the session with a host's agent; one that runs on this machine is greeted when it is first asked.

        Raises:
            NoAgent: none runs on this machine.
            HostUnavailable: the agent does not answer, or the host is not connected to.
        """
        with self._condition:
            known = self._sessions.get(host)
        if known is not None and not known.lost:
            return known
        if host != LOCAL:
            return self._look_there(host)
        return self._keep(host, look(local.here(), local.connect(Layout.of(os.environ))))

    def _look_there(self, name: str) -> Session:
        for _, session in look_at_all([host for host in far_hosts() if host.name == name]):
            if session is not None:
                return self._keep(name, session)
        raise HostUnavailable(f"{name} is not connected to", hint="a call on it opens the connection")

    def _keep(self, host: str, found: Session) -> Session:
        """Return the one session with a host: this, unless another thread was faster."""
        with self._condition:
            known = self._sessions.get(host)
            if known is None or known.lost:
                self._sessions[host] = found
                return found
        found.close()
        return known

    def ask(self, host: str, what: str, **arguments: Any) -> Any:
        """Ask a host's agent, or what is kept on this machine's disk where it has none.

        Raises:
            HostUnavailable: there is none, and only one could tell; or it does not answer in time.
            RemoteExecError: what it answered.
        """
        return self.ask_whole(host, what, **arguments)[0]

    def ask_whole(self, host: str, what: str, **arguments: Any) -> tuple[Any, bytes]:
        """Ask as `ask` does, and return the answer with its body."""
        try:
            return self.session(host).start(what, arguments).result(ANSWER_SECONDS)
        except NoAgent:
            if host != LOCAL or what not in kept.ANSWERED:
                raise
            return kept.ask(Layout.of(os.environ), what, arguments)
        except Unanswered:
            raise HostUnavailable(
                f"the agent did not answer within {ANSWER_SECONDS:g} s", hint="remote-exec doctor"
            ) from None

    def host_of(self, name: str, told: str) -> str:
        """Return the host that a job is on.

        Args:
            name: of the job.
            told: the host, if it is known.

        Raises:
            JobNotFound: no host that is connected to knows it.
            HostUnavailable: none of those that answer knows it, and one does not.
        """
        if told:
            return told
        here = self._in_thread(LOCAL, "job", name=name)
        wait([here], HERE_SECONDS)  # what is here goes before what has its name elsewhere
        if here.done() and here.exception() is None:
            return LOCAL
        others = [host for host in list(self._followed) if host != LOCAL]
        answers = {self._in_thread(host, "job", name=name): host for host in others} | {here: LOCAL}
        unanswered: BaseException | None = None
        for answer in as_completed(answers):
            error = answer.exception()
            if error is None:
                return answers[answer]
            if not isinstance(error, JobNotFound):
                unanswered = error
        raise unanswered or JobNotFound(
            f"there is no job named {name!r}, or its retention has ended", hint="remote-exec jobs"
        )

    def _in_thread(self, host: str, what: str, **arguments: Any) -> Future[Any]:
        """Ask as `ask` does, and wait for nothing."""
        answer = Future[Any]()

        def work() -> None:
            try:
                answer.set_result(self.ask(host, what, **arguments))
            except BaseException as error:
                answer.set_exception(error)

        # a thread that waits for the network must hold up no process that ends
        threading.Thread(target=work, daemon=True).start()
        return answer

    def connected(self) -> dict[str, Session]:
        """Return the sessions with the agents that can be asked now, by host, this machine's first."""
        with self._condition:
            found = {name: one for name, one in self._sessions.items() if not (one.lost or one.away)}
        return {name: found[name] for name in sorted(found, key=lambda name: (name != LOCAL, name))}

    def _end_sessions(self) -> None:
        with self._condition:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            session.close()


def _kept_jobs() -> Iterator[Mapping[str, Any]]:
    """Yield the newest jobs that are on the disk, as an agent's answers to "watch"."""
    layout, before, told = Layout.of(os.environ), None, 0
    counts: dict[str, int] = {}
    while True:
        page, _ = kept.ask(layout, "jobs", {"limit": PAGE, "before": before})
        for row in page["jobs"]:
            counts[row["state"]] = counts.get(row["state"], 0) + 1
        told, before = told + len(page["jobs"]), page["next"]
        whole = before is None or told >= 20 * PAGE
        yield {
            "jobs": page["jobs"],
            "gone": [],
            "counts": dict(counts),
            "whole": whole,
            "older": before is not None,
        }
        if whole:
            return
