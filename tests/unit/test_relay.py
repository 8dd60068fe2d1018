"""Tunnels over real processes: the relay at the far end, the near end over pipes and over a container's exec."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import until

from remote_exec.backends import runtime
from remote_exec.backends.pipes import Command, Exec, NearPipe
from remote_exec.backends.tunnel import Tunnel
from remote_exec.errors import HostUnavailable
from remote_exec.testing import check_transport, serve_echo
from remote_exec.wire import pump
from remote_exec.wire.pump import Pump
from remote_exec.wire.tunnel import GREETING, HEADER_SIZE, MAX_CONNECTIONS, TunnelEnd

BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from remote_exec_runtime.agent.relay import main; "
    "sys.exit(main(sys.argv[2]))"
)
DEADLINE_SECONDS = 60


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtime.unpack(tmp_path_factory.mktemp("runtimes"))


@pytest.fixture
def place() -> Iterator[Path]:
    """A path for a socket, short enough."""
    folder = Path(tempfile.mkdtemp(prefix="re-", dir="/tmp"))
    yield folder / "echo"
    shutil.rmtree(folder)


@pytest.fixture
def echo(place: Path) -> Iterator[Path]:
    with serve_echo(place):
        yield place


class Ends:
    """What a tunnel's end was told, by whoever wants to wait for it."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._told = threading.Event()

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self._told.set()

    def wait(self) -> str:
        assert self._told.wait(DEADLINE_SECONDS), "the end was not told"
        (reason,) = self.reasons
        return reason


def relay(carried: Path, path: Path, *, before: str = "") -> subprocess.Popen[bytes]:
    """Start a relay, as through a shell that prints something first."""
    argv = [sys.executable, "-I", "-S", "-c", BOOT, str(carried), str(path)]
    if before:
        argv = ["sh", "-c", f'{before}; exec "$@"', "sh", *argv]
    return subprocess.Popen(argv, bufsize=0, stdin=PIPE, stdout=PIPE, stderr=PIPE, process_group=0)


@contextlib.contextmanager
def opened(pipe: NearPipe) -> Iterator[tuple[Tunnel, Ends]]:
    ends = Ends()
    tunnel = Tunnel(pipe, on_end=ends)
    try:
        yield tunnel, ends
    finally:
        tunnel.close()


def connection(tunnel: Tunnel) -> socket.socket:
    sock = tunnel.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", DEADLINE_SECONDS, 0))
    return sock


def asked(sock: socket.socket, data: bytes = b"hello") -> bytes:
    sock.sendall(data)
    return sock.recv(len(data), socket.MSG_WAITALL)


# --- over a command's pipes ---


def test_a_tunnel_is_a_transport(carried: Path, echo: Path) -> None:
    process = relay(carried, echo)
    with opened(Command(process)) as (tunnel, ends):
        check_transport(tunnel.connect, cut=process.kill)
        assert ends.wait() == "it ended: its command was ended by SIGKILL"
        assert tunnel.ended == ends.wait()
        with pytest.raises(HostUnavailable, match="SIGKILL"):
            tunnel.connect()
    assert ends.reasons == [tunnel.ended], "closed after its end, it is not told again"


def test_what_a_login_shell_prints_first_is_skipped(carried: Path, echo: Path) -> None:
    process = relay(carried, echo, before="echo Welcome; echo careful >&2")
    with opened(Command(process)) as (tunnel, ends), connection(tunnel) as sock:
        assert asked(sock) == b"hello"
    assert not ends.reasons, "who closes it needs not be told"


def test_a_command_that_is_no_relay_is_told_by_its_last_lines(carried: Path, echo: Path) -> None:
    waits = f"head -c {len(GREETING[True]) + HEADER_SIZE} > /dev/null"  # until there is a connection
    process = relay(carried, echo, before=f"{waits}; echo Welcome; echo no such container >&2; exit 3")
    with opened(Command(process)) as (tunnel, ends):
        with connection(tunnel) as sock:
            assert sock.recv(1) == b""
        reason = ends.wait()
        assert "before the other end said hello" in reason
        assert "Welcome" in reason
        assert "exit status 3; its last lines:\nno such container" in reason


