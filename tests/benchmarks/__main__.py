"""Run the benchmarks and print ratios beside their bars.

``python -m tests.benchmarks [--quick] [--only NAME ...] [--json FILE]``

Never a test: figures depend on the machine, so ours and the peers' rounds alternate in one run and only
ratios are judged. Runs against agents of its own, in a temporary folder, and stops them at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .harness import Bench, Row, run_python, table

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
}


def main() -> int:
    """Run what was asked for; return 1 when a benchmark could not be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS), metavar="NAME"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds and small data: does it run at all")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    chosen = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="remote_exec-bench-") as name:
        os.environ["REMOTE_EXEC_HOME"] = str(Path(name, "home"))
        bench = Bench(quick=chosen.quick, folder=Path(name), on_row=_progress)
        before = _machine()
        _warm(Path(name))
        try:
            for benchmark in chosen.only:
                if error := _run(bench, benchmark):
                    failures.append(error)
        finally:
            _stop(Path(name, "home"))
    header = [*before, f"load average at the end: {_load()}"]
    if bench.missing:
        header.append(f"MISSING here, not measured: {', '.join(sorted(bench.missing))}")
    print("\n" + "\n".join([*header, "", table(bench.rows), *failures]))
    if chosen.json:
        rows = [dataclasses.asdict(row) for row in bench.rows]
        told = {"machine": header, "rows": rows, "failures": failures}
        chosen.json.write_text(json.dumps(told, indent=1) + "\n")
    return 1 if failures else 0


def _run(bench: Bench, name: str) -> str:
    from importlib import import_module

    module, function = BENCHMARKS[name]
    run: Callable[[Bench], None] = getattr(import_module(f".{module}", __package__), function)
    started = time.monotonic()
    print(f"[{name}] {run.__doc__}", file=sys.stderr)
    try:
        run(bench)
    except Exception as error:
        text = f"FAILED {name}: {type(error).__name__}: {error}"
        print(text, file=sys.stderr)
        return text
    finally:
        print(f"[{name}] took {time.monotonic() - started:.1f} s", file=sys.stderr)
    return ""


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


def _machine() -> list[str]:
    return [
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "nobody pinned; 2 workers each; medians of interleaved rounds",
        "PPE is concurrent.futures.ProcessPoolExecutor, its start method in brackets",
        f"load average at the start: {_load()}",
    ]


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
