"""The store of environments: built once, never half, held while in use. Real uv, wheels made on the spot."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from unittest.mock import ANY

import pytest
import uv as uv_package
from interpreters import python_of
from waiting import until
from wheels import make_wheel

from remote_exec.agent import builders, environments, interpreters, tools
from remote_exec.agent.environments import Environment, EnvironmentStore
from remote_exec.agent.platforms import this_platform
from remote_exec.errors import RuntimeEnvironmentError
from remote_exec.model.environment import EnvironmentKind, EnvironmentSpec

UV = Path(uv_package.find_uv_bin())
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder of wheels that is all the package index there is."""
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheel(folder, "apple")
    make_wheel(folder, "pear", version="2.0", requires="apple")
    return folder


@pytest.fixture
def environ(tmp_path: Path, index: Path, uv_cache: Path) -> dict[str, str]:
    """No network, no settings of this user, and variables that would lead uv astray."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "UV_CACHE_DIR": str(uv_cache),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "UV_OFFLINE": "1",
        "VIRTUAL_ENV": "/nowhere",
        "PYTHONHOME": "/nowhere",
        "PYTHONPATH": "/nowhere",
    }


@pytest.fixture
def store(tmp_path: Path, environ: dict[str, str]) -> EnvironmentStore:
    return open_store(tmp_path, environ)


def open_store(tmp_path: Path, environ: Mapping[str, str]) -> EnvironmentStore:
    def blob(digest: str) -> Path:
        return tmp_path / "blobs" / digest.partition(":")[2]

    return EnvironmentStore(tmp_path / "environments", UV, blob, environ=environ)


def spec_of(*requirements: str, **fields: object) -> EnvironmentSpec:
    merged: dict[str, object] = {"kind": EnvironmentKind.UV, "python": HERE, **fields}
    return EnvironmentSpec(requirements=requirements, **merged)  # type: ignore[arg-type]


def run_in(environment: Environment, code: str) -> str:
    done = subprocess.run(
        [environment.python, "-c", code], capture_output=True, text=True, check=True, env={"PATH": os.defpath}
    )
    return done.stdout.strip()


def quiet(line: str) -> None:
    """Nobody listens."""


def test_an_environment_is_built_once_and_then_only_looked_up(store: EnvironmentStore) -> None:
    spec = spec_of("pear")
    assert store.lookup(spec) is None
    lines: list[str] = []
    built = store.build(spec, lines.append)
    assert run_in(built, "import pear, apple; print(pear.VERSION, apple.VERSION)") == "2.0 1.0"
    assert any("pear==2.0" in line for line in lines)
    assert store.lookup(spec) == built
    assert built.variables == {"VIRTUAL_ENV": str(built.python.parent.parent)}
    lines.clear()
    assert store.build(spec, lines.append) == built
    assert lines == []


def test_the_environment_holds_nothing_of_ours_nor_an_installer(store: EnvironmentStore) -> None:
    built = store.build(spec_of("apple"), quiet)
    code = "import importlib.metadata as m; print(*sorted(d.metadata['Name'] for d in m.distributions()))"
    assert run_in(built, code) == "apple"


def test_a_lookup_takes_less_than_a_millisecond(store: EnvironmentStore) -> None:
    spec = spec_of("apple")
    store.build(spec, quiet)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        assert store.lookup(spec)
        times.append(time.perf_counter() - start)
    assert sorted(times)[25] < 0.001


def test_wheels_and_constraints_travel_with_the_spec(
    store: EnvironmentStore, tmp_path: Path, index: Path
) -> None:
    make_wheel(index, "apple", version="3.0")
    wheel = make_wheel(tmp_path, "plum", requires="apple")
    digest = f"sha256:{sha256(wheel.read_bytes()).hexdigest()}"
    (tmp_path / "blobs").mkdir()
    wheel.rename(tmp_path / "blobs" / digest[7:])
    spec = spec_of(constraints=("apple<2",), wheels=((wheel.name, digest),))
    built = store.build(spec, quiet)
    assert run_in(built, "import plum, apple; print(plum.VERSION, apple.VERSION)") == "1.0 1.0"


def test_a_wheel_cannot_name_its_way_out_of_the_folder(store: EnvironmentStore) -> None:
    with pytest.raises(RuntimeEnvironmentError, match="not the file name of a wheel"):
        store.build(spec_of(wheels=(("../evil-1-py3-none-any.whl", "sha256:00"),)), quiet)


def test_a_project_is_installed_as_its_lock_says(
    store: EnvironmentStore, tmp_path: Path, index: Path, environ: dict[str, str]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "mine"\nversion = "0"\nrequires-python = ">={HERE}"\ndependencies = ["pear"]\n'
        f'[tool.uv]\nfind-links = ["{index}"]\n'
    )
    subprocess.run([UV, "lock", "-q"], cwd=project, env=builders.tool_environ(environ), check=True)
    make_wheel(index, "pear", version="9.0")  # newer than the lock
    files = tuple((name, (project / name).read_text()) for name in ("pyproject.toml", "uv.lock"))
    built = store.build(spec_of(kind=EnvironmentKind.PROJECT, files=files), quiet)
    assert run_in(built, "import pear; print(pear.VERSION)") == "2.0"
    assert built.generation is not None
    assert not (built.generation / "project").exists()


def test_a_failed_build_says_why_in_the_resolvers_words_and_leaves_nothing(store: EnvironmentStore) -> None:
    spec = spec_of("apple", "no-such-package-anywhere")
    with pytest.raises(RuntimeEnvironmentError) as caught:
        store.build(spec, quiet)
    assert "no-such-package-anywhere" in caught.value.output
    assert len(caught.value.output.splitlines()) <= 20
    assert store.lookup(spec) is None
    assert not list(store.folder.glob("*/g-*"))


def test_no_password_of_an_index_is_ever_shown_or_written(tmp_path: Path, environ: dict[str, str]) -> None:
    online = {name: value for name, value in environ.items() if name not in ("PIP_NO_INDEX", "UV_OFFLINE")}
    store = open_store(tmp_path, {**online, "UV_HTTP_RETRIES": "0"})
    secret = "hunter2"  # noqa: S105
    line = f"--index-url http://me:{secret}@localhost:1/simple"
    lines: list[str] = []
    with pytest.raises(RuntimeEnvironmentError) as caught:
        store.build(spec_of(line, "cherry"), lines.append)
    assert "localhost:1" in caught.value.output
    assert "index was not reached" in caught.value.hint
    spec = spec_of(line, "apple @ " + (tmp_path / "index" / "apple-1.0-py3-none-any.whl").as_uri())
    built = store.build(spec, lines.append)
    assert "***@localhost" in store.list()[0].summary
    shown = "\n".join([*lines, str(caught.value), repr(spec), repr(built), repr(store.list())])
    assert secret not in shown
    for path in store.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert secret.encode() not in path.read_bytes(), path


def test_a_python_that_the_host_cannot_bring_is_named_with_those_it_has(
    store: EnvironmentStore, environ: dict[str, str]
) -> None:
    lines: list[str] = []
    with pytest.raises(RuntimeEnvironmentError, match=rf"no Python 3\.19 .*found here: .*{HERE}"):
        store.build(spec_of("apple", python="3.19"), lines.append)


def test_without_uv_the_error_says_how_to_get_it(tmp_path: Path, environ: dict[str, str]) -> None:
    store = EnvironmentStore(tmp_path / "e", None, Path, environ={**environ, "PATH": "/nowhere"})
    with pytest.raises(RuntimeEnvironmentError, match="no uv") as caught:
        store.build(spec_of("apple"), quiet)
    assert "pip install uv" in caught.value.hint


def test_a_given_interpreter_is_used_as_it_is(store: EnvironmentStore, tmp_path: Path) -> None:
    spec = spec_of(kind=EnvironmentKind.INTERPRETER, name=sys.executable)
    found = store.lookup(spec)
    assert found is not None
    assert (found.python, found.version, found.hold()) == (Path(sys.executable), HERE, None)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'command not found' >&2; exit 127\n")
    broken.chmod(0o755)
    missing = tmp_path / "missing"
    for path, words in ((broken, "status 127.*command not found"), (missing, "no file")):
        unusable = spec_of(kind=EnvironmentKind.INTERPRETER, name=str(path))
        assert store.lookup(unusable) is None
        with pytest.raises(RuntimeEnvironmentError, match=words):
            store.build(unusable, quiet)
    other = spec_of(kind=EnvironmentKind.INTERPRETER, name=sys.executable, python="3.9")
    assert store.lookup(other) is None
    with pytest.raises(RuntimeEnvironmentError, match=rf"is Python {HERE}, but the caller runs 3\.9"):
        store.build(other, quiet)


def test_any_python_of_the_host_will_do_where_none_is_named(
    store: EnvironmentStore, tmp_path: Path, environ: dict[str, str]
) -> None:
    minor, python = python_of(12, 13, 10)
    for version, expected in ((HERE, Path(sys.executable)), (f"3.{minor}", python)):
        store.pythons = [Path(sys.executable), python]
        wanted = spec_of(kind=EnvironmentKind.INTERPRETER, python=version)
        for found in (store.lookup(wanted), store.build(wanted, quiet)):
            assert found is not None
            assert (found.python, found.version, found.hold()) == (expected, version, None)
    missing = spec_of(kind=EnvironmentKind.INTERPRETER, python="3.19")
    assert store.lookup(missing) is None
    words = rf"no Python 3\.19 .*found here: .*3\.{minor}"
    with pytest.raises(RuntimeEnvironmentError, match=words) as caught:
        store.build(missing, quiet)
    assert "install Python 3.19 on the host" in caught.value.hint
    without_uv = EnvironmentStore(tmp_path / "e", None, Path, environ={**environ, "PATH": "/nowhere"})
    with pytest.raises(RuntimeEnvironmentError, match="and no uv to bring it"):
        without_uv.build(missing, quiet)


TELL_PLACES = """
import platform, sys, sysconfig
print(platform.python_version(), sys.base_prefix, sysconfig.get_path("stdlib"))
"""


def pack_python(python: Path, archive: Path) -> str:
    """Pack an interpreter as those that uv downloads are; return its version."""
    done = subprocess.run([python, "-I", "-c", TELL_PLACES], capture_output=True, text=True, check=True)
    version, base, library = done.stdout.split()
    short = version.rpartition(".")[0]

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        unwanted = ("test", "tests", "site-packages", "dist-packages", "__pycache__")
        return None if os.path.basename(member.name) in unwanted else member

    with tarfile.open(archive, "w:gz", compresslevel=1) as file:
        file.add(os.path.realpath(python), f"python/bin/python{short}")
        file.add(library, f"python/lib/python{short}", filter=kept)
        for shared in Path(base, "lib").glob(f"libpython{short}*.so*"):
            file.add(shared, f"python/lib/{shared.name}")
    return version


@pytest.mark.skipif(sys.platform != "linux", reason="of the archive's name only")
def test_a_python_that_the_host_lacks_is_brought_by_uv(tmp_path: Path, environ: dict[str, str]) -> None:
    minor, python = python_of(12, 13, 10)
    archive, host = tmp_path / "cpython.tar.gz", this_platform()
    version = pack_python(python, archive)
    libc = "gnu" if host.libc == "glibc" else "musl"
    entry = {
        "name": "cpython", "arch": {"family": host.machine, "variant": None}, "os": "linux", "libc": libc,
        "major": 3, "minor": minor, "patch": int(version.split(".")[2]), "prerelease": "", "variant": None,
        "url": archive.as_uri(), "sha256": None, "build": "20260101",
    }  # fmt: skip
    (tmp_path / "downloads.json").write_text(
        json.dumps({f"cpython-{version}-linux-{host.machine}-{libc}": entry})
    )
    bare = {name: value for name, value in environ.items() if name != "UV_OFFLINE"}
    bare |= {
        "PATH": str(tmp_path),
        "UV_PYTHON_DOWNLOADS_JSON_URL": (tmp_path / "downloads.json").as_uri(),
        "UV_PYTHON_INSTALL_DIR": str(tmp_path / "python"),
    }
    if interpreters.find(f"3.{minor}", bare):
        pytest.skip("it lies where every host is looked through")
    wanted = spec_of(kind=EnvironmentKind.INTERPRETER, python=f"3.{minor}")
    built = open_store(tmp_path, bare).build(wanted, quiet)
    assert run_in(built, "import sys; print(*sys.version_info[:2])") == f"3 {minor}"
    assert Path(run_in(built, "import sys; print(sys.base_prefix)")).is_relative_to(tmp_path / "python")


def test_a_uv_that_a_client_has_brought_builds_where_the_host_has_none(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    bare = {**environ, "PATH": "/usr/bin:/bin"}
    tools.take_in(tmp_path / "tools", "1.0", f"sha256:{'0' * 64}", lambda path: shutil.copy2(UV, path))
    store = EnvironmentStore(
        tmp_path / "environments", tmp_path / "gone", Path, tools=tmp_path / "tools", environ=bare
    )
    assert run_in(store.build(spec_of("apple"), quiet), "import apple; print(apple.VERSION)") == "1.0"


def test_a_local_version_that_no_index_has_says_what_to_do(store: EnvironmentStore) -> None:
    with pytest.raises(RuntimeEnvironmentError) as caught:
        store.build(spec_of("apple==1.0+cpu"), quiet)
    assert "name that index" in caught.value.hint


def test_an_environment_whose_interpreter_went_is_built_again_and_its_users_keep_theirs(
    tmp_path: Path, store: EnvironmentStore
) -> None:
    spec = spec_of("apple")
    old = store.build(spec, quiet)
    held = old.hold()
    assert held is not None
    old.python.unlink()
    assert store.lookup(spec) is None
    assert store.list()[0].sick is not None
    lines: list[str] = []
    new = store.build(spec, lines.append)
    assert "interpreter is gone" in lines[0]
    assert new.python != old.python
    assert run_in(new, "import apple; print(apple.VERSION)") == "1.0"
    assert old.generation is not None
    assert old.generation.exists()
    with pytest.raises(RuntimeEnvironmentError, match="replaced"):
        old.hold()
    os.close(held)
    store.prune({spec.digest})
    assert not old.generation.exists()
    assert store.lookup(spec) == new


def test_what_is_held_or_a_root_is_never_removed(store: EnvironmentStore) -> None:
    held_spec, root, other = spec_of("apple"), spec_of("pear"), spec_of()
    for spec in (held_spec, root, other):
        store.build(spec, quiet)
    found = store.lookup(held_spec)
    assert found is not None
    descriptor = found.hold()
    assert descriptor is not None
    keeper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    os.close(descriptor)  # the keeper's inherited copy holds on
    assert not store.remove(held_spec.digest)
    assert store.prune({root.digest}, limit_bytes=10**12, older_than_seconds=3600) == []
    assert store.prune({root.digest}, limit_bytes=0) == [other.digest]
    keeper.communicate()
    assert {info.digest for info in store.list()} == {held_spec.digest, root.digest}
    assert not any(info.in_use for info in store.list())
    assert store.remove(held_spec.digest)
    with pytest.raises(RuntimeEnvironmentError, match="removed"):
        found.hold()
    assert not store.remove(held_spec.digest)
    assert len(list(store.folder.iterdir())) == 1


def test_a_cancel_ends_the_tools_process_group(tmp_path: Path, environ: dict[str, str]) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    slow = tmp_path / "uv"
    slow.write_text(f"#!/bin/sh\nsleep 600 & echo $! $$ > {pids}; wait\n")
    slow.chmod(0o755)
    store = EnvironmentStore(tmp_path / "e", slow, Path, environ=environ)
    cancelled = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(store.build, spec_of("apple"), quiet, cancelled.is_set)
        child, leader = (int(pid) for pid in pids.read_text().split())
        cancelled.set()
        with pytest.raises(CancelledError):
            future.result(timeout=10)
    for pid in (child, leader):
        until(lambda pid=pid: not alive(pid))  # type: ignore[misc]
    assert not list((tmp_path / "e").glob("*/g-*"))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


BUILDER = """
import sys
from pathlib import Path
from remote_exec.agent.environments import EnvironmentStore
from remote_exec.model.environment import EnvironmentKind, EnvironmentSpec
store = EnvironmentStore(Path(sys.argv[1]), Path(sys.argv[2]), Path)
spec = EnvironmentSpec(kind=EnvironmentKind.UV, python=sys.argv[3], requirements=("pear",))
print(store.build(spec, lambda line: print("line", line, flush=True)).python, flush=True)
"""


def start_builder(store: EnvironmentStore, environ: Mapping[str, str]) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", BUILDER, str(store.folder), str(UV), HERE]
    kept = {name: value for name, value in environ.items() if not name.startswith("PYTHON")}
    return subprocess.Popen(argv, env=kept, stdout=subprocess.PIPE, text=True)


def test_four_processes_that_ask_at_once_build_once(store: EnvironmentStore, environ: dict[str, str]) -> None:
    started = [start_builder(store, environ) for _ in range(4)]
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in started]
    assert len({output[-1] for output in outputs}) == 1
    installed = [line for output in outputs for line in output if "+ pear" in line]
    assert len(installed) == 1
    assert len(list(store.folder.glob("*/g-*"))) == 1


def test_a_builder_killed_at_any_moment_leaves_nothing_that_is_used(
    store: EnvironmentStore, environ: dict[str, str], tmp_path: Path
) -> None:
    spec = spec_of("pear")
    started = time.monotonic()
    start_builder(store, environ).communicate(timeout=60)
    whole = time.monotonic() - started
    moments = random.Random(7)
    for _ in range(8):
        assert store.remove(spec.digest) or store.lookup(spec) is None
        process = start_builder(store, environ)
        try:
            process.wait(moments.uniform(0.2, 1.0) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        if found := store.lookup(spec):
            assert run_in(found, "import pear, apple; print(pear.VERSION)") == "2.0"
    built = store.build(spec, quiet)
    assert run_in(built, "import pear, apple; print(pear.VERSION)") == "2.0"

    def only_the_built_one_is_left() -> bool:  # once the last killed builder's uv has ended too
        store.prune({spec.digest})
        return list(store.folder.glob("*/g-*")) == [built.generation]

    until(only_the_built_one_is_left)


def in_a_process_that_dies(action: Callable[[], object]) -> None:
    """Run it in a forked process: no clean-up of ours counts there once `die` is called."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def die(*args: object, **kwargs: object) -> None:
    os._exit(9)


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (environments, "lock_new"),
        (environments, "build"),
        (environments, "write_mark"),
        (os, "fsync"),
        (Path, "replace"),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_between_any_two_steps_leaves_no_half_environment(
    store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch, module: object, step: str, when: str
) -> None:
    spec = spec_of("apple")
    real = getattr(module, step)

    def crash(*args: object, **kwargs: object) -> None:
        if when == "after":
            real(*args, **kwargs)
        die()

    monkeypatch.setattr(module, step, crash)
    in_a_process_that_dies(lambda: store.build(spec, quiet))
    monkeypatch.undo()
    if found := store.lookup(spec):
        assert run_in(found, "import apple; print(apple.VERSION)") == "1.0"
    built = store.build(spec, quiet)
    assert run_in(built, "import apple; print(apple.VERSION)") == "1.0"
    assert list(store.folder.glob("*/g-*")) == [built.generation]