def test_a_command_that_reads_nothing_is_heard_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "HEAR_OUT_SECONDS", DEADLINE_SECONDS)
    script = "exec 0<&-; echo ready; sleep 0.2; echo Welcome; echo not found >&2; exit 127"
    process = subprocess.Popen(["sh", "-c", script], bufsize=0, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    process.stdout.read(6)
    with opened(Command(process)) as (_, ends):
        reason = ends.wait()
    assert "Welcome" in reason
    assert "exit status 127; its last lines:\nnot found" in reason


def test_a_connection_that_cannot_be_had_ends_and_the_reason_is_kept(carried: Path, place: Path) -> None:
    with opened(Command(relay(carried, place))) as (tunnel, ends):
        with connection(tunnel) as sock:
            assert sock.recv(1) == b""
        assert tunnel.refusal == f"{place}: No such file or directory"
        with serve_echo(place), connection(tunnel) as sock:
            assert asked(sock) == b"hello", "the tunnel lives on"
    assert not ends.reasons


def test_there_are_so_many_connections_and_no_more(carried: Path, echo: Path) -> None:
    with opened(Command(relay(carried, echo))) as (tunnel, _), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connection(tunnel)) for _ in range(MAX_CONNECTIONS)]
        assert asked(socks[-1]) == b"hello"
        with pytest.raises(HostUnavailable, match="256 connections"):
            tunnel.connect()
        socks[0].shutdown(socket.SHUT_WR)
        assert socks[0].recv(1) == b""

        def can_connect() -> bool:
            with contextlib.suppress(HostUnavailable):
                stack.enter_context(connection(tunnel))
                return True
            return False

        until(can_connect)


def test_what_was_sent_before_closing_arrives(carried: Path, place: Path) -> None:
    data = os.urandom(3 << 20)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(place))
        listener.listen()
        with opened(Command(relay(carried, place))) as (tunnel, _), connection(tunnel) as sock:
            sock.sendall(b"x")
            far, _ = listener.accept()
            with far:
                got = bytearray()

                def read() -> None:
                    while piece := far.recv(1 << 16):
                        got.extend(piece)

                reading = threading.Thread(target=read)
                reading.start()
                sock.sendall(data)
                sock.close()
                tunnel.close()
                reading.join()
    assert got == b"x" + data


def test_what_was_sent_before_hanging_up_on_an_answer_arrives(carried: Path, place: Path) -> None:
    data = os.urandom(1 << 19)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(place))
        listener.listen()
        with opened(Command(relay(carried, place))) as (tunnel, _):
            for _ in range(10):
                sock = connection(tunnel)
                sock.sendall(b"x")
                far, _ = listener.accept()
                with far:
                    talking = threading.Thread(target=talk_until_nobody_listens, args=(far,))
                    talking.start()
                    assert sock.recv(1) == b"a"
                    sending = threading.Thread(target=lambda sock=sock: (sock.sendall(data), sock.close()))
                    sending.start()
                    got = bytearray()
                    with contextlib.suppress(ConnectionResetError):  # as where no tunnel is between
                        while piece := far.recv(1 << 16):
                            got += piece
                    sending.join()
                    talking.join()
                assert got == b"x" + data


