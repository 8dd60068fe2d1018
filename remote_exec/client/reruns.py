"""A job run once more, as it was: what it ran lies on its host, and only its environment variables come from here."""

from __future__ import annotations

from typing import Any

from ..agent.reruns import RERUN_OF
from ..config import load_config, resolve_instance_types
from ..model.environment import EnvironmentSpec
from ..model.errors import ConfigurationError
from ..model.ids import new_id
from ..options import Options
from ..wire.messages import from_plain
from .session import Session
from .target import far_variables_of, variables_of


def rerun_job(session: Session, name: str) -> str:
    """Submit a durable job again, and return the name of the new one.

    Args:
        session: with the agent of its host.
        name: the job's; it may run yet.

    Raises:
        JobNotFound: there is no such job.
        ConfigurationError: not all is kept of it that it needs; the message says what.
    """
    told: dict[str, Any] = session.ask("job", {"name": name})
    spec: dict[str, Any] = told["spec"]
    if not spec:
        raise ConfigurationError(
            f"{name} is a call that its caller waited for: only durable jobs are kept whole"
        )
    options = _options(told["job"]["instance_type"])
    if session.host.here:
        environment: EnvironmentSpec = from_plain(EnvironmentSpec, spec["pool"]["environment"])
        variables = variables_of(options, environment)
    else:
        variables = far_variables_of(options)
    origin = dict(told["job"]["tags"]).get(RERUN_OF, name)
    new_name = f"{origin}-{new_id()}"
    session.ask("rerun", {"name": name, "new_name": new_name, "variables": variables})
    return new_name


def _options(instance_type: str) -> Options:
    """Return the options that the configuration gives on that instance type, whose variables a job is given."""
    config = load_config()
    try:
        instance = resolve_instance_types(instance_type, config)[0]
    except ConfigurationError:  # it is configured no longer
        return config.resolve(Options())
    return config.resolve(Options(), instance)
