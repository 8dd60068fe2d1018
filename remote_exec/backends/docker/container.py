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
import os
import posixpath
import sys
import tarfile
import time
import uuid
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...agent import gpu_locks
from ...model.errors import HostUnavailable
from ...model.record import record
from ...options.container_values import is_path, split_volume
from .direct import prepare_sockets, share_sockets, socket_folder
from .engine import Engine, EngineError
from .images import Told, find_image
from .labels import CREATED, INSTANCE, KEY, OWNER, PYTHON, labels_of, owner
from .pythons import find_python, find_user
from .settings import ContainerSettings

FORMAT = 1  # goes up when containers are made otherwise
STATE = "/remote_exec"  # all that is ours in a container
HOME = f"{STATE}/home"
LOCKS = "/remote_exec-gpus"
STATE_DIRECTORY = f"{STATE}/state"
SOCKETS = f"{STATE_DIRECTORY}/sockets"
ORDINARY_UID = 1000  # for callers who are root
START_SECONDS = 30.0
NAP_SECONDS = 0.05


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
    """

    id: str
    name: str
    python: str
    user: str
    is_fresh: bool
    sockets: Path | None


def open_container(engine: Engine, settings: ContainerSettings, told: Told) -> Container:
    """Return the running container of these settings, made and started if need be.

    Args:
        engine: where.
        settings: what is asked for.
        told: hears of the image's progress.

    Raises:
        ConfigurationError: the settings are wrong.
        HostUnavailable: the engine, the image or the container is not to be had.
        RuntimeEnvironmentError: the image could not be built.
    """
    image = find_image(engine, settings, told)
    key = key_of(image["Id"], settings)
    name = f"remote_exec-{key}"
    deadline = time.monotonic() + START_SECONDS
    fresh = False
    while True:
        found = engine.inspect("container", name)
        if found is None:
            _create(engine, settings, image, name)
        elif found["State"]["Status"] == "running":
            config = found["Config"]
            return Container(
                id=found["Id"],
                name=name,
                python=config["Labels"][PYTHON],
                user=config["User"],
                is_fresh=fresh,
                sockets=socket_folder(found, SOCKETS),
            )
        elif found["State"]["Status"] in ("created", "configured", "exited", "stopped"):
            _start(engine, found)
            fresh = True
        elif found["State"]["Status"] == "paused":
            raise HostUnavailable(f"the container {name} is paused", hint=f"docker unpause {name}")
        if time.monotonic() > deadline:
            raise HostUnavailable(
                f"the container {name} does not start: {describe_end(found)}", hint=f"docker logs {name}"
            )
        if found is not None:
            time.sleep(NAP_SECONDS)


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
        >>> describe_end({"State": {"Status": "exited", "ExitCode": 137, "OOMKilled": True}})
        'it was killed for using more memory than its limit (exit 137)'
    """
    if found is None:
        return "it is gone"
    state = found["State"]
    if state["Status"] == "running":
        return "it runs"
    code = state.get("ExitCode")
    if state.get("OOMKilled"):
        return f"it was killed for using more memory than its limit (exit {code})"
    why = state.get("Error") or ""
    return f"it is {state['Status']} (exit {code}){why and f': {why}'}"


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
    if settings.gpu_devices and engine.endpoint.is_here:
        _share_locks(config)
    share_sockets(engine, config, name, SOCKETS)
    try:
        with engine.asking("could not create a container"):
            engine.api.create_container_from_config(config, name, settings.platform or None)
    except EngineError as error:
        if error.status != 409:  # somebody else has just made it
            raise


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
    if settings.gpu_devices:
        every = settings.gpu_devices == ("all",)
        request = {"Count": -1} if every else {"DeviceIDs": list(settings.gpu_devices)}
        config["DeviceRequests"] = [{"Driver": "", "Capabilities": [["gpu"]], **request}]
    return config


def _share_locks(config: dict[str, Any]) -> None:
    """Give a container the folder where GPUs are locked, which all agents of this machine share."""
    folder = gpu_locks.lock_folder(os.environ)
    gpu_locks.make_shared_folder(folder)
    config["HostConfig"]["Mounts"].append({"Type": "bind", "Source": str(folder), "Target": LOCKS})
    config["Env"].append(f"{gpu_locks.LOCKS_VARIABLE}={LOCKS}")


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
    try:
        with engine.asking("could not start a container"):
            engine.api.put_archive(found["Id"], STATE, packed.getvalue())
            engine.api.start(found["Id"])
    except EngineError as error:
        if error.status not in (404, 409):  # removed meanwhile, or being removed
            with contextlib.suppress(HostUnavailable), engine.asking("could not remove a container"):
                engine.api.remove_container(found["Id"])
            raise
