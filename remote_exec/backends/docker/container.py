"""The container of some settings: found, or made and started, once for all processes that ask for it.

Its name is a digest of all that it is made of, so two processes that make it at once make one: the second is told that
the name is taken. Each step may be done twice, and one whose maker died is finished by the next who asks.

What is kept lies in a volume of the same name, which outlives the container: home folder, environments, caches.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import posixpath
import sys
import tarfile
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...agent.deaths import HOST_ENDED
from ...model.errors import HostUnavailable
from ...model.job import Cause, DeathCertificate
from ...model.record import record
from ...options.container_values import is_path, split_volume
from ...wire.messages import to_plain
from .direct import prepare_sockets, share_sockets, socket_folder
from .engine import Engine, EngineError
from .gpus import explain, request_gpus
from .images import Told, find_image
from .labels import CREATED, INSTANCE, KEY, OWNER, PYTHON, labels_of, owner
from .pythons import find_python, find_user
from .settings import ContainerSettings

FORMAT = 1  # goes up when containers are made otherwise
STATE = "/remote_exec"  # all that is ours in a container
HOME = f"{STATE}/home"
STATE_DIRECTORY = f"{STATE}/state"
SOCKETS = f"{STATE_DIRECTORY}/sockets"
ORDINARY_UID = 1000  # for callers who are root
START_SECONDS = 30.0
STARTS = 3  # of one that ends again at once, as one does whose image has a Python that does not run
LAST_LINES = 5
ENDED = ("exited", "stopped")
NAP_SECONDS = 0.05

_log = logging.getLogger(__name__)


@record(kw_only=True)
class Container:
    """One that runs.

    Attributes:
        id: the engine's.
        name: ours; its volume has the same.
        python: the image's, for the agent.
        user: uid and gid of its processes, as ``uid:gid``.
        is_fresh: whether it was started just now.
        sockets: the folder here in which the agent's sockets show, if they do.
        ended: how it had ended before it was started just now, if it had.
    """

    id: str
    name: str
    python: str
    user: str
    is_fresh: bool
    sockets: Path | None
    ended: DeathCertificate | None = None


def open_container(engine: Engine, settings: ContainerSettings, told: Told) -> Container:
    """Return the running container of these settings, made and started if need be.

    Args:
        engine: where.
        settings: what is asked for.
        told: hears of the image's progress.

    Raises:
        ConfigurationError: the settings are wrong.
        HostUnavailable: the engine, the image or the container is not to be had.
        ResourceLimitExceeded: the engine has no GPUs to give.
        RuntimeEnvironmentError: the image could not be built.
    """
    image = find_image(engine, settings, told)
    name = f"remote_exec-{key_of(image['Id'], settings)}"
    return _run(engine, name, lambda: _create(engine, settings, image, name))


def reopen_container(engine: Engine, name: str) -> Container:
    """Return a container that was made before, started if it has ended.

    Raises:
        HostUnavailable: it is gone, or does not start.
    """

    def make() -> None:
        raise HostUnavailable(f"the container {name} is gone, and what it kept with it")

    return _run(engine, name, make)


def _run(engine: Engine, name: str, make: Callable[[], None]) -> Container:
    deadline = time.monotonic() + START_SECONDS
    starts, ended = 0, None
    while True:
        found = engine.inspect("container", name)
        if found is None:
            make()
        elif found["State"]["Status"] == "running":
            config = found["Config"]
            return Container(
                id=found["Id"],
                name=name,
                python=config["Labels"][PYTHON],
                user=config["User"],
                is_fresh=starts > 0,
                sockets=socket_folder(found, SOCKETS),
                ended=ended,
            )
        elif found["State"]["Status"] in ("created", "configured", *ENDED):
            if found["State"]["Status"] in ENDED:
                ended = ended or certify_end(found)
            if starts == STARTS:
                raise _why_not_started(engine, name, found)
            _start(engine, found)
            starts += 1
        elif found["State"]["Status"] == "paused":
            raise HostUnavailable(f"the container {name} is paused", hint=f"docker unpause {name}")
        if time.monotonic() > deadline:
            raise _why_not_started(engine, name, found)
        if found is not None:
            time.sleep(NAP_SECONDS)


def _why_not_started(engine: Engine, name: str, found: dict[str, Any] | None) -> HostUnavailable:
    """Return what to raise for a container that ends at once, with the last that it said."""
    lines = ""
    with contextlib.suppress(HostUnavailable), engine.asking("cannot tell what a container said"):
        lines = engine.api.logs(name, tail=LAST_LINES).decode(errors="replace").strip()
    last = f"; its last lines:\n{lines}" if lines else ""
    return HostUnavailable(
        f"the container {name} does not start: {describe_end(found)}{last}", hint=f"docker logs {name}"
    )


def key_of(image_id: str, settings: ContainerSettings) -> str:
    """Return 16 hexadecimal digits over all that a container is made of."""
    asked = replace(settings, instance="", engine="", image="", dockerfile="", pull="", build_context="")
    told = (FORMAT, image_id, repr(asked), owner(), _user(settings), _keeper())
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def describe_end(found: dict[str, Any] | None) -> str:
    """Return in words how a container is or ended.

    Args:
        found: what the engine knows of it.

    Example:
        >>> ended = {"Status": "exited", "ExitCode": 137, "OOMKilled": True}
        >>> describe_end({"State": ended, "HostConfig": {"Memory": 1 << 28}})
        'it was killed for using more memory than its limit of 268 MB (exit 137)'
    """
    if found is None:
        return "it is gone"
    state = found["State"]
    if state["Status"] == "running":
        return "it runs"
    code = state.get("ExitCode")
    if _is_out_of_memory(state):
        limit = found["HostConfig"].get("Memory")
        of = f" of {limit / 1e6:,.0f} MB" if limit else ""
        return f"it was killed for using more memory than its limit{of} (exit {code})"
    why = state.get("Error") or ""
    return f"it is {state['Status']} (exit {code}){why and f': {why}'}"


def certify_end(found: dict[str, Any]) -> DeathCertificate:
    """Return how a container that has ended did so, as that of all that ran in it."""
    state, name = found["State"], found["Name"].lstrip("/")
    out_of_memory = _is_out_of_memory(state)
    how = describe_end(found).removeprefix("it ")
    return DeathCertificate(
        cause=Cause.OUT_OF_MEMORY if out_of_memory else Cause.HOST_LOST,
        message=f"the container {name} {how.replace('is exited', 'has ended')}",
        exit_code=state.get("ExitCode"),
        oom_evidence="the container engine says so" if out_of_memory else "",
    )


def _ended_at(found: dict[str, Any]) -> float:
    """Return when it ended, by the engine's clock; UTC, seconds since the epoch."""
    return datetime.fromisoformat(found["State"]["FinishedAt"]).timestamp()


