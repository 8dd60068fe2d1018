"""What a backend sends to a host's Python ahead of all else: lay the carried runtime out, bring the agent up.

Its text is run there by ``exec``, on whatever Python 3 there is, with standard input and output as the stream: the
client's wishes as a line of JSON; what was found here; the runtime, if it is lacking, as a length and a tar file; the
end. Each answer is a line that begins with `MARK`, since login shells may print, too. It imports nothing of ours.
"""

import io
import json
import os
import shutil
import struct
import sys
import tarfile
import tempfile
from importlib.util import MAGIC_NUMBER

MARK = "remote-exec-boot "


def tell(**facts: object) -> None:
    sys.stdout.write("\n" + MARK + json.dumps(facts) + "\n")
    sys.stdout.flush()


def default_home() -> str:
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.environ.get("REMOTE_EXEC_HOME") or os.path.join(data, "remote_exec")


def unpack(data: bytes, folder: str, place: str) -> None:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    work = tempfile.mkdtemp(prefix=".unpacking-", dir=folder)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                parts = member.name.split("/")
                if not (member.isfile() or member.isdir()) or ".." in parts or member.name.startswith("/"):
                    raise ValueError("the runtime's archive holds " + repr(member.name))
                archive.extract(member, work)
        try:
            os.rename(work, place)
        except OSError:
            if not os.path.isdir(place):  # another client was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> None:
    os.umask(0o077)
    stdin = sys.stdin.buffer
    asked = json.loads(stdin.readline().decode())
    home = os.path.realpath(os.path.expanduser(asked["home"] or default_home()))
    folder = os.path.join(home, "cache", "runtimes-v1")
    place = os.path.join(folder, asked["digest"])
    there = os.path.isdir(place)
    version = "%d.%d" % sys.version_info[:2]  # noqa: UP031
    tell(
        there=there,
        python=version,
        executable=sys.executable,
        magic=MAGIC_NUMBER.hex(),
        home=home,
        runtime=place,
    )
    if not there:
        (size,) = struct.unpack("<Q", stdin.read(8))
        data = stdin.read(size)
        if len(data) < size:
            return
        unpack(data, folder, place)
        if asked["magic"] != MAGIC_NUMBER.hex():
            import compileall

            compileall.compile_dir(place, quiet=2)
    else:
        os.utime(place)
    sys.path.append(place)
    from importlib import import_module

    bring_up = import_module("remote_exec_runtime.agent.launch").bring_up

    path: str = bring_up(
        place, digest=asked["digest"], version=asked["version"], home=home, python=asked["python"]
    )
    tell(socket=path)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # it is said where the client is
        tell(error=type(error).__name__ + ": " + str(error))
