"""Whole scripts and imports, and what idle processes hold: what is paid before and between results."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

from remote_exec.model.layout import Layout

from . import hosts, peers
from .harness import (
    Bench,
    Sample,
    first_line,
    interleave,
    measured,
    megabytes,
    run_python,
    timer,
    with_bytecode,
)

OURS = """\
from remote_exec import remote

@remote
def double(x: int) -> int:
    return 2 * x

if __name__ == "__main__":
    print(double(21), flush=True)
"""
THEIRS = """\
from concurrent.futures import ProcessPoolExecutor

def double(x: int) -> int:
    return 2 * x

if __name__ == "__main__":
    with ProcessPoolExecutor() as executor:
        print(executor.submit(double, 21).result(), flush=True)
"""
RAY = """\
import ray

@ray.remote
def double(x: int) -> int:
    return 2 * x

if __name__ == "__main__":
    ray.init(include_dashboard=False, logging_level="ERROR")
    print(ray.get(double.remote(21)), flush=True)
"""
DASK = """\
from distributed import Client

def double(x: int) -> int:
    return 2 * x

if __name__ == "__main__":
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        print(client.submit(double, 21).result(), flush=True)
"""
CLUSTER_SCRIPTS = {"Ray": RAY, "Dask": DASK}
NOT_IMPORTED = ("boto3", "docker", "rich", "IPython", "ray", "numpy")
IMPORT_SECONDS = 0.06
AGENT_BYTES = 30e6
WORKER_BYTES = 12e6
IDLE_SECONDS = 2.0

Run = Callable[[str], tuple[float, float]]


def scripts(bench: Bench) -> None:
    """From a script's start to its first result, with nothing running and with an agent running."""
    folder = bench.folder / "scripts"
    folder.mkdir()
    programs = {"ours": OURS, "PPE": THEIRS, **CLUSTER_SCRIPTS}
    for name, text in programs.items():
        (folder / f"{name}.py").write_text(text)
    home = bench.folder / "home-of-scripts"
    layout = hosts.layout_of(home)

    def run(name: str) -> tuple[float, float]:
        script, environ = f"{name}.py", {"REMOTE_EXEC_HOME": str(home)}
        line, came, ended = first_line([script], environ=environ, folder=folder)
        if line != "42":
            raise RuntimeError(f"{script} printed {line!r}")
        return came, ended

    try:
        run("ours")
        for what, limit, stopped in (("nothing running", 4.0, True), ("agent running", 2.0, False)):
            _compare_scripts(bench, run, layout, what=what, limit=limit, stopped=stopped)
        _beside_clusters(bench, run, layout)
    finally:
        hosts.clean(layout)


def _compare_scripts(
    bench: Bench, run: Run, layout: Layout, *, what: str, limit: float, stopped: bool
) -> None:
    def ours() -> tuple[float, float]:
        if stopped:
            hosts.stop(layout)
        return run("ours")

    found = interleave(bench.rounds(12), {"ours": ours, "PPE": lambda: run("PPE")})
    came = {name: Sample.of([times[0] for times in each]) for name, each in found.items()}
    ended = {name: Sample.of([times[1] for times in each]) for name, each in found.items()}
    bench.at_most(
        f"script start to first result, {what}", came["ours"], came["PPE"], limit=limit, name="PPE script"
    )
    bench.beside(f"the same script's whole life, {what}", ended["ours"], ended["PPE"], name="PPE script")


def _beside_clusters(bench: Bench, run: Run, layout: Layout) -> None:
    for name in CLUSTER_SCRIPTS:
        if not peers.installed(bench, name):
            continue
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(1 if bench.quick else 3):
            hosts.stop(layout)
            ours.append(run("ours")[0])
            theirs.append(run(name)[0])
        bench.beside(
            "script start to first result, nothing running, for comparison",
            Sample.of(ours),
            Sample.of(theirs),
            name=f"{name} script",
        )


