"""What a container is to be: an instance type's settings and a call's options, in one value. No I/O."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from ...instances import InstanceType
from ...model.digests import digest_of
from ...model.errors import ConfigurationError
from ...model.record import record
from ...options import Options

LINGER_SECONDS = 60.0


@record
class Hidden:
    """A text that is known by its digest wherever it is compared, shown or written down: it may be a secret."""

    digest: str

    @classmethod
    def of(cls, text: str) -> Hidden:
        """Return one that still has its text, as no copy that was written down and read again has."""
        made = cls(digest_of(text))
        made.__dict__["text"] = text  # no field: those are what is compared, shown and written down
        return made

    @property
    def text(self) -> str | None:
        """The text; None where only its digest is known."""
        text: str | None = self.__dict__.get("text")
        return text


@record(kw_only=True)
class ContainerSettings:
    """All that is asked of a container; equal settings of one user are served by one container.

    Attributes:
        instance: the instance type's name.
        engine: a docker context or an address; empty: what ``DOCKER_HOST`` or the current context says.
        image: an image's name; empty where a Dockerfile makes it.
        dockerfile: the path of one.
        build_context: the folder that its COPY lines see; empty: the Dockerfile's own.
        build_args: pairs of names and values. These may be secrets, and settings are written down in the inventory.
        build_target: the stage to stop at; empty: the last.
        pull: ``missing``, ``always`` or ``never``.
        platform: such as ``linux/arm64``; empty: the engine's.
        volumes: as ``SOURCE:TARGET:MODE``.
        gpu_devices: the engine's GPUs that it sees, or ``all``.
        memory_bytes: limit of all of its processes together; 0: none.
        cpus: limit of all of its processes together; 0: none.
        pids: how many processes and threads it may have.
        shm_bytes: size of ``/dev/shm``; 0: the engine's default.
        user: whose rights its processes have; empty: the caller's uid and gid, or 1000 where that is root.
        network: mode or name; empty: the engine's default.
        read_only: whether all but the state volume and ``/tmp`` is read-only.
        capabilities: Linux capabilities that it keeps; all others are dropped.
        linger_seconds: how long it stays once no process of ours is in it.
        node: which of a group's it is; each is a container of its own, and the first is that of other calls, too.
    """

    instance: str
    engine: str = ""
    image: str = ""
    dockerfile: str = ""
    build_context: str = ""
    build_args: tuple[tuple[str, Hidden], ...] = ()
    build_target: str = ""
    pull: str = "missing"
    platform: str = ""
    volumes: tuple[str, ...] = ()
    gpu_devices: tuple[str, ...] = ()
    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 4096
    shm_bytes: int = 0
    user: str = ""
    network: str = ""
    read_only: bool = False
    capabilities: tuple[str, ...] = ()
    linger_seconds: float = LINGER_SECONDS
    node: int = 0

    @classmethod
    def of(cls, instance: InstanceType, options: Options) -> ContainerSettings:
        """Return what a call with these options asks for on this instance type.

        With neither an image nor a Dockerfile it is Docker's own ``python`` image, in this Python's version.

        Args:
            instance: of the backend ``docker``.
            options: the call's, the instance type's own among them.

        Raises:
            ConfigurationError: they contradict each other.

        Example:
            >>> box = InstanceType(name="box", backend="docker", settings={"memory_limit": 1 << 30})
            >>> asked = ContainerSettings.of(box, Options.from_keywords(image_uri="debian:12"))
            >>> asked.image, asked.memory_bytes
            ('debian:12', 1073741824)
        """
        told = instance.settings
        image, dockerfile = options.image_uri or "", told.get("dockerfile", "")
        network = told.get("network_mode", "")
        if options.enable_network_isolation:
            if network not in ("", "none"):
                raise ConfigurationError(
                    f"the instance type {instance.name!r} has the network {network!r}, and "
                    "enable_network_isolation asks for none",
                    option="enable_network_isolation",
                )
            network = "none"
        if image:
            dockerfile = ""  # a call's own image ranks above the instance type's Dockerfile
        elif not dockerfile:
            image = f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"
        return cls(
            instance=instance.name,
            engine=told.get("engine", ""),
            image=image,
            dockerfile=dockerfile,
            build_context=told.get("build_context", "") if dockerfile else "",
            build_args=hidden(told.get("build_args", {})) if dockerfile else (),
            build_target=told.get("build_target", "") if dockerfile else "",
            pull=told.get("pull", "missing"),
            platform=told.get("platform", ""),
            volumes=told.get("volumes", ()),
            gpu_devices=told.get("gpu_devices", ("all",) if options.gpus else ()),
            memory_bytes=told.get("memory_limit", 0),
            cpus=told.get("cpu_limit", 0.0),
            pids=told.get("pids_limit", 4096),
            shm_bytes=told.get("shm_size", 0),
            user=told.get("user", ""),
            network=network,
            read_only=told.get("read_only", False),
            capabilities=told.get("cap_add", ()),
        )

    @property
    def is_whole(self) -> bool:
        """Whether it still has all that a build needs; settings that were read from the inventory may not."""
        return all(value.text is not None for _, value in self.build_args)


def hidden(variables: Mapping[str, str]) -> tuple[tuple[str, Hidden], ...]:
    """Return variables as `ContainerSettings.build_args` has them."""
    return tuple((name, Hidden.of(value)) for name, value in sorted(variables.items()))