def _is_out_of_memory(state: dict[str, Any]) -> bool:
    # the engine also says so of one in which anything was killed for that, and which has lived on
    return bool(state.get("OOMKilled")) and state.get("ExitCode") == 137


# --- making one ---


def _create(engine: Engine, settings: ContainerSettings, image: dict[str, Any], name: str) -> None:
    scratch = _create_scratch(engine, image, settings)
    try:
        wanted = (sys.version_info[0], sys.version_info[1])
        python = find_python(engine, scratch, image, wanted=wanted).path
        user = "{}:{}".format(*find_user(engine, scratch, _user(settings)))
    finally:
        with engine.asking("could not remove a container"):
            engine.api.remove_container(scratch, force=True)
    labels = {**labels_of(settings), KEY: name.removeprefix("remote_exec-"), PYTHON: python}
    config: dict[str, Any] = {
        "Image": image["Id"],
        "Entrypoint": [python, "-I", "-S", "-c", _keeper(), f"{settings.linger_seconds:g}"],
        "Cmd": [],
        "User": user,
        "Env": [f"{variable}={value}" for variable, value in _variables(settings).items()],
        "WorkingDir": STATE,
        "StopTimeout": 10,
        "Labels": labels,
        "HostConfig": _host_config(settings, name, labels),
    }
    request_gpus(config, settings, engine)
    _check_limits(engine, settings)
    share_sockets(engine, config, name, SOCKETS)
    try:
        with engine.asking("could not create a container"):
            engine.api.create_container_from_config(config, name, settings.platform or None)
    except EngineError as error:
        if error.status != 409:  # somebody else has just made it
            raise


