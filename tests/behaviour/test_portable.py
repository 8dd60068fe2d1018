"""What only Linux has is a shortcut, not a need: with all of it taken away, in every process, calls still work.

The package is copied, and what macOS lacks is removed from the standard library by the first module that any of its
processes imports: client, agent, fork server, worker. (Passing descriptors, which macOS has, stays.) Elsewhere an agent
runs already, so that it is the client alone that lacks it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import remote_exec
from remote_exec.backends.host import Host

SECONDS = 100
PARTS = ("model", "wire", "serial", "session", "worker", "agent")

WITHOUT = """
import builtins, ctypes, io, os, select, selectors

for module, names in (
    (os, "memfd_create pidfd_open pipe2 sched_getaffinity sched_setaffinity posix_fadvise eventfd splice waitid"),
    (select, "epoll"),
):
    for name in names.split():
        vars(module).pop(name, None)
selectors.DefaultSelector = selectors.PollSelector


def _unless_linux(function):
    def checked(path=".", *args, **kwargs):
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsencode(path).startswith((b"/proc", b"/dev/shm")):
            raise FileNotFoundError(2, "No such file or directory", path)
        return function(path, *args, **kwargs)

    return checked


if not hasattr(os.listdir, "__wrapped__"):
    for module, name in (
        (builtins, "open"), (io, "open"), (os, "open"), (os, "listdir"), (os, "scandir"), (os, "stat"),
        (os, "lstat"), (os, "readlink"),
    ):
        checked = _unless_linux(vars(module)[name])
        checked.__wrapped__ = vars(module)[name]
        setattr(module, name, checked)


class _NoPrctl:
    def __getattr__(self, name):
        raise AttributeError(name)


_load = ctypes.CDLL
ctypes.CDLL = lambda name, *args, **kwargs: _load(name, *args, **kwargs) if name else _NoPrctl()
"""

CALLS = """
    import _thread, os, signal, sys, threading, time
    from remote_exec import RemoteExecutor, get_future, progress, remote
    from remote_exec.errors import MaxRuntimeExceeded, WorkerDied
    from remote_exec.wire import arenas

    def lacks(_=None):
        return not any(hasattr(os, name) for name in ("memfd_create", "pidfd_open")) and not os.path.exists("/proc")

    def die():
        print("about to go", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def fail():
        raise LookupError("lost")

    def count(n):
        for i in progress(range(n)):
            yield i

    def sleep(seconds, *children):
        if children:
            os.system("sleep 600 &")
        time.sleep(seconds)

    @remote
    class Sum:
        def __init__(self):
            self.value = 0

        def add(self, n):
            self.value += n
            return self.value

    def raised(call):
        try:
            call()
        except BaseException as error:
            return error
        return None

    if __name__ == "__main__":
        assert not arenas.SUPPORTED
        assert lacks() and remote(lacks)() == (sys.argv[1] == "local")
        assert remote(lambda x: 2 * x)(21) == 42
        assert isinstance(raised(remote(fail)), LookupError)
        data = bytearray(os.urandom(1 << 20)) * 32
        assert remote(lambda x: bytes(x))(data) == data
        assert list(remote(abs).map(range(-500, 0))) == list(range(500, 0, -1))
        assert list(remote(count)(5)) == [0, 1, 2, 3, 4]
        died = raised(remote(die))
        assert isinstance(died, WorkerDied) and "SIGKILL" in str(died), repr(died)
        assert remote(lambda: 1)() == 1
        late = raised(lambda: remote(sleep).options(max_runtime_in_seconds=0.3)(600))
        assert isinstance(late, MaxRuntimeExceeded), repr(late)
        future = remote(sleep).submit(600, "with a child")
        while future.status != "running":
            time.sleep(0.01)
        assert future.cancel(wait=True) and future.cancelled()
        threading.Timer(0.5, _thread.interrupt_main).start()
        assert isinstance(raised(lambda: remote(sleep)(600)), KeyboardInterrupt)
        total = Sum()
        total.add(1)
        assert total.add(2) == 3
        total.close()
        with RemoteExecutor(max_parallel_jobs=2) as executor:
            assert list(executor.map(pow, [2, 3], [3, 2])) == [8, 9]
        assert remote(lambda: 7).options(name="kept", memory="2 GB").submit().result() == 7
        assert get_future("kept").result() == 7
        print("all is well")
"""


def test_calls_work_where_nothing_of_linux_alone_is_there(tmp_path: Path, host: Host) -> None:
    package = tmp_path / "lib" / "remote_exec"
    shutil.copytree(
        Path(remote_exec.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    (package / "model" / "without.py").write_text(WITHOUT)
    for part in PARTS:
        first = package / part / "__init__.py"
        first.write_text(
            f"{first.read_text()}\nfrom {'.' if part == 'model' else '..model'} import without\n"
        )
    script = tmp_path / "calls.py"
    script.write_text(CALLS.replace("\n    ", "\n"))
    environ = {
        **os.environ,
        "PYTHONPATH": str(package.parent),
        "REMOTE_EXEC_HOME": str(tmp_path / "home"),
    }
    try:
        ran = subprocess.run(
            [sys.executable, str(script), host.name],
            env=environ,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.endswith("all is well\n")
        assert "about to go" in ran.stdout
    finally:
        stop = [sys.executable, "-m", "remote_exec.cli", "hosts", "stop"]
        subprocess.run(stop, env=environ, timeout=SECONDS, capture_output=True)
