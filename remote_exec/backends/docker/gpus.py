"""GPUs for a container: what the engine is asked for, locks that all containers share, and why there are none."""

from __future__ import annotations

import os
from typing import Any

from ...agent import gpu_locks
from ...model.errors import ConfigurationError, RemoteExecError, ResourceLimitExceeded
from .engine import Engine, EngineError
from .settings import ContainerSettings

LOCKS = "/remote_exec-gpus"
# how engines say that they cannot give any: without the toolkit, and where it is there and fails
NO_TOOLKIT = ("could not select device driver", "unresolvable CDI devices", "invalid runtime name: nvidia")
TOOLKIT_FAILS = ("nvidia-container-cli", "nvidia-container-runtime", "nvidia-ctk")


def request_gpus(config: dict[str, Any], settings: ContainerSettings, engine: Engine) -> None:
    """Have a container that is to be made see GPUs, and the locks on them that all agents of its machine share."""
    if not settings.gpu_devices:
        return
    every = settings.gpu_devices == ("all",)
    request = {"Count": -1} if every else {"DeviceIDs": list(settings.gpu_devices)}
    config["HostConfig"]["DeviceRequests"] = [{"Driver": "", "Capabilities": [["gpu"]], **request}]
    if engine.endpoint.is_here:
        folder = gpu_locks.lock_folder(os.environ)
        gpu_locks.make_shared_folder(folder)
        config["HostConfig"]["Mounts"].append({"Type": "bind", "Source": str(folder), "Target": LOCKS})
        config["Env"].append(f"{gpu_locks.LOCKS_VARIABLE}={LOCKS}")
    elif settings.node:
        raise ConfigurationError(
            f"two containers at {engine.endpoint.url} would claim the same GPUs: those of an engine elsewhere share no "
            "locks on them",
            option="instance_count",
            hint="set instance_count=1: nproc_per_node is how many processes one container runs",
        )


def explain(error: EngineError, found: dict[str, Any], engine: Engine) -> RemoteExecError:
    """Return what to raise where a container did not start: for want of GPUs, or the error itself.

    Args:
        error: the engine's.
        found: what it knows of the container.
        engine: the engine.
    """
    if not found["HostConfig"].get("DeviceRequests"):
        return error
    where = f"the container engine at {engine.endpoint.url}"
    if any(words in error.message for words in NO_TOOLKIT):
        return ResourceLimitExceeded(
            f"GPUs were asked for, and {where} cannot give a container any: {error.message}",
            hint="on the engine's machine, which needs NVIDIA's driver (nvidia-smi works): install "
            "nvidia-container-toolkit, then sudo nvidia-ctk runtime configure --runtime=docker, and "
            "sudo systemctl restart docker; or do without: gpus = 0",
        )
    if any(words in error.message for words in TOOLKIT_FAILS):
        return ResourceLimitExceeded(
            f"GPUs were asked for, and NVIDIA's part of {where} fails: {error.message}",
            hint="on the engine's machine: does nvidia-smi work, and has it the GPUs that gpu_devices names? "
            "then: sudo nvidia-container-cli info",
        )
    return error
