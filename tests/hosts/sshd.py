"""A host that has nothing but sshd on it: a real OpenSSH server with keys and a home of its own.

The account is that of whoever runs the tests, but a session sees none of it: a forced command starts the session's
command by the host's shell, in the host's home, with an environment made from nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from remote_exec.model.layout import Layout

SERVER = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
)
TOOLS = ("/usr/bin", "/bin")
PYTHONS = re.compile(r"(python|pypy|py3|pip|pyenv|uvx?$|conda|mamba)")  # what is on PATH only when asked for
START_SECONDS = 10.0
STOP_SECONDS = 10.0
TRIES = 5  # to find a port that nobody else takes meanwhile
SEPARATION = Path(
    "/run/sshd"
)  # where root's sshd confines itself; the service makes it, where it has ever run

CONFIGURATION = """\
{settings}
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM {pam}
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitUserRC no
PrintLastLog no
UseDNS no
MaxStartups 100
LogLevel VERBOSE
Subsystem sftp {sftp}
SetEnv HOME={folder}
ForceCommand {folder}/session
"""

SESSION = """\
#!/bin/sh
cd {home} || exit
set -- HOME={home} PATH={path} SHELL={shell} USER={user} LOGNAME={user} \\
  SSH_CLIENT="$SSH_CLIENT" SSH_CONNECTION="$SSH_CONNECTION"
[ -z "$SSH_TTY" ] || set -- "$@" SSH_TTY="$SSH_TTY" TERM="$TERM"
[ -n "${{SSH_ORIGINAL_COMMAND+set}}" ] || exec /usr/bin/env -i "$@" {shell} -l
exec /usr/bin/env -i "$@" {shell} -c "$SSH_ORIGINAL_COMMAND"
"""

# Answers as another version would: for `-c`, for a program on standard input, and for `-V`.
OTHER_VERSION = """\
#!{python} -IS
import collections, sys
version = collections.namedtuple("version_info", "major minor micro releaselevel serial")
sys.version_info = version(*map(int, "{version}".split(".")), "final", 0)
sys.version = "{version} (default)"
sys.hexversion = int("%02x%02x%02xf0" % sys.version_info[:3], 16)
sys.executable = __file__
options = sys.argv[1:]
while options and options[0][0] == "-" and options[0][1:] and options[0][1] not in "cmV":
    options.pop(0)
if options[:1] == ["-V"]:
    sys.exit(print("Python {version}"))
if options[:1] == ["-c"]:
    text, sys.argv = options[1], ["-c", *options[2:]]
else:
    file = options[0] if options else "-"
    text, sys.argv = (sys.stdin if file == "-" else open(file)).read(), [file, *options[1:]]
