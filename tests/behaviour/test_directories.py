"""Folders that travel with a call, and come back with its result."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from directories_work import Given, content, leave, names_in, read_text, remote_content
from waiting import until

from remote_exec import Dir, RemoteExecutor, get_future, remote
from remote_exec.backends import local
from remote_exec.client import trees
from remote_exec.client.connections import connections
from remote_exec.errors import (
    DeserializationError,
    HostUnavailable,
    ResourceLimitExceeded,
    SerializationError,
)
from remote_exec.model.layout import Layout
from remote_exec.worker.blobs import BlobStore

SECONDS = 30.0
pytestmark = pytest.mark.usefixtures("nothing_held")


@pytest.fixture
def agent(
    session_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """An agent of the test's own; what asks it, or the next one if it was killed."""
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(tmp_path / "state"))
    yield lambda what, arguments=None: connections.session().ask(what, arguments)
    session = connections.session()
    with contextlib.suppress(HostUnavailable):
        session.ask("stop")
    until(lambda: session.lost)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.bin").write_bytes(bytes(range(256)))
    (folder / "deep" / "er" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "deep" / "er" / "run.sh").chmod(0o755)
    (folder / "deep" / "link").symlink_to("../a.txt")
    (folder / ".hidden").write_text("h")
    (folder / "ünï").write_text("u")
    return folder


def blobs() -> dict[str, int]:
    """Return the blobs of this machine's cache by digest, with the number of each file."""
    return {path.name: path.stat().st_ino for path in Layout.of(os.environ).blobs.glob("??/*")}


# --- there --------------------------------------------------------------------------------------------------------


def test_a_folder_arrives_whole_and_nowhere_else(data: Path) -> None:
    assert remote_content(Dir(data)) == content(data)
    assert names_in(Dir(data)) == ("PosixPath", "data", sorted(os.listdir(data)))


def test_a_single_file_arrives_under_its_name(data: Path) -> None:
    @remote
    def read(path: Path) -> tuple[str, str]:
        return path.name, path.read_text()

    assert read(Dir(data / "a.txt")) == read(Dir(data) / "a.txt") == ("a.txt", "a")


def test_it_travels_wherever_it_stands_in_the_arguments(data: Path) -> None:
    there = ("PosixPath", "data", sorted(os.listdir(data)))
    given = {"list": [Dir(data), Dir(data / "deep")], "record": Given(Dir(data))}
    deep = ("PosixPath", "deep", ["b.bin", "er", "link"])
    assert names_in(given) == {"list": [there, deep], "record": there}