def imports(bench: Bench) -> None:
    """`import remote_exec` and what a script writes instead, over a bare interpreter; bytecode is written."""
    programs = {
        "bare": "pass",
        "import remote_exec": "import remote_exec",
        "from remote_exec import remote": "from remote_exec import remote",
    }
    sides = {name: timer(_program(bench.folder, text)) for name, text in programs.items()}
    found = measured(bench.rounds(30), sides)
    for name in list(programs)[1:]:
        bench.within(
            f"{name}, over a bare interpreter",
            found[name].median - found["bare"].median,
            limit=IMPORT_SECONDS,
            note=f"{found[name]}; bare interpreter {found['bare']}",
        )
    heavy = f"print(json.dumps([m for m in {NOT_IMPORTED!r} if m in sys.modules]))"
    for name in list(programs)[1:]:
        asked = f"import json, sys; {name}; {heavy}"
        loaded = json.loads(run_python(["-c", asked], environ={}, folder=bench.folder))
        bench.within(
            f"{name}: how many of {', '.join(NOT_IMPORTED)} are in sys.modules",
            float(len(loaded)),
            limit=0,
            show=lambda value: f"{value:.0f}",
            note=", ".join(loaded),
        )


def _program(folder: Path, text: str) -> Callable[[], object]:
    return lambda: run_python(["-c", text], environ={}, folder=folder)


IDLE = """\
import os, sys
from remote_exec import remote
from remote_exec.client.connections import connections

@remote(max_workers=1)
def pid() -> int:
    return os.getpid()

print(connections.session().welcome.pid, pid(), flush=True)
sys.stdin.read()
"""


def memory(bench: Bench) -> None:
    """What an idle agent and an idle worker hold, two seconds after one call and nothing else.

    The agent: its proportional set size. The worker: its private pages (clean and dirty), less those of a child
    that was forked, and does nothing, by a process that has imported what a fork server imports and frozen its
    heap as fork servers do.
    """
    home = bench.folder / "home-of-memory"
    layout = hosts.layout_of(home)
    with _running(IDLE, [], {"REMOTE_EXEC_HOME": str(home)}) as line:
        try:
            agent, worker = (int(number) for number in line.split())
            time.sleep(IDLE_SECONDS)
            bench.within(
                "idle agent, proportional set size",
                hosts.memory(agent)["Pss"],
                limit=AGENT_BYTES,
                show=megabytes,
                note=f"resident {megabytes(hosts.memory(agent)['Rss'])}",
            )
            mine = hosts.memory(worker)["Private"]
            bare = _bare_fork(layout)
            bench.within(
                "idle worker, private memory beyond a bare fork of what its fork server holds",
                mine - bare,
                limit=WORKER_BYTES,
                show=megabytes,
                note=f"worker {megabytes(mine)}, bare fork {megabytes(bare)}",
            )
        finally:
            hosts.clean(layout)


BARE_FORK = """\
import gc, os, sys
sys.path.append(sys.argv[1])
from remote_exec_runtime.worker import forkserver
gc.collect()
gc.freeze()
ours, theirs = os.pipe()
child = os.fork()
if child == 0:
    os.read(ours, 1)
    os._exit(0)
print(child, flush=True)
sys.stdin.read()
os.write(theirs, b"x")
os.wait()
"""


def _bare_fork(layout: Layout) -> int:
    """Return the private memory of an idle fork of a process that imports what fork servers import."""
    from remote_exec.backends import runtime

    with _running(BARE_FORK, [str(runtime.unpack(layout.runtimes))], {}) as line:
        time.sleep(IDLE_SECONDS)
        return hosts.memory(int(line))["Private"]


@contextlib.contextmanager
def _running(program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Generator[str]:
    """Run a program that prints one line and then waits for the end of its input; give that line."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=with_bytecode(environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:  # leaving closes its input and waits for it
        assert process.stdout is not None
        yield process.stdout.readline()
