"""Whole scripts and imports: what is paid before the first result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from remote_exec.model.layout import Layout

from . import hosts
from .harness import Bench, median_times, megabytes, run_python, seconds

OURS = """\
from remote_exec import remote


@remote
def double(x: int) -> int:
    return 2 * x


if __name__ == "__main__":
    print(double(21))
"""
THEIRS = """\
from concurrent.futures import ProcessPoolExecutor


def double(x: int) -> int:
    return 2 * x


if __name__ == "__main__":
    with ProcessPoolExecutor() as executor:
        print(executor.submit(double, 21).result())
"""
NOT_IMPORTED = ("boto3", "docker", "rich", "IPython", "ray", "numpy")
IMPORT_SECONDS = 0.06


def scripts(bench: Bench) -> None:
    """A script's whole life, by the clock on the wall, with nothing running and with an agent running."""
    folder = bench.folder / "scripts"
    folder.mkdir()
    (folder / "ours.py").write_text(OURS)
    (folder / "theirs.py").write_text(THEIRS)
    home = bench.folder / "home-of-scripts"
    environ = {"REMOTE_EXEC_HOME": str(home)}
    layout = hosts.layout_of(home)

    def run(name: str) -> Callable[[], None]:
        def script() -> None:
            printed = run_python([name], environ=environ, folder=folder)
            if printed.strip() != "42":
                raise RuntimeError(f"{name} printed {printed!r}")

        return script

    try:
        run("ours.py")()
        for what, limit, stopped in (("nothing running", 4.0, True), ("agent running", 2.0, False)):
            found = _script_rounds(bench, run, layout, stopped=stopped)
            bench.at_most(
                f"script start to first result, {what}",
                found["ours"],
                found["PPE"],
                limit=limit,
                name="PPE script",
            )
    finally:
        hosts.clean(layout)


def _script_rounds(
    bench: Bench, run: Callable[[str], Callable[[], None]], layout: Layout, *, stopped: bool
) -> dict[str, float]:
    import statistics

    from .harness import interleave, timed

    def ours() -> float:
        if stopped:
            hosts.stop(layout)
        return timed(run("ours.py"))

    sides: dict[str, Callable[[], float]] = {"ours": ours, "PPE": lambda: timed(run("theirs.py"))}
    return {name: statistics.median(times) for name, times in interleave(bench.rounds(9), sides).items()}


def imports(bench: Bench) -> None:
    """`import remote_exec` and what a script writes instead, over a bare interpreter."""
    programs = {
        "bare": "pass",
        "import remote_exec": "import remote_exec",
        "from remote_exec import remote": "from remote_exec import remote",
    }
    sides: dict[str, Callable[[], object]] = {
        name: _program(bench.folder, text) for name, text in programs.items()
    }
    for side in sides.values():
        side()
    found = median_times(bench.rounds(21), sides)
    for name in list(programs)[1:]:
        bench.within(
            f"{name}, over a bare interpreter",
            found[name] - found["bare"],
            limit=IMPORT_SECONDS,
            note=f"bare interpreter {seconds(found['bare'])}",
        )
    found_here = f"print(json.dumps([m for m in {NOT_IMPORTED!r} if m in sys.modules]))"
    asked = f"import json, sys; from remote_exec import remote; {found_here}"
    heavy = json.loads(run_python(["-c", asked], environ={}, folder=bench.folder))
    bench.within(
        "of boto3, docker, rich, IPython, ray, numpy in sys.modules",
        float(len(heavy)),
        limit=0,
        show=lambda value: f"{value:.0f}",
        note=", ".join(heavy),
    )


def _program(folder: Path, text: str) -> Callable[[], object]:
    return lambda: run_python(["-c", text], environ={}, folder=folder)


def memory(bench: Bench) -> None:
    """What an idle agent and an idle worker hold."""
    import os
    import time

    from remote_exec import remote
    from remote_exec.client.connections import connections

    @remote(max_workers=1)
    def pid() -> int:
        import os

        return os.getpid()

    worker = pid()
    session = connections.session()
    time.sleep(1.0)
    bench.within(
        "idle agent, proportional set size",
        hosts.memory(session.welcome.pid)["Pss"],
        limit=30e6,
        show=megabytes,
    )
    mine = hosts.memory(worker)["Private"]
    bare = _bare_fork(hosts.layout_of(Path(os.environ["REMOTE_EXEC_HOME"])))
    bench.within(
        "idle worker, private beyond a bare fork",
        mine - bare,
        limit=12e6,
        show=megabytes,
        note=f"worker {megabytes(mine)}, bare fork of the same imports {megabytes(bare)}",
    )


BARE_FORK = """\
import gc, os, sys
sys.path.append(sys.argv[1])
from remote_exec_runtime.worker import forkserver
gc.collect()
gc.freeze()
ours, theirs = os.pipe()
if os.fork() == 0:
    os.read(ours, 1)
    os._exit(0)
print(next(iter(open(f"/proc/self/task/{os.getpid()}/children"))).split()[0], flush=True)
sys.stdin.read()
os.write(theirs, b"x")
os.wait()
"""


def _bare_fork(layout: Layout) -> int:
    """Return the private memory of an idle fork of a process that imports what fork servers import."""
    import subprocess
    import sys
    import time

    from remote_exec.client import runtime

    process = subprocess.Popen(
        [sys.executable, "-c", BARE_FORK, str(runtime.unpack(layout.runtimes))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        child = int(process.stdout.readline())
        time.sleep(0.3)
        return hosts.memory(child)["Private"]
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