def talk_until_nobody_listens(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(b"a" * 1000)


def test_what_had_arrived_when_the_stream_ended_can_still_be_read(carried: Path, echo: Path) -> None:
    process = relay(carried, echo)
    data = os.urandom(1 << 19)
    with opened(Command(process)) as (tunnel, ends), connection(tunnel) as sock, connection(tunnel) as other:
        sock.sendall(data)
        assert asked(other) == b"hello"
        until(lambda: _waiting(tunnel) > 100_000)
        had = _waiting(tunnel)
        process.kill()
        ends.wait()
        got = bytearray()
        while piece := sock.recv(1 << 16):
            got += piece
        assert data.startswith(got)
        assert len(got) >= had


def _waiting(tunnel: Tunnel) -> int:
    return sum(len(local.waiting) for local in list(tunnel._pump._locals.values()))


def test_a_relay_ends_with_the_process_that_started_it(carried: Path, echo: Path) -> None:
    script = (
        "import subprocess, sys, time; from subprocess import PIPE\n"
        "from remote_exec.backends.tunnel import Tunnel; from remote_exec.backends.pipes import Command\n"
        "process = subprocess.Popen(sys.argv[1:], bufsize=0, stdin=PIPE, stdout=PIPE, stderr=PIPE)\n"
        "tunnel = Tunnel(Command(process), on_end=print); sock = tunnel.connect()\n"
        "sock.sendall(b'x'); sock.recv(1); print(process.pid, flush=True); time.sleep(600)"
    )
    argv = [sys.executable, "-I", "-S", "-c", BOOT, str(carried), str(echo)]
    with subprocess.Popen([sys.executable, "-c", script, *argv], stdout=PIPE) as client:
        assert client.stdout is not None
        pid = int(client.stdout.readline())
        client.kill()
    until(lambda: _is_gone(pid))


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_holds_nothing_of_it(carried: Path, echo: Path) -> None:
    process = relay(carried, echo)
    with opened(Command(process)) as (tunnel, _), connection(tunnel) as sock:
        assert asked(sock) == b"hello"
        asleep, wake = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(wake)
            try:
                tunnel.connect()
            except HostUnavailable:
                os.read(asleep, 1)
                os._exit(0)
            os._exit(1)
        os.close(asleep)
        try:
            assert asked(sock) == b"hello", "the parent's goes on"
            tunnel.close()
            assert process.returncode == 0, "the relay has seen the end, though the child lives"
        finally:
            os.close(wake)
            assert os.waitpid(pid, 0)[1] == 0


def test_a_command_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote_exec.backends.pipes.END_SECONDS", 0.1)
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", script], bufsize=0, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    process.stdout.read(1)
    with opened(Command(process)):
        pass
    assert process.returncode == -signal.SIGKILL


# --- a peer that falls silent ---


def test_a_silent_stream_is_given_up_and_a_quiet_one_is_not(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "BEAT_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    far = Pump(TunnelEnd(opens=False), Plain(theirs))
    silent, heard = threading.Event(), [0]

    def live() -> None:
        while not silent.is_set():
            heard[0] += far.turn()

    with opened(Plain(ours)) as (tunnel, ends):
        living = threading.Thread(target=live)
        living.start()
        until(lambda: heard[0] > 3 * pump.SILENT_BEATS)
        assert not tunnel.ended, "nothing but beats passed, and that is enough"
        silent.set()
        living.join()
        assert "nothing was heard for" in ends.wait()
    far.end_connections()
    far.drain()
    theirs.close()


class Plain:
    """A socket as a pipe."""

    talking: int | None = None

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.reading = self.writing = sock.fileno()

    def read_into(self, space: memoryview) -> int:
        return self._sock.recv_into(space)

    def write(self, pieces: list[bytes | bytearray | memoryview]) -> int:
        return self._sock.sendmsg(pieces)

    def close(self) -> None:
        self._sock.close()

    def listen(self) -> bool:
        return False

    def last_words(self) -> str:
        return ""

    def abandon(self) -> None:
        self._sock.close()


# --- over the socket of a container's exec ---


@contextlib.contextmanager
def framed(process: subprocess.Popen[bytes], sock: socket.socket) -> Iterator[None]:
    """Carry a process's streams over a socket, framed as Docker's engine does: its part of an exec."""
    assert process.stdin is not None
    lock = threading.Lock()

    def carry_in() -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin:
            while data := sock.recv(1 << 15):
                view = memoryview(data)
                while view:
                    view = view[process.stdin.write(view) :]

    def carry_out(fd: int, kind: int) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(fd, 1 << 15):
                with lock:
                    sock.sendall(struct.pack(">BxxxI", kind, len(data)) + data)

    outs = [(process.stdout, 1), (process.stderr, 2)]
    threads = [threading.Thread(target=carry_in)]
    threads += [threading.Thread(target=carry_out, args=(out.fileno(), kind)) for out, kind in outs if out]
    for thread in threads:
        thread.start()
    yield
    process.wait()
    for thread in threads[1:]:
        thread.join()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    threads[0].join()
    sock.close()
    for out, _ in outs:
        assert out is not None
        out.close()


def test_a_tunnel_over_an_exec_is_a_transport(carried: Path, echo: Path) -> None:
    ours, theirs = socket.socketpair()
    process = relay(carried, echo, before="echo Welcome; echo careful >&2")
    with framed(process, theirs), opened(Exec(ours)) as (tunnel, ends):
        check_transport(tunnel.connect, cut=lambda: theirs.shutdown(socket.SHUT_RDWR))
        assert ends.wait() == "it ended: its last lines:\ncareful"


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl for a certificate")
def test_a_tunnel_over_an_exec_of_an_engine_with_tls_is_a_transport(
    carried: Path, echo: Path, tmp_path: Path
) -> None:
    subject = ["-subj", "/CN=engine", "-addext", "subjectAltName=DNS:engine"]
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *new, *subject], check=True, capture_output=True)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    (near, far), (plain, theirs) = socket.socketpair(), socket.socketpair()
    serve = threading.Thread(target=lambda: decrypt(serving, far, plain))
    serve.start()
    ours = ssl.create_default_context(cafile=str(certificate)).wrap_socket(near, server_hostname="engine")
    with framed(relay(carried, echo), theirs), opened(Exec(ours)) as (tunnel, _):
        check_transport(tunnel.connect)
    serve.join()


