"""What was found out about forking: modules that cannot be imported ahead, environments that must not be forked.

`Findings` is pure. The agent appends what is found to a file of one line each, and begins with what is in it, so
that the next agent need not find out again what may have cost a user a minute. A finding is forgotten after a
while: libraries are mended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from ..model.errors import ProtocolError
from ..model.record import record
from ..wire.messages import from_plain, to_plain

KEPT_SECONDS = 7 * 86_400.0
KEPT_LINES = 1000


@record(kw_only=True)
class Finding:
    """One thing found out about an environment.

    Attributes:
        environment: its digest.
        modules: what was imported when it was found out.
        forks: whether forking works all the same, once these modules are not imported ahead.
        reason: how it was found out, in words.
    """

    environment: str
    modules: tuple[str, ...]
    forks: bool
    reason: str


class Findings:
    """All that is known.

    Args:
        known: what was found out before.
    """

    def __init__(self, known: Iterable[Finding] = ()) -> None:
        self._by_environment: dict[str, list[Finding]] = {}
        for finding in known:
            self.add(finding)

    def add(self, finding: Finding) -> None:
        """Take note."""
        found = self._by_environment.setdefault(finding.environment, [])
        if finding not in found:
            found.append(finding)

    def left_out(self, environment: str) -> frozenset[str]:
        """Return the modules that a fork server of this environment is not to import."""
        found = self._by_environment.get(environment, ())
        return frozenset(name for finding in found if finding.forks for name in finding.modules)

    def unsound(self, environment: str, modules: Collection[str]) -> str:
        """Say why a process that has imported these modules must not be forked; empty: it may."""
        for finding in self._by_environment.get(environment, ()):
            if not finding.forks and set(finding.modules) <= set(modules):
                return finding.reason
        return ""


def load(path: Path) -> list[Finding]:
    """Return what the file holds and is not too old, and cut it to that; an unreadable line is passed over."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    kept: dict[str, Finding] = {}
    for line in lines[-KEPT_LINES:]:
        try:
            found_at, plain = json.loads(line)
            if time.time() - found_at < KEPT_SECONDS:
                kept[line] = from_plain(Finding, plain)
        except (ValueError, TypeError, ProtocolError):
            continue
    if len(kept) < len(lines):
        path.write_text("".join(f"{line}\n" for line in kept))
    return list(kept.values())


def append(path: Path, finding: Finding) -> None:
    """Keep a finding for the next agents.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("a") as file:
        file.write(json.dumps([time.time(), to_plain(finding)]) + "\n")