exec(compile(text, sys.argv[0], "exec"), {{"__name__": "__main__"}})
"""


class SshServer:
    """A host: an sshd in the foreground, its keys, and a fresh home. A context manager: started, then removed.

    Args:
        folder: where all of it is to lie; it must be empty or not there, and its path short, since sockets come below.
        client_key: the public key that may log in: `SshClient.public_key`.
        pythons: what interpreters a session finds on its PATH, by name; all else of /usr/bin is there as well.
            None for `python3`, the one that runs this; `{}` for none at all.
        shell: what runs a session's command.
        noise: what the shell's start-up files say, on both standard output and standard error.
        settings: lines of sshd_config, which rank above ours: `{"AllowStreamLocalForwarding": "no"}`.
        address: where it listens.
        port: the port; None for any that is free.
        prefix: a command that runs the server elsewhere: `NetworkHost.prefix`.

    Raises:
        RuntimeError: on `start`, when it does not come up; with its log.

    Example:
        >>> client = SshClient(folder / "client")
        >>> with SshServer(folder / "gpu1", client.public_key) as server:
        ...     client.add("gpu1", server)
        ...     client.run("gpu1", "echo $HOME").stdout
    """

    def __init__(
        self,
        folder: Path,
        client_key: str,
        *,
        pythons: Mapping[str, Path] | None = None,
        shell: str = "/bin/bash",
        noise: str = "",
        settings: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        port: int | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.path = folder / "bin"
        self.address = address
        self.port = port or 0
        self._any_port = port is None
        self._settings = dict(settings or {})
        self._prefix = list(prefix)
        self._process: subprocess.Popen[bytes] | None = None
        self.home.mkdir(mode=0o700, parents=True)
        self.host_key = make_key(folder / "host_key")
        (folder / "authorized_keys").write_text(client_key + "\n")
        self._make_path({"python3": this_python()} if pythons is None else pythons)
        self._make_session(shell)
        if noise:
            told = shlex.quote(noise)
            for name in (".bashrc", ".profile"):
                (self.home / name).write_text(f"echo {told}\necho {told} >&2\n")

    def _make_path(self, pythons: Mapping[str, Path]) -> None:
        self.path.mkdir()
        found = {name: Path(folder, name) for folder in reversed(TOOLS) for name in os.listdir(folder)}
        tools = {name: path for name, path in found.items() if not PYTHONS.match(name)}
        for name, path in {**tools, **pythons}.items():
            (self.path / name).symlink_to(path)

    def _make_session(self, shell: str) -> None:
        script = self.folder / "session"
        home, path = shlex.quote(str(self.home)), shlex.quote(str(self.path))
        script.write_text(SESSION.format(home=home, path=path, shell=shlex.quote(shell), user=user()))
        script.chmod(0o755)

    def __enter__(self) -> SshServer:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    # --- its life ---

    def start(self) -> None:
        """Start it, and wait until it answers; after `stop` with the same keys, home and port."""
        if self._process is not None:
            raise RuntimeError("it runs")
        if SERVER is None:
            raise RuntimeError("no sshd here: apt-get install openssh-server")
        if os.getuid() == 0:
            SEPARATION.mkdir(mode=0o755, exist_ok=True)
        for _ in range(TRIES if self._any_port else 1):
            if self._any_port:
                self.port = self.port or free_port(self.address)
            self._process = subprocess.Popen(
                [*dies_with_us(), *self._prefix, SERVER, "-D", "-f", self._configured(), "-E", self._log],
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the tests, not for their hosts
            )
            if self._answers():
                return
            self.stop()
            self.port = 0 if self._any_port else self.port
        raise RuntimeError(f"sshd did not start; its log:\n{self.log()}")

    def _configured(self) -> Path:
        path = self.folder / "sshd_config"
        sftp = next((place for place in SFTP_SERVERS if os.path.exists(place)), "internal-sftp")
        settings = "\n".join(f"{name} {value}" for name, value in self._settings.items())
        path.write_text(
            CONFIGURATION.format(
                folder=self.folder,
                settings=settings,
                address=self.address,
                port=self.port,
                sftp=sftp,
                pam="yes" if _is_locked() else "no",
            )
        )
        return path

    def _answers(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1) as sock:
                sock.settimeout(1)
                if sock.recv(64).startswith(b"SSH-2.0"):
                    return self._process.poll() is None
            time.sleep(0.01)
        return False

    def stop(self) -> None:
        """Kill it as a machine is switched off: the server, its connections, and all that sessions have started."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)  # nobody comes in meanwhile
            for pid in [*_descendants(self._process.pid), self._process.pid]:
                _kill(pid)
            self._process.wait()
            self._process = None
        deadline = time.monotonic() + STOP_SECONDS
        while left := self.processes():
            for pid in left:
                _kill(pid)
            if time.monotonic() > deadline:
                raise RuntimeError(f"these do not die: {left}")
            time.sleep(0.005)

    def remove(self) -> None:
        """Stop it, and remove all that is its own."""
        self.stop()
        sockets = Layout.of({"HOME": str(self.home)}).sockets  # in /tmp; killed agents leave theirs
        for folder in (self.folder, sockets):
            shutil.rmtree(folder, ignore_errors=True)

    def drop_connections(self) -> None:
        """Kill what serves its connections. What sessions have started goes on, and new connections are taken."""
        if self._process is not None:
            for pid in _descendants(self._process.pid):
                if _name_of(pid).startswith("sshd"):
                    _kill(pid)

    # --- what can be seen of it ---

    def processes(self) -> dict[int, str]:
        """Return (pid: command line) of what sessions have started and left there, however daemonic."""
        found: dict[int, str] = {}
        homes = [
            b"HOME=" + os.fsencode(home) for home in (self.folder, self.home)
        ]  # before and in the session
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    command = Path("/proc", entry, "cmdline").read_bytes()
                    environ = Path("/proc", entry, "environ").read_bytes().split(b"\0")
                    if command and any(home in environ for home in homes):
                        found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def connections(self) -> int:
        """Return how many connections are open, as the server knows."""
        return 0 if self._process is None else len(_children_of(self._process.pid))

    @property
    def _log(self) -> Path:
        return self.folder / "sshd.log"

    def log(self, start: int = 0) -> str:
        """Return what the server has logged, from a position on."""
        return self._log.read_text(errors="replace")[start:] if self._log.exists() else ""


class Place(Protocol):
    """What can be connected to."""

    address: str
    port: int


