"""A job run again under another name: its call's bytes are in the journal, its local code and data are kept here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..model.errors import ConfigurationError
from ..worker.unpacked import place_of
from . import jobs, requests

if TYPE_CHECKING:
    from .service import Agent

RERUN_OF = "rerun_of"  # the tag of a job that was run again


def rerun(agent: Agent, arguments: dict[str, Any], reply: Callable[[str, str], None]) -> None:
    """Submit again what the job `name` was, as `new_name`, with the environment variables `variables`.

    A job's own variables are not kept after its end, since they may be secret.

    Raises:
        JobNotFound: there is none.
        ConfigurationError: not all is kept of it that it needs.
    """
    record = requests._find(agent, arguments["name"])
    name, text = record.name, agent.journal.spec(record.name)
    spec: dict[str, Any] = json.loads(text) if text else {}
    parts = agent.journal.payload(name)
    if not spec or not parts:
        raise ConfigurationError(
            f"{name} is a call that its caller waited for: only durable jobs are kept whole"
        )
    lacks = [one for one in spec.get("variable_names", ()) if one not in arguments["variables"]]
    if lacks:
        raise ConfigurationError(
            f"{name} was given environment variables that are not kept after its end: {', '.join(lacks)}"
        )
    if spec["bundle"] and not place_of(spec["bundle"], agent.layout.bundles).is_dir():
        raise ConfigurationError(f"the local code that {name} ran is no longer kept on this host")
    blobs = [part for part in parts if isinstance(part, str)]
    missing = agent.blobs.missing(blobs)
    if missing:
        raise ConfigurationError(f"the arguments of {name} are no longer kept on this host")
    tags = [tag for tag in spec["tags"] if tag[0] != RERUN_OF]
    again = {
        **spec,
        "name": arguments["new_name"],
        "tags": [*tags, [RERUN_OF, name]],
        "variables": arguments["variables"],
        "payload_blobs": blobs,
        "phases": [],
    }
    jobs.submit(agent, again, b"".join(part for part in parts if isinstance(part, bytes)), reply)
