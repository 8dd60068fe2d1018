"""The function's world: environments, working directories, code that changes."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from remote_exec import RemoteFunction, remote
from remote_exec.errors import WorkerDied

from . import peers
from .harness import Bench, measured, run_python, timed, timer

REQUIREMENTS = ["numpy", "pandas"]
SMALL_FILE_BYTES = 4096


def environments(bench: Bench) -> None:
    """The same requirements again, and a new environment with every wheel cached."""
    _new_environments(bench)
    _same_requirements(bench)


def _new_environments(bench: Bench) -> None:
    numbers = itertools.count(1)

    def nothing() -> None:
        return None

    def ours() -> None:
        # A bound that excludes nothing makes another environment of the same wheels.
        changed = [*REQUIREMENTS, f"packaging>=20.{next(numbers)}"]
        remote(dependencies=changed, keep_alive_period_in_seconds=0)(nothing)()

    def theirs() -> None:
        folder = bench.folder / f"venv-{next(numbers)}"
        _uv("venv", "--quiet", "--python", sys.executable, str(folder))
        _uv(
            "pip",
            "install",
            "--quiet",
            "--python",
            str(folder / "bin" / "python"),
            *REQUIREMENTS,
            "packaging>=20",
        )
        shutil.rmtree(folder)

    found = measured(
        bench.rounds(7), {"ours": timer(ours), "uv": timer(theirs)}
    )  # the first turn fetches wheels
    bench.at_most(
        f"new environment ({', '.join(REQUIREMENTS)}), every wheel cached, to the first result",
        found["ours"],
        found["uv"],
        limit=1.3,
        name="uv venv + uv pip install",
    )


def _same_requirements(bench: Bench) -> None:
    def die() -> None:
        import os

        os._exit(3)

    def one() -> int:
        return 1

    def first_call_in_a_new_worker(**options: Any) -> Callable[[], float]:
        def measure() -> float:
            with contextlib.suppress(WorkerDied):
                remote(max_workers=1, **options)(die)()
            # Decorated anew: what is cached in the function object does not help.
            return timed(lambda: remote(max_workers=1, **options)(one)())

        return measure

    sides = {
        "requirements": first_call_in_a_new_worker(dependencies=["packaging"]),
        "none": first_call_in_a_new_worker(),
    }
    found = measured(bench.rounds(15), sides)
    bench.at_most(
        "same requirements again, job start",
        found["requirements"],
        found["none"],
        limit=1.3,
        name="call in a new worker",
    )


def _uv(*arguments: str) -> None:
    from uv import find_uv_bin

    from remote_exec.agent.builders import tool_environ

    subprocess.run([find_uv_bin(), *arguments], check=True, env=tool_environ(os.environ), capture_output=True)


BUNDLE = """\
import sys, time
from pathlib import Path
from remote_exec.capture.bundle import bundle_workdir
started = time.perf_counter()
bundle_workdir(sys.argv[1], cache_dir=Path(sys.argv[2]), limit_bytes=int(sys.argv[3]))
print(time.perf_counter() - started)
"""


def working_directory(bench: Bench) -> None:
    """One file edited in a working directory of 5,000 files and 1 GB (quick: 500 and 100 MB).

    `git status` is a new process; so is the bundle of the first row, which reads its index from the disk.
    """
    from remote_exec.capture.bundle import bundle_workdir

    count, total_bytes = (500, 100_000_000) if bench.quick else (5000, 1_000_000_000)
    folder, cache, limit = bench.folder / "working-directory", bench.folder / "index", 2 * total_bytes
    files = _fill(folder, count, total_bytes)
    git = ["git", "-C", str(folder), "-c", "user.name=b", "-c", "user.email=b@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, "-c", "core.compression=0", *command], check=True, capture_output=True)
    editions = itertools.count()

    def edited(measure: Callable[[], float]) -> Callable[[], float]:
        def side() -> float:
            files[len(files) // 2].write_text(f"edition {next(editions)}\n" * 100)
            return measure()

        return side

    def in_a_new_process() -> float:
        arguments = ["-c", BUNDLE, str(folder), str(cache), str(limit)]
        return float(run_python(arguments, environ={}, folder=bench.folder))

    def status() -> None:
        subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True)

    sides = {
        "new process": in_a_new_process,
        "git": timer(status),
        "here": timer(lambda: bundle_workdir(folder, cache_dir=cache, limit_bytes=limit)),
        "call": timer(_call_in(folder, limit)),
    }
    try:
        found = measured(bench.rounds(9), {name: edited(side) for name, side in sides.items()})
    finally:
        shutil.rmtree(folder)
    what = f"one file edited of {count:,} ({total_bytes / 1e9:g} GB)"
    bench.at_most(
        f"{what}: bundle, in a new process", found["new process"], found["git"], limit=3.0, name="git status"
    )
    bench.at_most(
        f"{what}: bundle again in a process", found["here"], found["git"], limit=3.0, name="git status"
    )
    bench.beside(
        f"{what}: the whole call, new worker and all", found["call"], found["git"], name="git status"
    )


def _call_in(folder: Path, limit: int) -> Callable[[], object]:
    @remote(include_local_workdir=True, bundle_size_limit=limit, max_workers=1)
    def nothing() -> None:
        return None

    def call() -> None:
        before = Path.cwd()
        os.chdir(folder)
        try:
            nothing()
        finally:
            os.chdir(before)

    return call


def _fill(folder: Path, count: int, total_bytes: int) -> list[Path]:
    """Write `count` files, most of them small; the sum is made up by big ones with holes."""
    big = count // 50
    big_bytes = (total_bytes - (count - big) * SMALL_FILE_BYTES) // big
    files: list[Path] = []
    for number in range(count):
        place = folder / f"part{number % 50:02}" / f"file{number}.{'bin' if number < big else 'txt'}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if number < big:
            place.write_bytes(f"big file {number}\n".encode())
            os.truncate(place, big_bytes)
        else:
            place.write_bytes((f"small file {number}\n".encode() * 400)[:SMALL_FILE_BYTES])
        files.append(place)
    return files


IMPORT_TORCH = "import time; t = time.perf_counter(); import torch; print(time.perf_counter() - t)"


def heavy_import(bench: Bench) -> None:
    """The first line of a function that needs torch, after its local module was edited.

    From the call to the function's first line, by the monotonic clock that both processes share; beside what
    `import torch` takes in a new process, its files in the page cache.
    """
    if not peers.installed(bench, "torch"):
        return
    module = bench.folder / "torch_module.py"
    editions = itertools.count()

    def edit() -> None:
        module.write_text(
            f"import torch\n\n\ndef edition():\n    return {next(editions)}, torch.__version__\n"
        )
        sys.modules.pop("torch_module", None)
        importlib.invalidate_caches()
        importlib.import_module("torch_module")

    sys.path.insert(0, str(bench.folder))
    try:
        edit()
        with _function_of("needs_torch", NEEDS_TORCH, bench.folder) as probe:
            far: RemoteFunction[[], float] = remote(max_workers=1)(probe)

            def first_line() -> float:
                edit()
                called = time.monotonic()
                return far() - called

            def whole() -> float:
                edit()
                return timed(far)

            def theirs() -> float:
                return float(run_python(["-c", IMPORT_TORCH], environ={}, folder=bench.folder))

            sides = {"first line": first_line, "whole": whole, "import": theirs}
            found = measured(bench.rounds(9), sides)
    finally:
        sys.path.remove(str(bench.folder))
    what = "function needing torch, local code changed"
    bench.at_most(f"{what}: first line", found["first line"], found["import"], limit=0.1, name="import torch")
    bench.beside(f"{what}: the whole call", found["whole"], found["import"], name="import torch")


NEEDS_TORCH = """\
import time

import torch_module


def probe():
    reached = time.monotonic()
    torch_module.edition()
    return reached
"""


@contextlib.contextmanager
def _function_of(name: str, text: str, folder: Path) -> Generator[Callable[[], Any]]:
    """Import a module with this text, and give its function `probe`."""
    (folder / f"{name}.py").write_text(text)
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        yield importlib.import_module(name).probe
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(name, None)
