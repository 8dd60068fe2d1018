"""The function's world: environments, working directories, code that changes."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from remote_exec import RemoteFunction, remote
from remote_exec.errors import WorkerDied

from .harness import Bench, interleave, median_times, seconds, timed

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

    sides: dict[str, Callable[[], object]] = {"ours": ours, "uv": theirs}
    for side in sides.values():
        side()  # fetches the wheels
    found = median_times(bench.rounds(5), sides)
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
    for side in sides.values():
        side()
    found = {name: statistics.median(times) for name, times in interleave(bench.rounds(9), sides).items()}
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


def working_directory(bench: Bench) -> None:
    """One file edited in a working directory of 5,000 files and 1 GB (quick: 500 and 100 MB)."""
    count, total_bytes = (500, 100_000_000) if bench.quick else (5000, 1_000_000_000)
    folder = bench.folder / "working-directory"
    files = _fill(folder, count, total_bytes)
    git = [
        "git",
        "-C",
        str(folder),
        "-c",
        "user.name=b",
        "-c",
        "user.email=b@localhost",
        "-c",
        "core.compression=0",
    ]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    editions = itertools.count()

    def edited(action: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            files[len(files) // 2].write_text(f"edition {next(editions)}\n" * 100)
            return timed(action)

        return measure

    from remote_exec.capture.bundle import bundle_workdir

    cache = bench.folder / "index"
    limit = 2 * total_bytes

    def bundle() -> None:
        bundle_workdir(folder, cache_dir=cache, limit_bytes=limit)

    call = _call_in(folder, limit)
    sides = {
        "bundle": edited(bundle),
        "git": edited(
            lambda: subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True)
        ),
        "call": edited(call),
    }
    try:
        for side in sides.values():
            side()
        found = {name: statistics.median(times) for name, times in interleave(bench.rounds(7), sides).items()}
    finally:
        shutil.rmtree(folder)
    what = f"one file edited of {count:,} ({total_bytes / 1e9:g} GB)"
    bench.at_most(f"{what}: bundle", found["bundle"], found["git"], limit=3.0, name="git status")
    bench.figure(
        f"{what}: the whole call, new worker and all",
        seconds(found["call"]),
        peer=f"git status {seconds(found['git'])}",
        ratio=found["call"] / found["git"],
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


def heavy_import(bench: Bench) -> None:
    """The first line of a function that needs torch, after its local module was edited."""
    if importlib.util.find_spec("torch") is None:
        bench.missing.add("torch")
        return
    helper = bench.folder / "torch_helper.py"
    editions = itertools.count()

    def edit() -> None:
        helper.write_text(
            f"import torch\n\n\ndef edition():\n    return {next(editions)}, torch.__version__\n"
        )
        sys.modules.pop("torch_helper", None)
        importlib.invalidate_caches()

    sys.path.insert(0, str(bench.folder))
    try:
        edit()
        with _function_of(
            "needs_torch",
            "import torch_helper\n\n\ndef probe():\n    return torch_helper.edition()\n",
            bench.folder,
        ) as probe:
            far: RemoteFunction[[], Any] = remote(max_workers=1)(probe)
            far()

            def ours() -> float:
                edit()
                importlib.import_module("torch_helper")
                return timed(far)

            def theirs() -> float:
                program = "import time; t = time.perf_counter(); import torch; print(time.perf_counter() - t)"
                done = subprocess.run(
                    [sys.executable, "-c", program], check=True, capture_output=True, text=True
                )
                return float(done.stdout)

            found = {
                name: statistics.median(times)
                for name, times in interleave(bench.rounds(5), {"ours": ours, "import": theirs}).items()
            }
    finally:
        sys.path.remove(str(bench.folder))
    bench.at_most(
        "function needing torch, local code changed: the whole call",
        found["ours"],
        found["import"],
        limit=0.1,
        name="import torch",
    )


@contextlib.contextmanager
def _function_of(name: str, text: str, folder: Path) -> Iterator[Callable[[], Any]]:
    """Import a module with this text, and give its function `probe`."""
    (folder / f"{name}.py").write_text(text)
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        yield importlib.import_module(name).probe
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(name, None)
