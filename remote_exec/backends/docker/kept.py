"""What of ours an engine keeps: containers, volumes with what outlives them, images that Dockerfiles made.

All of it bears our labels. Another user's is another owner's, and left alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any

from ...model.record import record
from .container import SOCKETS, describe_end
from .direct import remove_sockets
from .engine import Engine, EngineError
from .labels import CREATED, INSTANCE, KEY, OWNER, owner

STOP_SECONDS = 10
STARTING_SECONDS = 60.0  # one that was made so lately may be about to be started


@record(kw_only=True)
class Kept:
    """A container, a volume or an image.

    Attributes:
        kind: ``container``, ``volume`` or ``image``.
        name: its name; a container's volume has the same.
        instance: the instance type that it was made for.
        state: of a container, in the engine's word; ``kept`` of what is none.
        detail: how it ended, in words.
        created_at: seconds since 1970.
    """

    kind: str
    name: str
    instance: str
    state: str
    detail: str
    created_at: float


def list_kept(engine: Engine) -> list[Kept]:
    """Return this user's containers, volumes and built images, oldest first.

    Raises:
        HostUnavailable: the engine does not answer.
    """
    return sorted(
        (*_containers(engine), *_volumes(engine), *_images(engine)), key=lambda kept: kept.created_at
    )


def stop(engine: Engine, name: str) -> None:
    """Stop a container and all that runs in it; nothing where it does not run. What it keeps stays.

    Raises:
        HostUnavailable: the engine does not answer.
    """
    with _unless_gone(), engine.asking(f"could not stop {name}"):
        engine.api.stop(name, timeout=STOP_SECONDS)


def remove(engine: Engine, name: str) -> None:
    """Remove a container, running or not, and the volume of its name: nothing of it is left.

    Raises:
        HostUnavailable: the engine does not answer, or another container uses the volume.
    """
    with _unless_gone():
        _remove_container(engine, name, force=True)
    with _unless_gone(), engine.asking(f"could not remove the volume {name}"):
        engine.api.remove_volume(name)


def prune(engine: Engine) -> list[Kept]:
    """Remove what is not in use: containers that do not run, volumes and built images that belong to none that does.

    Returns:
        What was removed.

    Raises:
        HostUnavailable: the engine does not answer.
    """
    removed: list[Kept] = []
    in_use: set[str] = set()
    for container in _containers(engine):
        lately = time.time() - container.created_at < STARTING_SECONDS
        if container.state in ("running", "paused") or (container.state == "created" and lately):
            in_use.add(container.name)
            continue
        with _unless_gone():
            _remove_container(engine, container.name, force=False)  # it may have been started meanwhile
            removed.append(container)
    for volume in _volumes(engine):
        if volume.name not in in_use:
            with _unless_gone(), engine.asking(f"could not remove the volume {volume.name}"):
                engine.api.remove_volume(volume.name)
                removed.append(volume)
    for image in _images(engine):
        with _unless_gone(), engine.asking(f"could not remove the image {image.name}"):
            engine.api.remove_image(image.name)  # the engine keeps it while a container is made of it
            removed.append(image)
    return removed


def _remove_container(engine: Engine, name: str, *, force: bool) -> None:
    found = engine.inspect("container", name)
    with engine.asking(f"could not remove {name}"):
        engine.api.remove_container(name, force=force)
    if found is not None:
        remove_sockets(found, SOCKETS)


@contextlib.contextmanager
def _unless_gone() -> Generator[None]:
    """Pass over what somebody else removed, is removing, or has taken into use again."""
    try:
        yield
    except EngineError as error:
        if error.status not in (304, 404, 409):
            raise


def _filters() -> dict[str, Any]:
    return {"label": [f"{OWNER}={owner()}"]}


def _containers(engine: Engine) -> Iterator[Kept]:
    with engine.asking("cannot list containers"):
        rows = engine.api.containers(all=True, filters=_filters())
    for row in rows:
        found = engine.inspect("container", row["Id"])
        if found is not None:
            yield _kept(
                "container",
                found["Name"].lstrip("/"),
                found["Config"]["Labels"],
                state=found["State"]["Status"],
                detail=describe_end(found),
            )


def _volumes(engine: Engine) -> Iterator[Kept]:
    with engine.asking("cannot list volumes"):
        rows = engine.api.volumes(filters=_filters())["Volumes"] or ()
    for row in rows:
        if KEY in (row["Labels"] or {}):
            yield _kept("volume", row["Name"], row["Labels"], state="kept", detail="")


def _images(engine: Engine) -> Iterator[Kept]:
    with engine.asking("cannot list images"):
        rows = engine.api.images(filters=_filters())
    for row in rows:
        for name in row["RepoTags"] or (row["Id"],):
            yield _kept("image", name, row["Labels"], state="kept", detail="")


def _kept(kind: str, name: str, labels: dict[str, str], *, state: str, detail: str) -> Kept:
    return Kept(
        kind=kind,
        name=name,
        instance=labels.get(INSTANCE, ""),
        state=state,
        detail=detail,
        created_at=float(labels.get(CREATED, 0)),
    )