def test_a_remover_killed_half_way_leaves_nothing_that_can_be_held(
    store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of("apple")
    built = store.build(spec, quiet)
    monkeypatch.setattr(environments, "wipe_leftovers", die)
    in_a_process_that_dies(lambda: store.remove(spec.digest))
    monkeypatch.undo()
    assert store.lookup(spec) is None
    with pytest.raises(RuntimeEnvironmentError):
        built.hold()
    store.prune(set())
    assert list(store.folder.iterdir()) == []


def test_a_torn_ready_mark_counts_for_none(store: EnvironmentStore) -> None:
    spec = spec_of("apple")
    built = store.build(spec, quiet)
    assert built.generation is not None
    mark = built.generation.parent / "ready.json"
    mark.write_bytes(mark.read_bytes()[:20])
    assert store.lookup(spec) is None
    assert store.build(spec, quiet).python != built.python


FAKE_MICROMAMBA = """#!/bin/sh
if [ "$1" = run ]; then
  if [ "$3" = known ]; then shift 4; echo activating; GDAL_DATA=/gdal exec {python} "$@"; fi
  echo "no environment $3" >&2; exit 1
fi
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/bin" "$2/lib" && ln -s {python} "$2/bin/python"
"""


def test_conda_environments_are_found_by_name_or_built_from_their_file(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    named = spec_of(kind=EnvironmentKind.CONDA_NAMED, name="known")
    unknown = spec_of(kind=EnvironmentKind.CONDA_NAMED, name="unknown")
    prefix = spec_of(kind=EnvironmentKind.CONDA_NAMED, name=sys.prefix)
    file = spec_of(kind=EnvironmentKind.CONDA, files=(("environment.yml", "dependencies: [python]\n"),))
    other = spec_of(kind=EnvironmentKind.CONDA, python="3.9", files=file.files)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("mkdir", "ln", "sh"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    store = open_store(tmp_path, {**environ, "PATH": str(tools)})
    for spec in (named, file):
        with pytest.raises(RuntimeEnvironmentError, match="no micromamba"):
            store.build(spec, quiet)
    assert store.build(prefix, quiet).python == Path(sys.prefix, "bin", "python")
    (tools / "micromamba").write_text(FAKE_MICROMAMBA.format(python=sys.executable))
    (tools / "micromamba").chmod(0o755)
    activated = store.build(named, quiet)
    assert activated.python == Path(sys.executable)
    assert activated.variables["GDAL_DATA"] == "/gdal"
    assert activated.variables["CONDA_PREFIX"] == str(Path(sys.executable).parent.parent)
    assert not activated.variables.keys() & {"PATH", "HOME", "PWD", "SHLVL"}
    assert store.lookup(named) == replace(activated, created_at=ANY)
    assert store.build(file, quiet).variables["CONDA_PREFIX"].endswith("/conda")
    with pytest.raises(RuntimeEnvironmentError, match="no usable environment 'unknown'"):
        store.build(unknown, quiet)
    with pytest.raises(RuntimeEnvironmentError, match=f"brings Python {HERE}"):
        store.build(other, quiet)


def test_pips_index_settings_are_uvs_unless_uv_has_its_own() -> None:
    given = {
        "PIP_INDEX_URL": "https://a",
        "PIP_EXTRA_INDEX_URL": "https://b https://c",
        "PIP_FIND_LINKS": "/x  /y",
    }
    seen = builders.tool_environ(given)
    assert (seen["UV_DEFAULT_INDEX"], seen["UV_INDEX"], seen["UV_FIND_LINKS"]) == (
        "https://a",
        "https://b https://c",
        "/x,/y",
    )
    assert "UV_DEFAULT_INDEX" not in builders.tool_environ({**given, "UV_INDEX_URL": "https://mine"})


def test_other_pythons_of_the_host_are_found_past_shims_that_do_not_run(tmp_path: Path) -> None:
    shims, versions = tmp_path / "shims", tmp_path / "pyenv" / "versions" / f"{HERE}.99" / "bin"
    for folder, text in (
        (shims, "#!/bin/sh\nexit 127\n"),
        (versions, f'#!/bin/sh\nexec {sys.executable} "$@"\n'),
    ):
        folder.mkdir(parents=True)
        (folder / f"python{HERE}").write_text(text)
        (folder / f"python{HERE}").chmod(0o755)
    environ = {"PATH": f"{shims}:{os.defpath}", "PYENV_ROOT": str(tmp_path / "pyenv"), "HOME": str(tmp_path)}
    found = [
        path
        for path in interpreters.candidates(HERE, environ)
        if not isinstance(interpreters.probe(path), str)
    ]
    assert versions / f"python{HERE}" in found
    assert shims / f"python{HERE}" not in found


def test_a_real_package_comes_from_the_index(tmp_path: Path, uv_cache: Path) -> None:
    store = open_store(tmp_path, {**os.environ, "UV_CACHE_DIR": str(uv_cache)})
    built = store.build(spec_of("six"), quiet)
    assert run_in(built, "import six; print(six.PY3)") == "True"
