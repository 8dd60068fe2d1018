"""How long an agent waits for its fork servers and workers to speak, before it helps itself.

Pure. Environment variables of the agent move them, for tests and for hosts that are slower than any we know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from ..model.record import record

PREFIX = "REMOTE_EXEC_AGENT_"


@record(kw_only=True)
class Deadlines:
    """In seconds.

    Attributes:
        ready_seconds: from a fork to the child's first word. Forking takes milliseconds: who is silent for so long
            hangs in something that a library does after forks.
        start_seconds: from the start of a Python to its first word, that of a fork server or of a fresh worker.
        import_seconds: the import of one module by a fork server. A big library from a cold network disk is slow.
    """

    ready_seconds: float = 10.0
    start_seconds: float = 60.0
    import_seconds: float = 120.0

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Deadlines:
        """Return those that the environment variables `REMOTE_EXEC_AGENT_READY_SECONDS` and so on set.

        Raises:
            ValueError: one is no number.

        Example:
            >>> Deadlines.of({"REMOTE_EXEC_AGENT_READY_SECONDS": "2"}).ready_seconds
            2.0
        """
        names = {field.name: PREFIX + field.name.upper() for field in fields(cls)}
        return cls(
            **{name: float(environ[variable]) for name, variable in names.items() if variable in environ}
        )
