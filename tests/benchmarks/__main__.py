"""Run the benchmarks and print ratios beside their bars.

``python -m tests.benchmarks [--quick] [--only NAME ...] [--json FILE] [--markdown FILE]``

Never a test: figures depend on the machine, so ours and the peers' rounds alternate in one run and only
ratios are judged. Runs against agents of its own, in a temporary folder, and stops them at the end.

For every row, install what it is measured beside: ``pip install loky joblib ray "distributed" numpy torch``.
What is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from . import peers
from .harness import Bench, Row, run_python, summary, table

BENCHMARKS = {
    "warm": ("calls", "warm_calls"),
    "many": ("calls", "many_calls"),
    "arrays": ("calls", "arrays"),
    "scripts": ("starts", "scripts"),
    "imports": ("starts", "imports"),
    "environments": ("worlds", "environments"),
    "workdir": ("worlds", "working_directory"),
    "torch": ("worlds", "heavy_import"),
    "memory": ("starts", "memory"),
    "queued": ("queues", "queued"),
    "kernel": ("notebooks", "small_cells"),
    "links": ("links", "links"),
    "bulk": ("links", "bulk"),
    "streams": ("streams", "streams"),
    "cells": ("cells", "cells"),
    "panel": ("panel", "panel"),
}


QUICK_LIMIT_SECONDS, LIMIT_SECONDS = 90, 240
"""What takes longer than that has hung: it is given up, said, and the next one is run."""


def main() -> int:
    """Run what was asked for; return 1 when a benchmark could not be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS), metavar="NAME"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds and small data: does it run at all")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    chosen = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGALRM, _give_up)
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="remote_exec-bench-") as name:
        os.environ["REMOTE_EXEC_HOME"] = str(Path(name, "home"))
        bench = Bench(quick=chosen.quick, folder=Path(name), on_row=_progress)
        header = _machine(quick=chosen.quick)
        started = time.monotonic()
        _warm(Path(name))
        try:
            for benchmark in chosen.only:
                if error := _run(bench, benchmark):
                    failures.append(error)
        finally:
            _stop(Path(name, "home"))
    header.append(
        f"load average at the end {_load()}; took {time.monotonic() - started:.0f} s; {summary(bench.rows)}"
    )
    if bench.missing:
        header.append(f"MISSING here, not measured: {', '.join(sorted(bench.missing))}")
    _tell(bench.rows, header, failures, json_file=chosen.json, markdown_file=chosen.markdown)
    return 1 if failures else 0


def _tell(
    rows: Sequence[Row],
    header: Sequence[str],
    failures: Sequence[str],
    *,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    text = "\n".join([*(f"- {line}" for line in header), "", table(rows), *failures])
    print(f"\n{text}")
    if markdown_file:
        markdown_file.write_text(f"{text}\n")
    if json_file:
        plain = [dataclasses.asdict(row) for row in rows]
        told = {"machine": header, "rows": plain, "failures": failures}
        json_file.write_text(json.dumps(told, indent=1) + "\n")


def _run(bench: Bench, name: str) -> str:
    from importlib import import_module

    module, function = BENCHMARKS[name]
    run: Callable[[Bench], None] = getattr(import_module(f".{module}", __package__), function)
    started = time.monotonic()
    about = (run.__doc__ or "").partition("\n")[0]
    print(f"[{name}] {about}", file=sys.stderr)
    signal.alarm(QUICK_LIMIT_SECONDS if bench.quick else LIMIT_SECONDS)
    try:
        run(bench)
    except Exception as error:
        text = f"FAILED {name}: {type(error).__name__}: {error}"
        print(text, file=sys.stderr)
        return text
    finally:
        signal.alarm(0)
        print(f"[{name}] took {time.monotonic() - started:.1f} s", file=sys.stderr)
    return ""


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # by way of what stops the agents


def _give_up(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError("it has hung")


def _progress(row: Row) -> None:
    verdict = "" if row.met is None else "met" if row.met else "MISSED"
    ratio = f"{row.ratio:.2f} x" if row.ratio is not None else ""
    print(f"  {row.what}: {row.ours} | {row.peer} | {ratio} {row.bar} {verdict}", file=sys.stderr)


def _warm(folder: Path) -> None:
    """Have the runtime unpacked, its bytecode written, and the agent there.

    In a process of its own, since most peers fork this one and are to find no thread of ours in it.
    """
    script = folder / "warm.py"
    script.write_text("from remote_exec import remote\n\nremote(lambda: None)()\n")
    run_python([str(script)], environ={}, folder=folder)


def _stop(home: Path) -> None:
    from remote_exec.client.connections import connections

    from . import hosts

    connections.close()
    hosts.clean(hosts.layout_of(home))


def _machine(*, quick: bool) -> list[str]:
    return [
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs; "
        f"beside {peers.versions() or 'the standard library alone'}",
        f"load average at the start {_load()}"
        + ("; a QUICK run, of few rounds and small data" if quick else ""),
        "medians of interleaved rounds in one run; nobody pinned; two workers each; n: repetitions of each side",
        "PPE is concurrent.futures.ProcessPoolExecutor, its start method in brackets",
    ]


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
