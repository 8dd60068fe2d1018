"""`RemoteExecutor` with the parameters of `ProcessPoolExecutor`, for a suite that was written for the latter."""

from __future__ import annotations

from typing import Any

from remote_exec import RemoteExecutor
from remote_exec.errors import ConfigurationError


class ProcessPoolShaped(RemoteExecutor):
    """Says `max_workers` where ours says `max_parallel_jobs`; a multiprocessing context has no counterpart."""

    def __init__(self, max_workers: int | None = None, mp_context: object = None, **keywords: Any) -> None:
        try:
            super().__init__(max_workers, **keywords)
        except ConfigurationError as error:
            if error.option != "max_parallel_jobs":
                raise
            raise ValueError(f"max_workers must be greater than 0: {error}") from error  # the suite's words
