"""What agents tell their successors about forking: kept for a while, and never believed blindly."""

from __future__ import annotations

import json
import time
from pathlib import Path

from remote_exec.agent.findings import KEPT_SECONDS, Finding, Findings, append, load

HUNG = Finding(environment="sha256:1", modules=("hangs",), forks=True, reason="its import hangs")
THREADS = Finding(
    environment="sha256:1", modules=("monitor", "numpy"), forks=False, reason="it starts a thread"
)


def test_what_is_found_out_is_there_for_the_next_agent_until_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "findings"
    assert load(path) == []
    for finding in (HUNG, THREADS):
        append(path, finding)
    lines = path.read_text().splitlines()
    old = json.dumps([time.time() - KEPT_SECONDS, json.loads(lines[0])[1]])
    path.write_text("\n".join([old, "torn", "[1]", '[1e99, {"modules": 3}]', "null", lines[1]]) + "\n")
    assert load(path) == [THREADS]
    assert path.read_text().splitlines() == lines[1:], "and what is of no use is removed"


def test_a_finding_holds_for_its_environment_and_its_modules() -> None:
    found = Findings([HUNG, THREADS])
    assert found.left_out("sha256:1") == {"hangs"}
    assert found.left_out("sha256:2") == frozenset()
    assert found.unsound("sha256:1", {"monitor", "numpy", "pandas"}) == "it starts a thread"
    assert found.unsound("sha256:1", {"numpy", "pandas"}) == ""
    assert found.unsound("sha256:2", {"monitor", "numpy"}) == ""