def _check_limits(engine: Engine, settings: ContainerSettings) -> None:
    """Say which limits the engine passes over in silence: a rootless one may have no control groups."""
    asked = {
        "MemoryLimit": ("memory_limit", settings.memory_bytes),
        "CpuCfsQuota": ("cpu_limit", settings.cpus),
    }
    for fact, (option, limit) in asked.items():
        if limit and engine.info.get(fact) is False:
            _log.warning(
                "the container engine at %s does not heed %s: it has no control groups",
                engine.endpoint.url,
                option,
            )


def _create_scratch(engine: Engine, image: dict[str, Any], settings: ContainerSettings) -> str:
    """Make a container that is never started, to look into the image."""
    config = {"Image": image["Id"], "Entrypoint": ["none"], "Cmd": [], "Labels": labels_of(settings)}
    with engine.asking("could not create a container"):
        made = engine.api.create_container_from_config(
            {**config, "HostConfig": {"NetworkMode": "none"}}, f"remote_exec-scratch-{uuid.uuid4().hex[:12]}"
        )
        return str(made["Id"])


def _user(settings: ContainerSettings) -> str:
    if settings.user:
        return settings.user
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{ORDINARY_UID}:{ORDINARY_UID}"


def _keeper() -> str:
    found = find_spec("remote_exec.backends.docker.keeper")
    assert found is not None  # noqa: S101 - a module of this package
    assert found.origin is not None  # noqa: S101
    return Path(found.origin).read_text()


def _variables(settings: ContainerSettings) -> dict[str, str]:
    name = settings.user.partition(":")[0]
    name = name if name and not name.isdigit() else owner()
    return {
        "HOME": HOME,
        "USER": name,  # the image may have no name for the uid
        "LOGNAME": name,
        "REMOTE_EXEC_HOME": STATE_DIRECTORY,
    }


def _host_config(settings: ContainerSettings, name: str, labels: dict[str, str]) -> dict[str, Any]:
    state = {
        "Type": "volume",
        "Source": name,
        "Target": STATE,
        "VolumeOptions": {"Labels": {label: labels[label] for label in (KEY, OWNER, INSTANCE, CREATED)}},
    }
    config: dict[str, Any] = {
        "CapDrop": ["ALL"],
        "CapAdd": list(settings.capabilities),
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": settings.pids,
        "ReadonlyRootfs": settings.read_only,
        "Mounts": [state, *map(_mount, settings.volumes)],
    }
    if settings.read_only:
        config["Tmpfs"] = {"/tmp": "rw,exec,nosuid,nodev,mode=1777"}  # noqa: S108 - the container's own
    if settings.network:
        config["NetworkMode"] = settings.network
    if settings.memory_bytes:
        # as much swap as memory would be the engine's default
        config |= {"Memory": settings.memory_bytes, "MemorySwap": settings.memory_bytes}
    if settings.cpus:
        config["NanoCpus"] = int(settings.cpus * 1e9)
    if settings.shm_bytes:
        config["ShmSize"] = settings.shm_bytes
    return config


def _mount(volume: str) -> dict[str, Any]:
    source, target, mode = split_volume(volume)
    kind = "bind" if is_path(source) else "volume"
    return {"Type": kind, "Source": source, "Target": posixpath.normpath(target), "ReadOnly": mode == "ro"}


def _start(engine: Engine, found: dict[str, Any]) -> None:
    """Start one that was made; its user gets folders of its own in the volume, whose root is the engine's."""
    uid, _, gid = found["Config"]["User"].partition(":")
    prepare_sockets(found, SOCKETS)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for folder in ("home", "state", "state/sockets"):
            member = tarfile.TarInfo(folder)
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o700, int(time.time())
            member.uid, member.gid = int(uid), int(gid)
            archive.addfile(member)
        if found["State"]["Status"] in ENDED:  # its next agent tells whose jobs were lost
            text = json.dumps({"at": _ended_at(found), "certificate": to_plain(certify_end(found))}).encode()
            member = tarfile.TarInfo(f"state/{HOST_ENDED}")
            member.size, member.mode, member.uid, member.gid = len(text), 0o600, int(uid), int(gid)
            archive.addfile(member, io.BytesIO(text))
    try:
        with engine.asking("could not start a container"):
            engine.api.put_archive(found["Id"], STATE, packed.getvalue())
            engine.api.start(found["Id"])
    except EngineError as error:
        if error.status not in (404, 409):  # removed meanwhile, or being removed
            with contextlib.suppress(HostUnavailable), engine.asking("could not remove a container"):
                engine.api.remove_container(found["Id"])
            raise explain(error, found, engine) from error
