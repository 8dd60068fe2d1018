"""The image of a container: there, pulled, or built from a Dockerfile, once for the same files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from ...model.errors import ConfigurationError, HostUnavailable, RuntimeEnvironmentError
from ...model.record import record
from .engine import Engine, EngineError
from .labels import labels_of
from .settings import ContainerSettings

BUILT = "remote_exec"  # the repository of images that Dockerfiles made
LAST_LINES = 30


@record(kw_only=True)
class Progress:
    """How far a pull or a build is.

    Attributes:
        text: what is under way, or a line of the build's output.
        done_bytes: of all layers together.
        total_bytes: of those whose size is known by now; 0 while none is.
    """

    text: str
    done_bytes: int = 0
    total_bytes: int = 0


Told = Callable[[Progress], None]


def find_image(engine: Engine, settings: ContainerSettings, told: Told) -> dict[str, Any]:
    """Return what the engine knows of the image that is asked for, pulled or built if need be.

    Args:
        engine: the engine.
        settings: what is asked for; its pull policy decides.
        told: hears of progress.

    Raises:
        ConfigurationError: there is no such Dockerfile.
        HostUnavailable: it is not there and may not or cannot be pulled.
        RuntimeEnvironmentError: it could not be built; the error has the build's last lines.
    """
    name = _built_name(settings) if settings.dockerfile else settings.image
    found = None if settings.pull == "always" else engine.inspect("image", name)
    if found is not None and _fits(found, settings.platform):
        return found
    if settings.dockerfile:
        _build(engine, settings, name, told)
    elif settings.pull == "never":
        raise HostUnavailable(
            f"the engine at {engine.endpoint.url} has no image {name}"
            f"{settings.platform and f' for {settings.platform}'}, and pull is 'never'",
            hint=f"docker pull {name}, or pull = 'missing'",
        )
    else:
        _pull(engine, settings, told)
    found = engine.inspect("image", name)
    if found is None:
        raise HostUnavailable(f"the image {name} is gone since it was fetched")
    return found


def _fits(image: dict[str, Any], platform: str) -> bool:
    return not platform or platform.split("/")[:2] == [image.get("Os"), image.get("Architecture")]


# --- pull ---


def _pull(engine: Engine, settings: ContainerSettings, told: Told) -> None:
    name = settings.image
    layers: dict[str, tuple[int, int]] = {}
    try:
        with engine.asking(f"could not pull {name}"):
            lines = engine.api.pull(name, stream=True, decode=True, platform=settings.platform or None)
            failure = ""
            for (
                line
            ) in lines:  # to its end, which comes with an error, too: so the connection can be used again
                failure = line.get("error") or failure
                detail: dict[str, Any] = line.get("progressDetail") or {}
                if line.get("status") == "Downloading" and detail.get("total"):
                    layers[line["id"]] = (int(detail.get("current", 0)), int(detail["total"]))
                elif line.get("status") in ("Download complete", "Pull complete") and line["id"] in layers:
                    whole = layers[line["id"]][1]
                    layers[line["id"]] = (whole, whole)
                done, total = (sum(sizes[part] for sizes in layers.values()) for part in (0, 1))
                told(Progress(text=f"pulling {name}", done_bytes=done, total_bytes=total))
            if failure:
                raise HostUnavailable(f"the container engine could not pull {name}: {failure}")
    except HostUnavailable as error:
        if not error.hint:
            registry = name.partition("/")[0]
            login = f"docker login {registry}" if "." in registry or ":" in registry else "docker login"
            error.hint = f"is the name right, and may you have it? {login}"
        raise


# --- build ---


def _context(settings: ContainerSettings) -> Path:
    dockerfile = Path(settings.dockerfile)
    if not dockerfile.is_file():
        raise ConfigurationError(
            f"the instance type {settings.instance!r} names a Dockerfile that is not there: {dockerfile}",
            option="dockerfile",
        )
    context = Path(settings.build_context) if settings.build_context else dockerfile.parent
    if not context.is_dir():
        raise ConfigurationError(
            f"the instance type {settings.instance!r} names a build context that is no folder: {context}",
            option="build_context",
        )
    return context


def _built_name(settings: ContainerSettings) -> str:
    """Return a name that says what the image is made of: the Dockerfile, all that it can copy, and arguments."""
    context, whole = _context(settings), hashlib.sha256()
    told = (settings.build_args, settings.build_target, settings.platform)
    whole.update(repr(told).encode() + b"\0" + Path(settings.dockerfile).read_bytes())
    for name in sorted(_sent(context, settings.dockerfile)):
        path = context / name
        with contextlib.suppress(OSError):  # a file that cannot be read is not sent either
            mode = path.lstat().st_mode
            whole.update(f"\0{name}\0{mode:o}\0".encode("utf-8", "surrogateescape"))
            if stat.S_ISREG(mode):
                with path.open("rb") as file:
                    whole.update(hashlib.file_digest(file, "sha256").digest())
            elif stat.S_ISLNK(mode):
                whole.update(os.fsencode(os.readlink(path)))
    return f"{BUILT}:{whole.hexdigest()[:16]}"


def _sent(context: Path, dockerfile: str) -> Iterator[str]:
    """Yield what the ``docker`` package sends of a build context, relative to it."""
    build: Any = import_module("docker.utils.build")
    patterns: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        lines = [line.strip() for line in (context / ".dockerignore").read_text().splitlines()]
        patterns = [line for line in lines if line and not line.startswith("#")]
    inside = os.path.relpath(dockerfile, context)
    yield from build.exclude_paths(
        str(context), patterns, dockerfile=None if inside.startswith("..") else inside
    )


def _build(engine: Engine, settings: ContainerSettings, name: str, told: Told) -> None:
    if not settings.is_whole:
        raise ConfigurationError(
            f"the image of {settings.instance!r} is gone, and its build_args are not known here any longer",
            option="build_args",
            hint="call from where they are configured",
        )
    output: list[str] = []
    failed = f"could not build {settings.dockerfile}"
    try:
        with engine.asking(failed):
            lines = engine.api.build(
                path=str(_context(settings)),
                dockerfile=settings.dockerfile,
                tag=name,
                buildargs={name: value.text for name, value in settings.build_args},
                target=settings.build_target or None,
                platform=settings.platform or None,
                pull=settings.pull == "always",
                labels=labels_of(settings),
                rm=True,
                forcerm=True,
                decode=True,
            )
            failure = False
            for line in lines:  # to its end, as above
                failure = failure or "error" in line
                for text in str(line.get("stream") or line.get("error") or "").splitlines():
                    if text.strip():
                        output = [*output[1 - LAST_LINES :], text.rstrip()]
                        told(Progress(text=text.rstrip()))
            if failure:
                raise _build_error(failed, output)
    except EngineError as error:
        raise _build_error(f"{failed}: {error.message}", output) from error


def _build_error(failed: str, output: list[str]) -> RuntimeEnvironmentError:
    return RuntimeEnvironmentError(
        f"the container engine {failed}",
        output="\n".join(output),
        hint="what only BuildKit knows: docker build it yourself, and name the image by image_uri",
    )
