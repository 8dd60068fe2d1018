"""``remote-exec forward``: a port of a job's host, on this machine."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import time
from typing import Any

import click

from ..backends.access import Access
from ..backends.host import Host
from .host import ask, complete_jobs, far_host, told
from .show import note

EVERY_SECONDS = 2.0


@click.command()
@click.argument("name", metavar="JOB", shell_complete=complete_jobs)
@click.argument("ports", metavar="[HERE:]PORT")
def command(name: str, ports: str) -> None:
    """Have PORT of the host that JOB runs on as a port of this machine's 127.0.0.1, until Ctrl-C.

    It is the same port here unless HERE is another. Nobody else on the network reaches it. A host or instance type
    can be named instead of a job.

    \b
    Examples:
      remote-exec forward train-1 6006          TensorBoard: http://127.0.0.1:6006
      remote-exec forward train-1 8080:6006     here it is port 8080
      remote-exec forward gpu 5678              debugpy
    """
    from ..backends.access import access_to
    from ..model.errors import ConfigurationError, HostUnavailable

    here, there = _parse(ports)
    host = _host_of(name)
    if host is None:
        raise ConfigurationError(
            f"{name} runs on this machine: its port {there} is here already", hint=f"127.0.0.1:{there}"
        )
    _check_free(here, f"remote-exec forward {name} HERE:{there}")
    if not (found := told(_ask(host, there)))["listens"]:
        raise HostUnavailable(
            f"nothing listens at port {there} of {host.name}: {found['why']}",
            hint=f"see what does: remote-exec shell {host.name} -- ss -ltn",
        )
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    access = access_to(host)
    access.forward(here, there)
    try:
        click.echo(f"127.0.0.1:{here}")
        note(f"port {there} of {host.name} is http://127.0.0.1:{here} here; Ctrl-C ends that")
        _keep(access, here, there, host.name)
    finally:
        access.unforward(here, there)


def _ask(host: Host, port: int) -> Any:
    from ..client.connections import connections

    return connections.with_agent(host, lambda session: session.ask("port", {"port": port}))


def _keep(access: Access, here: int, there: int, name: str) -> None:
    """Ask for it again and again: the connection may be another one since, after a cut."""
    from ..model.errors import HostUnavailable

    broken = False
    while True:
        time.sleep(EVERY_SECONDS)
        try:
            access.forward(here, there)
        except HostUnavailable:
            if not broken:
                note(f"the connection to {name} is broken; the port comes back with it")
            broken = True
        else:
            broken = False


def _host_of(name: str) -> Host | None:
    """Return the host of that name, or that a job of that name runs on; None for this machine."""
    from ..client.naming import host_named, names_of_hosts

    if name in names_of_hosts():
        host = host_named(name)
        return None if host.here else host
    ask("job", name=name)
    return far_host(name)


def _parse(ports: str) -> tuple[int, int]:
    first, colon, second = ports.partition(":")
    numbers = [int(text) if text.isdecimal() else 0 for text in (first, second if colon else first)]
    if not all(0 < number < 65536 for number in numbers):
        raise click.BadParameter(f"{ports!r} is no port, and no pair as 8080:6006", param_hint="PORT")
    return numbers[0], numbers[1]


def _check_free(port: int, instead: str) -> None:
    from ..model.errors import ConfigurationError

    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            raise ConfigurationError(
                f"port {port} of this machine {why}", hint=f"choose another: {instead}"
            ) from None
