"""This side of the pickling tests: lays the runtime out as on a host, and talks to a process that has it."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import far

from remote_exec.serial import pickling

PARTS = ("model", "wire", "serial", "session", "worker", "agent")


def build_runtime(folder):
    """Lay the carried runtime out under `folder`, cloudpickle inside it."""
    package = folder / "remote_exec_runtime"
    package.mkdir()
    (package / "__init__.py").touch()
    root = Path(importlib.util.find_spec("remote_exec").origin).parent
    ignored = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        shutil.copytree(root / part, package / part, ignore=ignored)
    installed = Path(importlib.util.find_spec("cloudpickle").origin).parent
    shutil.copytree(installed, package / "cloudpickle", ignore=ignored)
    return folder


class FarError(Exception):
    """What the far process raised: class name, text, traceback."""

    @property
    def traceback(self):
        return self.args[2]


class Far:
    """A far process that lives until closed."""

    def __init__(self, runtime, *folders, python=sys.executable, flags=("-I", "-S")):
        command = [python, *flags, str(Path(far.__file__)), str(runtime), *map(str, folders)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.call(len, "")  # it is up

    def call(self, function, *args, by_value=frozenset()):
        return self.send(pickling.dump((function, args), by_value=by_value))

    def send(self, pickled):
        stream = b"".join(pickled.stream)
        far.write_parts(self.process.stdin, [stream, *(buffer.raw() for buffer in pickled.buffers)])
        parts = far.read_parts(self.process.stdout)
        assert parts is not None, "the far process died"
        worked, value = pickling.load(parts[0], parts[1:])
        if not worked:
            raise FarError(*value)
        return value

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
