"""``remote-exec hosts``: this machine and the hosts that were reached; their agents, and what is left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import click

from .host import ANSWER_SECONDS, ask, complete_hosts, layout, look_here, running, session
from .show import duration, json_option, moment, note, print_json, print_table, size

if TYPE_CHECKING:
    from ..client.session import Session

COLUMNS = (
    "HOST", "STATE", "REACHED", "AGENT", "VERSION", "UP", "CPUS", "MEMORY", "GPUS", "WORKERS", "JOBS", "HOME",
)  # fmt: skip
STOP_SECONDS = 10.0
FAR_SECONDS = 5.0  # for which the answers of other hosts are waited for
MOST_JOBS = 1000


@click.group("hosts", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """Show the agents of this machine and of the hosts that are known: those that were reached or are configured.

    An agent starts with the first call, and ends when it has been idle for long. None is started here, and no
    connection is opened.

    \b
    Examples:
      remote-exec hosts
      remote-exec hosts stop          the agent of this machine; its workers end too
      remote-exec hosts start         to read what earlier agents kept
      remote-exec hosts stop gpu
      remote-exec hosts remove gpu    nothing of ours is left there
    """
    if context.invoked_subcommand is not None:
        return
    hosts = known_hosts()
    if as_json:
        print_json(hosts)
        return
    print_table(COLUMNS, [row_of(host) for host in hosts], none=none_known())


def known_hosts() -> list[dict[str, Any]]:
    """Return what is known of this machine and other hosts; no agent is started, no connection opened."""
    from ..client.looking import NoAgent

    hosts: list[dict[str, Any]] = []
    if running():
        with contextlib.suppress(NoAgent):  # it has ended since
            here = look_here(lambda agent: _answered(_asked(agent), ANSWER_SECONDS))
            hosts.append({"host": "local", "state": "here", **here})
    return hosts + _far_hosts()


def none_known() -> str:
    """Return what is said where there are none."""
    return f"no agent runs on this machine ({layout().home})"


def row_of(host: dict[str, Any]) -> tuple[str, ...]:
    """Return what a table tells of a host."""
    known = (host["host"], host["state"], moment(host.get("reached_at") or None))
    if "pid" not in host:
        return (*known, "", host["version"], *[""] * 6, host["home"])
    return (
        *known,
        str(host["pid"]),
        host["version"],
        duration(time.time() - host["started_at"]),
        f"{host['cpus']:g}",
        size(host["memory_bytes"]),
        ", ".join(host["gpus"]) or "none",
        str(sum(len(pool["workers"]) for pool in host["pools"])),
        f"{host['jobs']}{'+' * (host['jobs'] == MOST_JOBS)}",
        host["home"],
    )


def _far_hosts() -> list[dict[str, Any]]:
    from ..client import inventory
    from ..client.looking import look_at_all
    from ..client.naming import far_hosts
    from ..model.errors import HostUnavailable

    noted = {one.host: one for one in inventory.known()}
    looks = [(host, agent, _asked(agent)) for host, agent in look_at_all(far_hosts())]
    deadline = time.monotonic() + FAR_SECONDS
    found: list[dict[str, Any]] = []
    for host, agent, answers in looks:
        known = noted.get(host)
        facts: dict[str, Any] = {
            "host": host.name,
            "key": inventory.key_of(host),
            "state": "not connected",
            "reached_at": known.reached_at if known is not None else 0.0,
            "version": known.version if known is not None else "",
            "home": known.home if known is not None else "",
        }
        if agent is not None:
            with contextlib.suppress(HostUnavailable):  # it has ended, or the connection
                facts |= {"state": "connected", **_answered(answers, deadline - time.monotonic())}
                inventory.note_home(host, facts["home"])
            agent.close()
        found.append(facts)
    return found


def _asked(agent: Session | None) -> list[Future[tuple[Any, bytes]]]:
    """Ask an agent for what is told of its host; several are asked before one is waited for."""
    from ..model.errors import HostUnavailable

    if agent is not None:
        with contextlib.suppress(HostUnavailable):
            jobs = {"states": ["running", "queued"], "limit": MOST_JOBS}
            return [agent.start("host"), agent.start("jobs", jobs)]
    return []


def _answered(answers: list[Future[tuple[Any, bytes]]], seconds: float) -> dict[str, Any]:
    """Return what an agent tells of its host.

    Raises:
        HostUnavailable: it is gone, or does not answer in time.
    """
    from ..model.errors import HostUnavailable

    unanswered = wait(answers, max(0.0, seconds)).not_done
    if unanswered or not answers:
        raise HostUnavailable("the agent does not answer", hint="remote-exec doctor")
    (host, _), (jobs, _) = (answer.result() for answer in answers)
    return {**host, "jobs": len(jobs["jobs"])}


@command.command("start")
def start() -> None:
    """Start the agent, if none runs."""
    note(f"the agent runs: process {session(start=True).welcome.pid}")


@command.command("stop")
@click.argument("name", required=False, metavar="[HOST]", shell_complete=complete_hosts)
def stop(name: str | None) -> None:
    """Stop the agent of this machine, or of HOST, and all its workers. Jobs that run fail; what is kept stays."""
    from ..client.naming import host_named

    host = host_named(name) if name is not None else None
    if host is None or host.here:
        _stop_here()
        return
    from ..backends.access import access_to

    stopped = access_to(host).stop()
    note(f"the agent on {host.name} has ended" if stopped else f"no agent runs on {host.name}")


def _stop_here() -> None:
    from ..backends import local
    from ..client.looking import listening_pid
    from ..model.errors import HostUnavailable

    if not running():
        note("no agent runs on this machine")
        return
    try:
        pid = session().welcome.pid
        ask("stop")
    except HostUnavailable:
        pid = listening_pid()
        if not pid:
            raise
        os.kill(pid, signal.SIGTERM)  # it speaks another version's protocol, but knows this
    deadline = time.monotonic() + STOP_SECONDS
    while local.connect(layout()) is not None or _lives(pid):
        if time.monotonic() > deadline:
            raise HostUnavailable(
                f"the agent (process {pid}) has not ended in {STOP_SECONDS:g} s", hint=f"kill {pid}"
            )
        time.sleep(0.02)
    note(f"the agent (process {pid}) has ended")


def _lives(pid: int) -> bool:
    from ..client.looking import process_state

    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return process_state(pid) != "Z"


@command.command("remove")
@click.argument("name", metavar="HOST", shell_complete=complete_hosts)
@click.option("--forget", is_flag=True, help="Only forget it here: the host is gone for good.")
def remove(name: str, *, forget: bool) -> None:
    """Stop the agent on HOST and remove all of ours there: jobs, results, environments, working copies.

    Nothing is left, there or here, but for what the configuration says.
    """
    from ..backends.access import access_to
    from ..client import inventory
    from ..client.naming import host_named
    from ..model.errors import ConfigurationError, HostUnavailable

    host = host_named(name)
    if host.here:
        raise ConfigurationError(
            "this machine is not removed so",
            hint=f"to forget all jobs and caches: remote-exec hosts stop && rm -r {layout().home}",
        )
    access = access_to(host)
    left: list[str] = []
    if not forget:
        try:
            left = access.remove()
        except HostUnavailable as error:
            raise HostUnavailable(
                error.message,
                hint=f"{error.hint}; if it is gone for good: remote-exec hosts remove --forget {name}",
            ) from None
    access.close()
    inventory.forget(host)
    note(f"{host.name} is forgotten" if forget else f"nothing of ours is left on {host.name}")
    if left:
        note(f"its state directory holds other things, which stay: {', '.join(left)}")


@command.command("prune")
@json_option
def prune(*, as_json: bool) -> None:
    """Forget hosts that have been gone for 30 days, or that have nothing of ours any longer; remove what is left.

    Of containers, those that do not run are removed, and volumes that none uses.
    """
    from .pruning import prune_containers, prune_folders, prune_hosts

    told = [*prune_hosts(), *prune_folders(), *prune_containers()]
    if as_json:
        print_json([{"removed": what, "why": why} for what, why in told])
        return
    for what, why in told:
        note(f"removed: {what} ({why})")
    if not told:
        note("there was nothing to remove")