def test_a_link_that_leads_out_travels_as_the_file_behind_it(data: Path) -> None:
    assert remote_content(Dir(data / "deep"))["link"] == (b"a", False)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "out").symlink_to("/"), "out cannot travel: it is a link to the folder /"),
        (
            lambda folder: (folder / "lost").symlink_to("/nowhere"),
            "lost cannot travel: it is a link to /nowhere",
        ),
        (lambda folder: os.mkfifo(folder / "deep" / "pipe"), "pipe cannot travel: it is a named pipe"),
        (lambda folder: folder.rename(folder.with_name("elsewhere")), "data cannot travel: it is not there"),
    ],
    ids=["link to a folder", "link to nothing", "named pipe", "not there"],
)
def test_what_cannot_travel_is_named(data: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(data)
    with pytest.raises(SerializationError, match=said):
        remote_content(Dir(data))


def test_a_socket_cannot_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # its path is short
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("s")
        with pytest.raises(SerializationError, match="it is a socket; only files, folders and links can"):
            remote_content(Dir("."))


def test_the_folder_there_is_read_only(data: Path) -> None:
    @remote
    def modes(folder: Path) -> set[int]:
        return {stat.S_IMODE(p.lstat().st_mode) for p in (folder, *folder.rglob("*")) if not p.is_symlink()}

    assert modes(Dir(data)) == {0o444, 0o555}
    assert modes.options(detach=True)(Dir(data)) == {0o444, 0o555}


@pytest.mark.here("it has an agent of its own")
def test_only_what_has_changed_is_sent_again(agent: Callable[..., Any], data: Path) -> None:
    remote_content(Dir(data))
    before = blobs()
    assert remote_content(Dir(data)) == content(data)
    assert blobs() == before
    (data / "a.txt").write_text("another")
    assert remote_content(Dir(data)) == content(data)
    after = blobs()
    assert {digest: after[digest] for digest in before} == before
    assert len(after) == len(before) + 2  # the file, and the manifest


def test_a_constant_of_the_script_travels_with_its_function_and_is_looked_at_again(data: Path) -> None:
    folder = Dir(data)

    @remote
    def read() -> str:
        return (folder / "a.txt").read_text()

    assert read() == "a"
    (data / "a.txt").write_text("changed")
    assert read() == "changed"


def test_map_executors_and_instances_take_folders(data: Path) -> None:
    for index in range(40):
        (data / "empty" / f"{index}.txt").write_text(str(index))

    @remote
    class Reader:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def read(self, name: str) -> str:
            return (self.folder / name).read_text()

        def read_other(self, path: Path) -> str:
            return path.read_text()

    files = sorted(Dir(data / "empty").iterdir())
    texts = [path.read_text() for path in files]
    assert list(read_text.map(files)) == texts
    with RemoteExecutor(2) as executor:
        assert list(executor.map(read_text.local, files)) == texts
        assert executor.submit(read_text.local, files[3]).result() == texts[3]
    with Reader(Dir(data)) as reader:
        assert (reader.read("a.txt"), reader.read_other(files[0])) == ("a", texts[0])


@pytest.mark.here("it has an agent of its own")
def test_a_file_that_changes_while_it_is_sent_is_told(
    agent: Callable[..., Any], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = trees.find

    def find_and_change(path: Path, **more: Any) -> Any:
        found = find(path, **more)
        (data / "a.txt").write_text("b")
        return found

    monkeypatch.setattr(trees, "find", find_and_change)
    with pytest.raises(SerializationError, match=r"a\.txt cannot travel: it was changed while it was sent"):
        remote_content(Dir(data))
    monkeypatch.undo()
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(data.parent / "state"))
    assert not list(Layout.of(os.environ).blobs.glob("incoming/*"))
    assert remote_content(Dir(data)) == content(data)


# --- and back -----------------------------------------------------------------------------------------------------


def test_a_folder_comes_back_whole_and_read_only(tmp_path: Path) -> None:
    found = leave(tmp_path)
    assert type(found["all"]) is Dir
    assert content(found["all"]) == content(tmp_path / "out")
    assert found["one"][0].read_text() == "#!/bin/sh\n"
    assert stat.S_IMODE(found["all"].stat().st_mode) == 0o555
    assert stat.S_IMODE((found["all"] / "big").stat().st_mode) == 0o444


def test_what_came_back_can_be_copied_and_changed_and_passed_on(tmp_path: Path) -> None:
    found = leave(tmp_path)["all"]
    mine = found.copy_to(tmp_path / "mine")
    assert content(mine) == content(found)
    (mine / "tool").write_text("changed")
    (mine / "new").touch()
    assert found.joinpath("tool").read_text() == "#!/bin/sh\n"
    with pytest.raises(FileExistsError):
        found.copy_to(tmp_path / "mine")
    with pytest.raises(FileExistsError):
        (found / "tool").copy_to(tmp_path / "mine" / "new")
    before = blobs()
    assert remote_content(found) == content(found)
    assert blobs() == before


def test_folders_come_back_by_every_way_of_calling(tmp_path: Path) -> None:
    @remote
    def write(number: int) -> Dir:
        folder = tmp_path / f"made-{number}"
        folder.mkdir(exist_ok=True)
        (folder / "number").write_text(str(number))
        return Dir(folder)

    @remote
    def write_all(count: int) -> Iterator[Dir]:
        for number in range(count):
            yield write(number)

    def numbers(found: Any) -> list[str]:
        return [(folder / "number").read_text() for folder in found]

    assert numbers([write.submit(7).result(SECONDS)]) == ["7"]
    assert numbers(write.map(range(30))) == [str(number) for number in range(30)]
    assert numbers(write_all(3)) == ["0", "1", "2"]
    assert numbers([write.options(detach=True).submit(8).result(SECONDS)]) == ["8"]
    with RemoteExecutor(1) as executor:
        assert numbers(executor.map(write.local, range(3))) == ["0", "1", "2"]


def test_a_result_that_cannot_come_back_is_the_calls_failure(tmp_path: Path) -> None:
    @remote
    def wrong() -> Dir:
        return Dir(tmp_path / "nowhere")

    with pytest.raises(SerializationError, match="nowhere cannot travel: it is not there"):
        wrong()
    with pytest.raises(SerializationError, match="nowhere cannot travel: it is not there"):
        list(wrong.starmap([()]))


def test_a_folder_in_an_exception_is_its_name(tmp_path: Path) -> None:
    @remote
    def fail() -> None:
        raise FileNotFoundError(2, "no such data", Dir(tmp_path))

    with pytest.raises(FileNotFoundError) as caught:
        fail()
    assert caught.value.filename == tmp_path
    assert type(caught.value.filename) is type(tmp_path)


def test_cached_calls_know_folders_by_their_content(data: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    @remote(cache=True)
    def copy(folder: Path) -> Dir:
        with ran.open("a") as file:
            file.write("x")
        out = tmp_path / f"out-{ran.stat().st_size}"
        out.mkdir()
        (out / "a").write_bytes((folder / "a.txt").read_bytes())
        return Dir(out)

    first, again = copy(Dir(data)), copy(Dir(data))
    assert (first / "a").read_text() == (again / "a").read_text() == "a"
    assert ran.read_text() == "x"
    (data / "a.txt").write_text("b")
    assert (copy(Dir(data)) / "a").read_text() == "b"
    assert ran.read_text() == "xx"


# --- from another machine: one whose cache is not this one's --------------------------------------------------------


@pytest.fixture
def far(
    agent: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Any]]:
    """The digest of a tree of an agent whose home is not this process's, and what gives a session with that."""
    leave(tmp_path)
    digest = trees.find(tmp_path / "out", cache_dir=None).tree.digest
    session = connections.session()
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(tmp_path / "here"))
    yield digest, lambda: session
    monkeypatch.setenv("REMOTE_EXEC_HOME", str(tmp_path / "state"))


