"""Which host a call goes to: the first instance type that can be had, and of its hosts the least busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from ..backends import local
from ..backends.host import Host
from ..backends.patience import asked_for
from ..config import Config, load_config, resolve_instance_types
from ..instances import BUILT, InstanceType
from ..model.errors import ConfigurationError, HostUnavailable, RemoteExecError
from ..model.pool import Shape
from ..model.record import record
from ..options import Options, check_readers, check_together
from .connections import connections

GRACE_SECONDS = 5.0  # for hosts that answer later than the first


@record
class Found:
    """Where calls can go, and the options that hold there."""

    instance: InstanceType
    options: Options
    host: Host
    hosts: Sequence[Host]  # of this instance type
    alternatives: bool  # whether there are other instance types that would do


def choose(config: Config, given: Options) -> Found:
    """Return the first instance type that can be had, the options that hold on it, and its least busy host.

    Raises:
        ConfigurationError: an option is wrong, or none of several instance types can be had.
        HostUnavailable: the one that was asked for cannot be had.
    """
    instances = resolve_instance_types(config.resolve(given).instance_type, config)
    refusals: list[str] = []
    for instance in instances:
        if instance.backend not in BUILT:
            refusals.append(f"{instance.name}: its backend {instance.backend!r} is not built yet")
            continue
        options = config.resolve(given, instance)
        check_together(options)
        for sentence in (*check_readers(options, instance.backend), *config.notes):
            connections.reporter.note(sentence)
        try:
            hosts = hosts_of(instance, options)
            alone = len(instances) == 1
            with asked_for(float(options.connection_timeout)):
                # one host: whoever asks its agent is told what is wrong
                host = (
                    hosts[0] if alone and len(hosts) == 1 else least_busy(hosts, instance.name, patient=alone)
                )
            return Found(instance, options, host, hosts, not alone)
        except HostUnavailable as error:
            if len(instances) == 1:
                raise
            refusals.append(f"{instance.name}: {error.message}")
            connections.reporter.note(f"{instance.name} cannot be had: {error.message}")
    raise ConfigurationError(
        "no instance type can be had: " + "; ".join(refusals), option="instance_type", hint='use "local"'
    )


def stays_here(given: Options) -> bool:
    """Whether calls with these options go to this machine; what is wrong with them is said by `choose`."""
    config = load_config()
    try:
        instances = resolve_instance_types(config.resolve(given).instance_type, config)
    except ConfigurationError:
        return False
    return instances[0].backend == "local"


def hosts_for(given: Options) -> Sequence[Host]:
    """Return all hosts that calls with these options may go to; what is wrong with the options is said by `choose`."""
    config = load_config()
    try:
        return [
            host
            for instance in resolve_instance_types(config.resolve(given).instance_type, config)
            for host in hosts_of(instance, config.resolve(given, instance))
        ]
    except ConfigurationError:
        return []


def hosts_of(instance: InstanceType, options: Options) -> Sequence[Host]:
    """Return all hosts of an instance type, without a word to any of them.

    Raises:
        ConfigurationError: its settings are wrong.
    """
    if instance.backend == "ssh":
        from ..backends.ssh import ssh_hosts

        return ssh_hosts(instance.settings)
    if instance.backend == "docker":
        from ..backends.docker.host import DockerHost
        from ..backends.docker.settings import ContainerSettings

        settings = ContainerSettings.of(instance, options)
        return [DockerHost(replace(settings, node=node)) for node in range(options.instance_count)]
    return [local.here()]


def least_busy(hosts: Sequence[Host], name: str, *, patient: bool) -> Host:
    """Return the host with the least to do of those that answer; the others are told of.

    Args:
        hosts: of one instance type.
        name: its own.
        patient: ask those, too, that were out of reach a moment ago, if there are no others.

    Raises:
        HostUnavailable: none answers.
    """
    from .loads import loads

    found: list[tuple[float, int, Host]] = []
    failures: list[HostUnavailable] = []
    known = [host for host in hosts if not loads.is_out(host)] or (hosts if patient else [])
    told = _ask_all(known)
    for number, host in enumerate(known):
        error = told.get(host)
        if error is None and host in told:
            found.append((loads.others(host) + connections.pending(host), number, host))
        elif error is None:
            loads.note_out(host, f"it has not answered in {GRACE_SECONDS:g} s")
        else:
            failures.append(error)
            loads.take_out(host, error.message)
    if not found:
        raise HostUnavailable(
            f"none of the hosts of {name!r} can be reached: "
            + "; ".join([one.message for one in failures] or [loads.why_out(host) for host in hosts]),
            hint=failures[0].hint if failures else "",
        )
    return min((load / loads.capacity(host, Shape()), number, host) for load, number, host in found)[2]


def _ask_all(hosts: Sequence[Host]) -> dict[Host, HostUnavailable | None]:
    """Return which hosts answer, and why others do not; those that take much longer than the first are left out."""
    from contextvars import copy_context
    from queue import Empty, SimpleQueue

    from .loads import loads

    answers: SimpleQueue[tuple[Host, HostUnavailable | None]] = SimpleQueue()

    def ask(host: Host) -> None:
        error: HostUnavailable | None = None
        try:
            loads.heard(host, connections.with_agent(host, lambda session: session.ask("host")))
        except HostUnavailable as unavailable:
            error = unavailable
        except RemoteExecError as other:
            error = HostUnavailable(other.message, hint=other.hint)
        answers.put((host, error))

    for host in hosts:
        threading.Thread(
            target=copy_context().run, args=(ask, host), name="remote_exec-ask", daemon=True
        ).start()
    found: dict[Host, HostUnavailable | None] = {}
    deadline: float | None = None
    while len(found) < len(hosts):
        try:
            host, error = answers.get(
                timeout=None if deadline is None else max(0.0, deadline - time.monotonic())
            )
        except Empty:
            break
        found[host] = error
        if error is None and deadline is None:
            deadline = time.monotonic() + GRACE_SECONDS
    return found