class SshClient:
    """The user's side: a key, a configuration file, and an `ssh`, `scp` and `sftp` that read it instead of the user's.

    OpenSSH looks for ~/.ssh where the account says, whatever HOME is: so `commands`, a folder with scripts of the same
    names, is to come first on PATH; `environ()` has it so.

    Args:
        folder: where all of it is to lie; it must not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands = folder / "bin"
        self.configuration = folder / "config"
        self.commands.mkdir(mode=0o700, parents=True)
        self.public_key = make_key(folder / "id_ed25519")
        self._blocks: dict[str, str] = {}
        self._write()
        for name in ("ssh", "scp", "sftp"):
            real = shutil.which(name)
            if real is None:
                raise RuntimeError(f"no {name} here: apt-get install openssh-client")
            script = self.commands / name
            script.write_text(f'#!/bin/sh\nexec {real} -F {shlex.quote(str(self.configuration))} "$@"\n')
            script.chmod(0o755)

    def add(
        self,
        alias: str,
        server: SshServer,
        *,
        via: Place | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Write a host into the configuration, under a name; one of that name is replaced.

        Args:
            alias: what `ssh` is told.
            server: where it leads, and whose key is expected there.
            via: what is connected to instead: a `Link` to the server.
            settings: lines of ssh_config, which rank above ours: `{"ProxyJump": "gate"}`.
        """
        known = self.folder / f"known_hosts.{alias}"
        known.write_text(f"{alias} {server.host_key}\n")
        lines = {
            **(settings or {}),
            "HostName": (via or server).address,
            "Port": str((via or server).port),
            "HostKeyAlias": alias,
            "UserKnownHostsFile": str(known),
        }
        self._blocks[alias] = f"Host {alias}\n" + "".join(
            f"  {name} {value}\n" for name, value in lines.items()
        )
        self._write()

    def forget(self, alias: str) -> None:
        """Take a host out of the configuration."""
        self._blocks.pop(alias, None)
        (self.folder / f"known_hosts.{alias}").unlink(missing_ok=True)
        self._write()

    def _write(self) -> None:
        others = f"""\
Host *
  User {user()}
  IdentityFile {self.folder}/id_ed25519
  IdentitiesOnly yes
  IdentityAgent none
  GlobalKnownHostsFile none
  UserKnownHostsFile none
  StrictHostKeyChecking yes
"""
        self.configuration.write_text("".join([*self._blocks.values(), others]))

    def environ(self) -> dict[str, str]:
        """Return this process's environment, with our commands first on PATH."""
        return {**os.environ, "PATH": f"{self.commands}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}

    def run(
        self, alias: str, command: str, *options: str, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, and return how it ended and what it printed.

        Args:
            alias: the host.
            command: as the host's shell is to read it.
            options: ssh's own.
            text: its standard input.
        """
        return subprocess.run(
            [self.commands / "ssh", *options, alias, command],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def make_key(path: Path) -> str:
    """Make a key pair, and return the public key as one line of type and key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def make_other_python(path: Path, version: str) -> Path:
    """Make an interpreter that says of itself, whatever it is asked by, that it is another version's.

    Args:
        path: the file to be made.
        version: such as `3.8.18`.
    """
    path.write_text(OTHER_VERSION.format(python=this_python(), version=version))
    path.chmod(0o755)
    return path


def hiding_pythons(other: Path) -> list[str]:
    """Return the start of a command that finds another interpreter wherever this machine has its own; root only."""
    versions = (path for path in Path("/usr/bin").glob("python3.*") if path.name.count(".") == 1)
    places = [path.resolve() for path in (*versions, Path("/usr/bin/python3")) if path.stem.isalnum()]
    binds = "; ".join(f"mount --bind {other} {path}" for path in places)
    return ["unshare", "--mount", "sh", "-c", f'{binds}; exec "$@"', "sh"]


def this_python() -> Path:
    """Return the interpreter that runs this, as it is without its virtual environment."""
    return Path(os.path.realpath(sys.executable))


@functools.cache
def user() -> str:
    """Return the name of the account that the tests run as."""
    return pwd.getpwuid(os.getuid()).pw_name


def _is_locked() -> bool:
    """Whether the account has no password, as root on Ubuntu: sshd lets that in only when PAM does."""
    with contextlib.suppress(OSError):
        lines = Path("/etc/shadow").read_text().splitlines()
        return any(line.startswith(f"{user()}:!") for line in lines)
    return False


def free_port(address: str) -> int:
    """Return a port that nobody listens at now."""
    with socket.socket() as sock:
        sock.bind((address, 0))
        port: int = sock.getsockname()[1]
        return port


def dies_with_us() -> list[str]:
    """Return the start of a command that ends when this process does, however that dies."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path("/proc", str(pid), "comm").read_text().strip()
    return ""


def _descendants(pid: int) -> list[int]:
    """Return the processes below one, a parent before its children."""
    return [one for child in _children_of(pid) for one in (child, *_descendants(child))]


def _children_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