def fetched(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "here" / "cache" / "trees-v1").glob("*/out")
    return found


@pytest.mark.here("it has an agent of its own")
def test_what_is_far_is_fetched(far: tuple[str, Any], tmp_path: Path) -> None:
    digest, session = far
    trees.fetch([digest], session, "f")
    assert content(fetched(tmp_path)) == content(tmp_path / "out")


@pytest.mark.here("it has an agent of its own")
def test_a_fetch_that_breaks_off_goes_on_where_it_was(far: tuple[str, Any], tmp_path: Path) -> None:
    digest, session = far
    asked: list[int] = []

    class Breaking:
        """A session that is lost in the midst of it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(session(), name)

        def start(self, what: str, arguments: dict[str, Any]) -> Any:
            asked.append(arguments["offset"])
            if len(asked) > 4 and arguments["offset"]:
                raise HostUnavailable("lost")
            return session().start(what, arguments)

    with pytest.raises(HostUnavailable):
        trees.fetch([digest], Breaking, "f")
    assert not list((tmp_path / "here" / "cache" / "trees-v1").iterdir())
    trees.fetch([digest], session, "f")
    assert content(fetched(tmp_path)) == content(tmp_path / "out")


@pytest.mark.here("it has an agent of its own")
def test_what_the_host_has_lost_is_told(far: tuple[str, Any]) -> None:
    _, session = far
    with pytest.raises(DeserializationError, match="the host does not have the data any longer"):
        trees.fetch([f"sha256:{'0' * 64}"], session, "f")


@pytest.mark.here("it has an agent of its own")
def test_a_full_disk_is_told_and_leaves_nothing(
    far: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, session = far
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def no_room(*_: object) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr("remote_exec.worker.incoming.write_all", no_room)
        with pytest.raises(ResourceLimitExceeded, match="there is no room on this machine"):
            trees.fetch([digest], session, "f")
    assert not list((tmp_path / "here" / "cache" / "trees-v1").iterdir())
    assert not list((tmp_path / "here" / "cache" / "blobs-v1" / "incoming").iterdir())


# --- what stays, and for how long -----------------------------------------------------------------------------------


def _tidy_all(agent: Callable[..., Any]) -> None:
    """Let time pass for all that is kept, and have as little kept as can be."""
    layout, old = Layout.of(os.environ), time.time() - 7200
    for path in (*layout.blobs.glob("??/*"), *layout.trees.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # one that is being laid out
            os.utime(path, (old, old) if path.is_dir() else (old, path.stat().st_mtime))
    agent("prune", {"limit_bytes": 0})


@pytest.mark.here("it has an agent of its own")
def test_tidying_keeps_what_is_in_use_and_removes_the_rest(
    agent: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"

    @remote
    def hold(folder: Path) -> dict[str, Any]:
        begun.touch()
        while not gate.exists():
            time.sleep(0.01)
        return content(folder)

    unused = data.parent / "unused"
    unused.mkdir()
    (unused / "file").write_text("unused")
    with RemoteExecutor(1) as executor:
        executor.submit(content, Dir(unused)).result(SECONDS)
    future = hold.submit(Dir(data))
    until(begun.exists)
    _tidy_all(agent)
    gate.touch()
    assert future.result(SECONDS) == content(data)
    names = {path.name for path in Layout.of(os.environ).trees.glob("*/*")}
    assert names == {"data"}
    assert remote_content(Dir(unused)) == content(unused)


@pytest.mark.parametrize("size", [0, 48 << 20], ids=["it runs", "it is being sent"])
@pytest.mark.here("it has an agent of its own")
def test_a_job_keeps_its_data_over_its_agents_death(
    agent: Callable[..., Any], data: Path, tmp_path: Path, size: int
) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"

    @remote(detach=True)
    def wait_and_copy(folder: Path, _: bytes) -> Dir:
        begun.touch()
        while not gate.exists():
            time.sleep(0.01)
        out = tmp_path / "copied"
        out.mkdir(exist_ok=True)
        for name, found in content(folder).items():
            if isinstance(found[0], bytes):
                (out / name.replace("/", "-")).write_bytes(found[0])
        return Dir(out)

    expected = content(data)
    future = wait_and_copy.submit(Dir(data), os.urandom(size))
    until(begun.exists if not size else lambda: future.status == "running")
    os.kill(connections.session().welcome.pid, signal.SIGKILL)
    connections.with_agent(local.here(), lambda session: session.ask("host"))
    _tidy_all(agent)
    gate.touch()
    until(lambda: get_future(future.job).status == "succeeded")
    _tidy_all(agent)
    found = get_future(future.job).result(SECONDS)
    assert {p.name: p.read_bytes() for p in found.iterdir()} == {
        name.replace("/", "-"): told[0] for name, told in expected.items() if isinstance(told[0], bytes)
    }


@pytest.mark.here("it has an agent of its own")
def test_what_root_has_written_through_a_link_is_laid_out_anew(agent: Callable[..., Any], data: Path) -> None:
    @remote
    def spoil(folder: Path) -> None:
        (folder / "a.txt").chmod(0o644)
        (folder / "a.txt").write_text("spoilt")

    spoil(Dir(data))
    assert remote_content(Dir(data)) == content(data)
    store = BlobStore(Layout.of(os.environ).blobs)
    assert not store.missing([f"sha256:{name[:64]}" for name in blobs()], verify=True)
