"""The carried runtime: laid out once, whole or not at all, and importable by an interpreter with nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from remote_exec.backends import runtime

UNPACK = (
    "import sys; from pathlib import Path; from remote_exec.backends import runtime; "
    "print('go', flush=True); sys.stdin.readline(); print(runtime.unpack(Path(sys.argv[1])), flush=True)"
)


def start(folder: Path) -> subprocess.Popen[str]:
    """A process that is about to unpack: it waits for a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", UNPACK, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    return process


def contents(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def expected() -> dict[str, bytes]:
    files = {f"{runtime.NAME}/{name}": path.read_bytes() for name, path in runtime.files()}
    return {**files, f"{runtime.NAME}/__init__.py": contents_of_init()}


def contents_of_init() -> bytes:
    return b'"""The carried runtime of remote_exec."""\n'


def test_it_is_laid_out_once_under_its_digest(tmp_path: Path) -> None:
    place = runtime.unpack(tmp_path / "runtimes")
    assert place == tmp_path / "runtimes" / runtime.digest()
    assert contents(place) == expected()
    assert os.stat(tmp_path / "runtimes").st_mode & 0o777 == 0o700
    assert list(place.rglob("*.pyc")), "its bytecode is written"
    before = place.stat().st_ino
    assert runtime.unpack(tmp_path / "runtimes") == place
    assert place.stat().st_ino == before


def test_processes_that_unpack_at_once_end_up_with_one_whole_runtime(tmp_path: Path) -> None:
    processes = [start(tmp_path) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert told == [str(tmp_path / runtime.digest())] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert contents(Path(told[0])) == expected()
    assert [path.name for path in tmp_path.iterdir()] == [runtime.digest()], "nothing else is left"


def test_a_process_killed_at_any_moment_leaves_nothing_that_passes_for_a_runtime(tmp_path: Path) -> None:
    killed = 0
    for step in range(6):
        folder = tmp_path / str(step)
        process = start(folder)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        # A moment of its work: when so many of its files are there.
        while process.poll() is None and len(list(folder.glob("*/*/*/*.py"))) < 12 * step + 1:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        place = folder / runtime.digest()
        assert not place.exists() or contents(place) == expected()
        assert contents(runtime.unpack(folder)) == expected(), "and the next one is not hindered"
    assert killed, "none was killed in time"


def test_what_the_dead_left_is_cleared_away_in_time(tmp_path: Path) -> None:
    old, young = tmp_path / ".unpacking-old", tmp_path / ".unpacking-young"
    for folder in (old, young):
        (folder / "remote_exec_runtime").mkdir(parents=True)
    long_ago = time.time() - 2 * runtime.STALE_SECONDS
    os.utime(old, (long_ago, long_ago))
    runtime.unpack(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)


def test_where_it_cannot_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        runtime.unpack(tmp_path / "file")


def test_the_digest_is_the_same_in_every_process_and_tells_of_every_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from remote_exec.backends import runtime; print(runtime.digest())"
    for seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == runtime.digest()
    assert len(runtime.digest()) == 32
    copies = [
        (name, str(shutil.copy(path, tmp_path / name.replace("/", "_")))) for name, path in runtime.files()
    ]
    whole = runtime.digest.__wrapped__
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(runtime, "SETTLED_SECONDS", 0.0)
    monkeypatch.setattr(runtime, "_carried", lambda: iter(copies))
    for _ in range(2):  # the second time it is known
        assert whole() == runtime.digest()
    with open(copies[3][1], "ab") as file:
        file.write(b"\n")
    assert whole() != runtime.digest()


def interpreters() -> list[str]:
    found = [sys.executable]
    for root in (Path(sys.base_prefix).parent, Path("/usr/bin")):
        for pattern in ("3.1[0-9]*/bin/python", "python3.1[0-9]"):
            found += [str(path) for path in sorted(root.glob(pattern))]
    return found


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtime.unpack(tmp_path_factory.mktemp("runtime"))


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: path.replace("/", "_"))
def test_every_module_of_it_imports_without_site_packages(unpacked: Path, python: str) -> None:
    """As an agent starts: ``python -I -S``, from the oldest Python that we say it runs on."""
    modules = [
        f"{runtime.NAME}.{name.removesuffix('.py').replace('/', '.').removesuffix('.__init__')}"
        for name, _ in runtime.files()
        if name.endswith(".py") and not name.endswith("__main__.py")
    ]
    code = (
        "import importlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
        "alien = [m for m in sys.modules if m.partition('.')[0] in ('remote_exec', 'cloudpickle')]\n"
        "print(alien)"
    )
    told = subprocess.run(
        [python, "-I", "-S", "-W", "error", "-c", code, str(unpacked), *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.stdout.strip(), told.returncode) == ("[]", 0), told.stderr
