"""``remote-exec run --dry-run``: what would travel, what not and why, and where it would run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .show import note, print_facts, print_table, size

MOST_FILES = 50


def preview(function: Callable[..., Any], given: Any) -> dict[str, Any]:
    """Capture a function as a call would, and tell what came of it. Nothing is sent, no agent is started.

    Args:
        function: the function.
        given: its options, before configuration.

    Raises:
        RemoteExecError: what a call would raise before it is sent.
    """
    from ..capture.environment import environment_of
    from ..capture.function import FunctionCapture
    from ..client.placement import choose
    from ..config import load_config

    found = choose(load_config(), given)
    instance, options = found.instance, found.options
    name = getattr(function, "__name__", "function")
    captured = FunctionCapture(function, name=name, options=options).current()
    environment = environment_of(captured, options, here=found.host.here)
    bundle = captured.local_code.bundle
    return {
        "function": name,
        "instance_type": instance.name,
        "backend": instance.backend,
        "environment": {"summary": environment.summary, "digest": environment.digest},
        "preload": list(captured.preload),
        "function_bytes": captured.pickled.size_bytes,
        "bundle_bytes": bundle.size_bytes,
        "files": [{"path": file.path, "size_bytes": file.size} for file in bundle.files],
        "left_out": [{"path": path, "why": why} for path, why in captured.local_code.left_out],
        "missing": dict(captured.reach.missing),
    }


def print_preview(found: dict[str, Any]) -> None:
    """Print it for people."""
    files = sorted(found["files"], key=lambda file: -file["size_bytes"])
    print_facts(
        {
            "function": f"{found['function']} ({size(found['function_bytes'])} pickled)",
            "runs on": f"{found['instance_type']} ({found['backend']})",
            "environment": found["environment"]["summary"],
            "preloaded": ", ".join(found["preload"]),
            "travels": f"{size(found['bundle_bytes'])} (files: {len(files)})" if files else "no files",
        }
    )
    if files:
        click.echo()
        rows = [(size(file["size_bytes"]), file["path"]) for file in files[:MOST_FILES]]
        print_table(("SIZE", "TRAVELS"), rows, none="")
        if len(files) > MOST_FILES:
            note(f"and {len(files) - MOST_FILES} smaller ones; --json lists them all")
    if found["left_out"]:
        click.echo()
        rows = [(one["path"], one["why"]) for one in found["left_out"][:MOST_FILES]]
        print_table(("LEFT OUT", "WHY"), rows, none="")
        if len(found["left_out"]) > MOST_FILES:
            note(f"and {len(found['left_out']) - MOST_FILES} more; --json lists them all")
    for name, by in found["missing"].items():
        note(f"missing: {name} is imported by {by}, and is not installed here")
