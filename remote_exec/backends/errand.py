"""What a host's Python is sent to do where no agent is needed, or where one may be what is wrong.

Its text is run there as `boot`'s is: the client's wish as a line of JSON comes on standard input, the answer goes as
a line that begins with `MARK`. It imports nothing of ours. The wishes:

- ``look``: tell what an agent would find: folders, disk, clock, uv, GPUs, and whether one runs;
- ``stop``: end the agent and all that it has started;
- ``remove``: that, and remove the state directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import signal
import sys
import time
from typing import Any

MARK = "remote-exec-boot "
STOP_SECONDS = 15.0
# all that agents and clients write into a state directory; whatever else lies there is not ours to remove
OURS = (
    "agent.lock", "agent.log", "bugs", "cache", "findings.jsonl*", "hosts", "jobs", "journal.sqlite3*", "sockets",
    "sync",
)  # fmt: skip


def tell(**facts: Any) -> None:
    """Say it, wherever else a login shell may print."""
    sys.stdout.write("\n" + MARK + json.dumps(facts) + "\n")
    sys.stdout.flush()


def state_directory(asked: str) -> str:
    """Return where the state directory is; `asked` is what the configuration says, if anything."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    usual = os.environ.get("REMOTE_EXEC_HOME") or os.path.join(data, "remote_exec")
    return os.path.realpath(os.path.expanduser(asked or usual))


# --- the agent --------------------------------------------------------------------------------------------------


def holder(home: str) -> tuple[int, str]:
    """Return the process of the agent, and the folder of its sockets; 0 where none runs."""
    try:
        with open(os.path.join(home, "agent.lock")) as lock:
            words = lock.read().splitlines()
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                pid = 0
            except OSError:
                pid = int(words[0])
            return pid, words[1] if len(words) > 1 else ""
    except (OSError, ValueError, IndexError):
        return 0, ""


def started_from(home: str) -> list[int]:
    """Return the processes that run the runtime of a state directory: agents, fork servers, workers."""
    runtimes = os.path.join(home, "cache", "runtimes-v1", "").encode()
    found: list[int] = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            pid = int(path.split("/")[2])
            with open(path, "rb") as file:
                if runtimes in file.read() and pid != os.getpid():
                    found.append(pid)
    return found


def stop(home: str) -> int:
    """End the agent; return its process, or 0."""
    agent, _ = holder(home)
    if agent:
        os.kill(agent, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while (holder(home)[0] or started_from(home)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in [*started_from(home), holder(home)[0]]:
        with contextlib.suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGKILL)
    while (holder(home)[0] or started_from(home)) and time.monotonic() < deadline + 2:
        time.sleep(0.02)
    return agent


# --- what it leaves ---------------------------------------------------------------------------------------------


def remove(home: str) -> list[str]:
    """Remove what is ours in a state directory, and the folders that are empty then; return what is not."""
    _, sockets = holder(home)
    stop(home)
    for name in OURS:
        for path in glob.glob(os.path.join(glob.escape(home), name)):
            remove_tree(path)
    if (
        os.path.basename(os.path.dirname(sockets)).startswith("remote_exec")
        and os.path.dirname(sockets) != home
    ):
        remove_tree(sockets)  # they lie elsewhere where the state directory's path is long
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(sockets))
    user = os.path.realpath(os.path.expanduser("~"))
    folder = home
    with contextlib.suppress(OSError):
        os.rmdir(folder)
        while os.path.dirname(folder).startswith(user + os.sep):  # those on the way there were made with it
            folder = os.path.dirname(folder)
            os.rmdir(folder)
    return sorted(os.listdir(home)) if os.path.isdir(home) else []


def remove_tree(path: str) -> None:
    """Remove a file or folder, whatever its modes are."""
    if os.path.islink(path) or not os.path.isdir(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)  # environments and data may be read-only
    shutil.rmtree(path, ignore_errors=True)


# --- what is there ----------------------------------------------------------------------------------------------


def look(home: str) -> dict[str, Any]:
    """Return what an agent would find; nothing is left behind, and nothing is started."""
    place = home
    while not os.path.exists(place):
        place = os.path.dirname(place)
    disk = os.statvfs(place)
    agent, _ = holder(home)
    return {
        "python": "%d.%d.%d" % sys.version_info[:3],  # noqa: UP031
        "executable": sys.executable,
        "there": os.path.isdir(home),
        "writable": why_not_writable(place),
        "filesystem": filesystem(place),
        "free_bytes": disk.f_bavail * disk.f_frsize,
        "free_files": disk.f_favail if disk.f_files else None,
        "time": time.time(),
        "agent": agent,
        "nvidia": bool(glob.glob("/dev/nvidia[0-9]*") or os.path.exists("/proc/driver/nvidia/version")),
    }


def why_not_writable(folder: str) -> str:
    """Return why no file can be made in a folder; empty when one can."""
    probe = os.path.join(folder, ".remote-exec-doctor-%d" % os.getpid())  # noqa: UP031
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.unlink(probe)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return ""


def filesystem(folder: str) -> str:
    """Return the type of the file system that a folder lies on; empty where that is not told."""
    best, kind = "", ""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/mounts", errors="replace") as mounts:
        for line in mounts:
            _, point, found = line.split(" ")[:3]
            inside = folder == point or folder.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, found
    return kind


def main() -> None:
    """Do what is asked."""
    asked = json.loads(sys.stdin.buffer.readline().decode())
    home = state_directory(asked["home"])
    facts: dict[str, Any]
    if asked["do"] == "look":
        facts = look(home)
    elif asked["do"] == "stop":
        facts = {"agent": stop(home)}
    else:
        facts = {"left": remove(home)}
    tell(home=home, **facts)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # it is said where the client is
        tell(error=type(error).__name__ + ": " + str(error))
