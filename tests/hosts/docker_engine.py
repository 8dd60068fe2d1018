"""A container engine of the tests' own: a real dockerd with its containerd, in a folder that is removed at the end.

Only root can have one, and only where Debian's packages are: elsewhere its tests are skipped by name, and fail in CI.
Its one image is a minimal Debian with Python, made by debootstrap once for each machine and kept in a cache.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from .certificates import make_certificates
from .sshd import free_port

NEEDED = ("dockerd", "containerd", "runc", "iptables", "debootstrap", "openssl")
PACKAGES = ("docker.io", "containerd", "runc", "iptables", "debootstrap", "openssl")
RELEASE = "bookworm"  # its Python is 3.11
IMAGE = "debian-python:tests"
# as they were before a test's own took their place
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "remote_exec-tests"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
LEFT_OUT = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "var/log",
)


def why_not() -> str:
    """Return why there can be no engine here; empty: there can."""
    if os.getuid() != 0:
        return "a container engine of the tests' own needs root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install {' '.join(PACKAGES)}"
    return ""


class DockerEngine:
    """A context manager: started, then stopped with everything that it started. It also listens with TLS.

    Args:
        folder: where all of it is to lie; made here, and its path be short, since sockets come below.

    Raises:
        RuntimeError: on entering, when it does not answer; with the end of its log.

    Example:
        >>> with DockerEngine(Path("/tmp/re-docker")) as engine:  # doctest: +SKIP
        ...     engine.load(base_image(), IMAGE)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "sock"
        self.url = f"unix://{self.socket}"
        self.tls_url = f"tcp://127.0.0.1:{free_port('127.0.0.1')}"
        self.certificates = folder / "certificates"
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DockerEngine:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_certificates(self.certificates)
        server = {"cacert": "ca.pem", "cert": "server.pem", "key": "server-key.pem"}
        command = [
            "dockerd",
            *("-H", self.tls_url, "--tlsverify"),
            *(f"--tls{option}={self.certificates / name}" for option, name in server.items()),
            *("--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec")),
            *("--pidfile", str(self.folder / "pid"), "-H", self.url),
            # nothing of this machine's network is touched, and containers here need none
            *("--iptables=false", "--ip6tables=false", "--bridge=none", "--userland-proxy=false"),
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                told = self.log.read_text(errors="replace")[-2000:]
                self.__exit__(None, None, None)
                raise RuntimeError(f"dockerd does not come up:\n{told}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._remove_containers()
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        clean_up(self.folder)

    def docker(self, *arguments: str) -> str:
        """Run docker's own command against it; return what it prints.

        Raises:
            CalledProcessError: it failed.
        """
        return subprocess.run(
            ["docker", "-H", self.url, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    def load(self, tar: Path, name: str) -> None:
        """Make an image out of the root file system in a tar file."""
        self.docker("import", str(tar), name)

    def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        return subprocess.run(["docker", "-H", self.url, "version"], capture_output=True).returncode == 0

    def _remove_containers(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            for container in self.docker("ps", "-aq").split():
                self.docker("rm", "-f", container)


class PodmanEngine:
    """Podman's service, with storage of its own; it speaks Docker's API. A context manager.

    Args:
        folder: as for `DockerEngine`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "podman.sock"
        self.url = f"unix://{self.socket}"
        folder.mkdir(mode=0o700)
        # Its own wishes for limits are above what a virtual machine may allow. Equal, since 4.3 mixes them up.
        (folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
        )
        self._environ = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}

    def __enter__(self) -> PodmanEngine:
        self._process = subprocess.Popen(
            [*self._command(), "system", "service", "--time", "0", self.url],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self.socket.exists():
            assert self._process.poll() is None, "podman's service does not come up"
            assert time.monotonic() < deadline, "podman's service does not come up"
            time.sleep(0.02)
        return self

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(STOP_SECONDS)
        command = [*self._command(), "rm", "--all", "--force"]
        subprocess.run(command, env=self._environ, capture_output=True, check=False)
        clean_up(self.folder)

    def load(self, tar: Path, name: str) -> None:
        """Make an image out of the root file system in a tar file."""
        command = [*self._command(), "import", str(tar), name]
        subprocess.run(command, check=True, capture_output=True, env=self._environ)

    def _command(self) -> list[str]:
        return ["podman", "--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")]


def processes_of(folder: Path) -> list[int]:
    """Return the processes that name a folder in their command line."""
    needle = os.fsencode(folder) + b"/"
    found: list[int] = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            command = Path("/proc", entry, "cmdline").read_bytes() if entry.isdigit() else b""
            if needle in command and int(entry) != os.getpid():
                found.append(int(entry))
    return found


def clean_up(folder: Path) -> None:
    """End what an engine left behind (containerd, shims, monitors), undo its mounts, remove its folder."""
    for pid in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted(mounts, reverse=True):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", place], capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def base_image() -> Path:
    """Return the tar file of a minimal Debian with Python; made if it is not in the cache.

    Raises:
        CalledProcessError: debootstrap failed.
    """
    tar = CACHE / f"{RELEASE}-python3.tar"
    if tar.exists():
        return tar
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="re-debian-", dir="/var/tmp") as folder:
        root = Path(folder, "root")
        include = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", include, RELEASE, str(root), *_mirror()],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        left_out = [f"--exclude=./{name}/*" for name in LEFT_OUT]
        made = tar.with_suffix(f".{os.getpid()}")
        subprocess.run(["tar", "-C", str(root), *left_out, "-cf", str(made), "."], check=True)
        made.rename(tar)
    return tar


def _mirror() -> list[str]:
    """Return the mirror that this machine's apt uses; none: debootstrap's own."""
    asked = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)",
        f"Codename: {RELEASE}",
        "Created-By: Packages",
    ]
    try:
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()[:1]
    except (OSError, subprocess.CalledProcessError):
        return []


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """One for all tests, with the one image."""
    if reason := why_not():
        pytest.skip(reason)
    tar = base_image()
    with DockerEngine(Path(tempfile.mkdtemp(prefix="re-docker-", dir="/tmp"))) as engine:
        engine.load(tar, IMAGE)
        yield engine
    assert not processes_of(engine.folder), "dockerd left processes behind"