def decrypt(context: ssl.SSLContext, sock: socket.socket, plain: socket.socket) -> None:
    """Carry what comes over TLS over a plain socket, and back."""
    with contextlib.suppress(OSError), plain, context.wrap_socket(sock, server_side=True) as tls:
        while True:
            ready = [tls] if tls.pending() else select.select([tls, plain], [], [])[0]
            for one, other in ((tls, plain), (plain, tls)):
                if one in ready:
                    if not (data := one.recv(1 << 14)):
                        return
                    other.sendall(data)


@given(frames=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=20))), cut=st.integers(1, 30))
def test_an_exec_tells_its_outputs_apart_however_they_are_cut(
    frames: list[tuple[int, bytes]], cut: int
) -> None:
    stream = b"".join(struct.pack(">BxxxI", kind, len(data)) + data for kind, data in frames)
    ours, theirs = socket.socketpair()
    pipe, space, got = Exec(ours), memoryview(bytearray(64)), bytearray()
    with theirs, contextlib.closing(pipe):
        for at in range(0, len(stream), cut):
            theirs.sendall(stream[at : at + cut])
            with contextlib.suppress(BlockingIOError):
                while size := pipe.read_into(space):
                    got += space[:size]
                raise AssertionError("this is not the end")
        theirs.shutdown(socket.SHUT_WR)
        assert pipe.read_into(space) == 0
    assert got == b"".join(data for kind, data in frames if kind == 1)
    errors = b"".join(data for kind, data in frames if kind == 2)
    assert pipe._lines._tail == errors


def test_an_exec_with_a_terminal_is_found_out() -> None:
    ours, theirs = socket.socketpair()
    with theirs, opened(Exec(ours)) as (_, ends):
        theirs.sendall(b"Welcome to the container\r\n")
        assert "not framed as Docker does" in ends.wait()
