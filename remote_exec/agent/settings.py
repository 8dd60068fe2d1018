"""What the user's configuration says about an agent: how long it stays, how much it hands out, how much it keeps.

Clients read the configuration and tell it with their greeting; the settings of the last client that has any hold.
Pure; the agent owns the one `Settings` that is in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..model.record import record
from .pool_events import NO_QUOTAS, Quotas

IDLE_VARIABLE = "REMOTE_EXEC_AGENT_IDLE_SECONDS"
DAY_SECONDS = 86_400.0


@record(kw_only=True)
class Settings:
    """One agent's settings. Their names and defaults are those of the table of options.

    Attributes:
        idle_seconds: how long the agent stays with no client, worker or job.
        quotas: what all calls together may hold.
        queued_jobs: how many jobs may be queued; None: no bound.
        cache_bytes: how large blobs and environments together may grow.
        retention_seconds: how long ended jobs are kept.
        retention_bytes: how much room their results and logs may take.
    """

    idle_seconds: float = 900.0
    quotas: Quotas = NO_QUOTAS
    queued_jobs: int | None = None
    cache_bytes: int = 20_000_000_000
    retention_seconds: float = 14 * DAY_SECONDS
    retention_bytes: int = 10_000_000_000

    def told(self, values: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
        """Return the settings that hold once a client has told its own.

        Args:
            values: by option name, those that the client's configuration sets; with none, these here stay.
            environ: the agent's environment variables; `REMOTE_EXEC_AGENT_IDLE_SECONDS` overrides the idle time.

        Raises:
            ValueError: a value is no number.

        Example:
            >>> Settings().told({"quotas": {"cpus": 2}}, {}).quotas.cpus
            2.0
        """
        found = self if not values else _parse(values)
        override = environ.get(IDLE_VARIABLE)
        return replace(found, idle_seconds=float(override)) if override else found


def _parse(values: Mapping[str, Any]) -> Settings:
    default = Settings()
    quotas: Mapping[str, Any] = values.get("quotas") or {}
    return Settings(
        idle_seconds=float(values.get("agent_idle_timeout_in_seconds", default.idle_seconds)),
        quotas=Quotas(
            cpus=_limit(quotas, "cpus"), memory_bytes=_limit(quotas, "memory"), gpus=_limit(quotas, "gpus")
        ),
        queued_jobs=int(quotas["jobs"]) if "jobs" in quotas else None,
        cache_bytes=int(values.get("cache_size_limit", default.cache_bytes)),
        retention_seconds=float(values.get("retention_in_days", 14)) * DAY_SECONDS,
        retention_bytes=int(values.get("retention_size_limit", default.retention_bytes)),
    )


def _limit(quotas: Mapping[str, Any], name: str) -> float | None:
    return float(quotas[name]) if name in quotas else None
