"""What travels arrives importable and whole; what stays is named with its reason; every change is seen."""

from __future__ import annotations

import importlib.machinery
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_exec.capture import index
from remote_exec.capture.bundle import Capture, bundle_modules, bundle_workdir
from remote_exec.capture.modules import Reach, reach
from remote_exec.errors import ConfigurationError, SizeLimitExceeded
from remote_exec.options import CustomFileFilter


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def contents(capture: Capture) -> dict[str, str]:
    """Path in the bundle -> text, read from where the capture says the content lies."""
    sources = capture.sources
    return {file.path: Path(sources[file.digest]).read_text() for file in capture.bundle.files}


def reasons(capture: Capture, root: Path) -> dict[str, str]:
    return {os.path.relpath(path, root): why for path, why in capture.left_out}


def unpack(capture: Capture, into: Path) -> list[str]:
    """Lay a bundle out as a host does it, and return its import roots."""
    for file in capture.bundle.files:
        (into / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(capture.sources[file.digest], into / file.path)
    return [str(into / root) for root in capture.bundle.import_roots]


def settle() -> None:
    """Let the file system's clock tick on: until then a fresh stamp vouches for nothing, no event tells."""
    time.sleep(0.03)


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reach]:
    """Reach modules by name with some folders on ``sys.path``, importing nothing."""

    def reached(*names: str, path: list[Path]) -> Reach:
        monkeypatch.setattr(sys, "path", [*map(str, path), *sys.path])
        return reach(None, modules=names)

    return reached


def test_a_module_and_a_package_arrive_importable_with_their_data(
    tmp_path: Path, on_path: Callable[..., Reach]
) -> None:
    home = tmp_path / "home"
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    write(
        home,
        {
            "bm_single.py": "import bm_pack\nVALUE = bm_pack.VALUE\n",
            "bm_other.py": "",
            "bm_pack/__init__.py": "from pathlib import Path\nfrom ._version import VERSION\n"
            "VALUE = (Path(__file__).parent / 'data/x.txt').read_text() + VERSION\n",
            "bm_pack/_version.py": "VERSION = '7'",
            "bm_pack/data/x.txt": "words",
            "bm_pack/lazy.py": "",
            "bm_pack/debug.log": "",
            "bm_pack/__pycache__/x.cpython-311.pyc": "",
            f"bm_pack/_core{suffix}": "built",
            ".gitignore": f"_version.py\n*.log\n*{suffix}\n",
            ".git/HEAD": "",
        },
    )
    capture = bundle_modules(on_path("bm_single", path=[home]))
    assert set(contents(capture)) == {
        "bm_single.py", "bm_pack/__init__.py", "bm_pack/_version.py", "bm_pack/data/x.txt", "bm_pack/lazy.py",
        f"bm_pack/_core{suffix}",
    }  # fmt: skip
    assert reasons(capture, home) == {
        "bm_pack/debug.log": "ignored by .gitignore",
        "bm_pack/__pycache__": "a cache",
    }
    assert capture.bundle.import_roots == (".",)
    assert capture.origins == (str(home),)
    roots = unpack(capture, tmp_path / "host")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    command = [sys.executable, "-c", "import bm_single; print(bm_single.VALUE)"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "words7\n"


def test_several_import_roots_lie_side_by_side_in_the_order_of_the_path(
    tmp_path: Path, on_path: Callable[..., Reach]
) -> None:
    write(tmp_path, {"z/br_one.py": "1", "a/br_space/two.py": "2", "m/br_space/three.py": "3"})
    folders = [tmp_path / "z", tmp_path / "m", tmp_path / "a"]
    capture = bundle_modules(on_path("br_one", "br_space.two", "br_space.three", path=folders))
    assert contents(capture) == {"0/br_one.py": "1", "1/br_space/three.py": "3", "2/br_space/two.py": "2"}
    assert capture.bundle.import_roots == ("0", "1", "2")
    assert capture.origins == tuple(map(str, folders))


def test_an_editable_distribution_brings_its_metadata_and_its_import_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, project = tmp_path / "site-packages", tmp_path / "project"
    write(project, {"lib/be_odd_folder/__init__.py": "x", "lib/be_odd_folder/part.py": "y"})
    record = {"url": project.as_uri(), "dir_info": {"editable": True}}
    info = "be_mapped-1.2.dist-info"
    write(site, {f"{info}/METADATA": "Name: be_mapped\nVersion: 1.2\n", f"{info}/RECORD": ""})
    write(site, {f"{info}/direct_url.json": json.dumps(record)})
    folder = str(project / "lib" / "be_odd_folder")

    class Finder:
        @staticmethod
        def find_spec(
            name: str, path: object = None, target: object = None
        ) -> importlib.machinery.ModuleSpec | None:
            if name != "be_mapped":
                return None
            return importlib.util.spec_from_file_location(
                name, f"{folder}/__init__.py", submodule_search_locations=[folder]
            )

    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    capture = bundle_modules(reach(None, modules=["be_mapped.part"]))
    roots = unpack(capture, tmp_path / "host")
    code = "import be_mapped.part, importlib.metadata as m; print(m.version('be_mapped'))"
    (tmp_path / "host/be_mapped/__init__.py").write_text("")
    (tmp_path / "host/be_mapped/part.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "1.2\n"


def test_nothing_local_gives_the_empty_bundle() -> None:
    capture = bundle_modules(reach(json.dumps))
    assert capture.bundle.digest == ""
    assert capture.is_current()


def test_a_working_directory_travels_without_what_is_never_source(tmp_path: Path) -> None:
    work = tmp_path / "work"
    write(
        work,
        {
            "train.py": "1", "data/a.csv": "2", "data/raw/b.csv": "3", "notes.txt": "4", ".env": "PASSWORD=x",
            ".venv/pyvenv.cfg": "", ".venv/lib/x.py": "", "node_modules/m/index.js": "", ".git/HEAD": "",
            "out/model.bin": "", ".gitignore": "out/\n", "deep/er/.gitignore": "*.tmp\n!keep.tmp\n",
            "deep/er/a.tmp": "", "deep/er/keep.tmp": "5",
        },
    )  # fmt: skip
    (work / "run.sh").write_text("6")
    (work / "run.sh").chmod(0o755)
    capture = bundle_workdir(work, file_filter=shutil.ignore_patterns("raw", "notes.*"))
    assert contents(capture) == {
        "train.py": "1", "data/a.csv": "2", "run.sh": "6", ".gitignore": "out/\n",
        "deep/er/.gitignore": "*.tmp\n!keep.tmp\n", "deep/er/keep.tmp": "5",
    }  # fmt: skip
    assert [file.path for file in capture.bundle.files if file.executable] == ["run.sh"]
    assert reasons(capture, work) == {
        ".env": "looks like secrets", ".git": "version control", ".venv": "a virtual environment",
        "node_modules": "a cache", "out": "ignored by .gitignore", "deep/er/a.tmp": "ignored by .gitignore",
        "data/raw": "custom_file_filter", "notes.txt": "custom_file_filter",
    }  # fmt: skip


def test_a_custom_filter_names_the_working_directory_and_its_patterns(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "", "b.csv": ""})
    capture = bundle_workdir(
        file_filter=CustomFileFilter(ignore_name_patterns=["*.csv"], workdir=str(tmp_path))
    )
    assert set(contents(capture)) == {"a.py"}


def test_a_working_directory_keeps_its_source_folder_importable_and_modules_outside_come_along(
    tmp_path: Path, on_path: Callable[..., Reach]
) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    write(
        work,
        {"src/bw_mine/__init__.py": "1", "src/bw_mine/made.py": "2", "README": "3", ".gitignore": "made.py"},
    )
    write(other, {"bw_outside.py": "4"})
    found = on_path("bw_mine.made", "bw_outside", path=[work / "src", other])
    capture = bundle_workdir(work, reach=found)
    assert contents(capture) == {
        "0/src/bw_mine/__init__.py": "1", "0/src/bw_mine/made.py": "2", "0/README": "3",
        "0/.gitignore": "made.py", "1/bw_outside.py": "4",
    }  # fmt: skip
    placed = dict(zip(capture.bundle.import_roots, capture.origins, strict=True))
    assert placed == {"0/src": str(work / "src"), "1": str(other), "0": str(work)}


def test_links_sockets_and_odd_names_never_leave_the_folder(tmp_path: Path) -> None:
    work = tmp_path / "w"
    write(work, {"real.txt": "in", ".env": "secret", "sub/x": ""})
    write(tmp_path, {"outside.txt": "out", "far/y": ""})
    for name, target in {
        "inside": "real.txt", "escape": "../outside.txt", "dangling": "nowhere", "loop": "loop",
        "folder": "sub", "far": "../far", "sneaky": ".env", "absolute": str(tmp_path / "outside.txt"),
    }.items():  # fmt: skip
        (work / name).symlink_to(target)
    os.mkfifo(work / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(work)  # a socket's path must be short
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
    Path(os.fsdecode(os.fsencode(work) + b"/bad\xff.py")).touch()
    capture = bundle_workdir(work)
    assert contents(capture) == {"real.txt": "in", "inside": "in", "sub/x": ""}
    assert reasons(capture, work) == {
        "escape": "a link to outside the folder", "absolute": "a link to outside the folder",
        "far": "a link to outside the folder", "dangling": "a link that leads nowhere",
        "loop": "a link that leads nowhere", "folder": "a link to what is no file",
        "sneaky": "looks like secrets", ".env": "looks like secrets", "pipe": "neither a file nor a folder",
        "socket": "neither a file nor a folder", "bad\\udcff.py": "its name is not valid UTF-8",
    }  # fmt: skip


AS_NOBODY = """
import json, os, sys
from remote_exec.capture.bundle import bundle_workdir

if os.geteuid() == 0:  # who reads everything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
capture = bundle_workdir(sys.argv[1])
contents = {file.path: open(capture.sources[file.digest]).read() for file in capture.bundle.files}
print(json.dumps([contents, {os.path.relpath(path, sys.argv[1]): why for path, why in capture.left_out}]))
"""


def test_what_cannot_be_read_is_left_out_with_that_reason() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own folders are closed to others
        root = Path(name)
        write(root, {"locked.txt": "x", "shut/y": "", "open.txt": "o"})
        for path, mode in {".": 0o755, "open.txt": 0o644, "locked.txt": 0, "shut": 0}.items():
            (root / path).chmod(mode)
        try:
            command = [sys.executable, "-c", AS_NOBODY, name]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        finally:
            (root / "shut").chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        {"open.txt": "o"}, {"locked.txt": "cannot be read", "shut": "cannot be read"},
    ]  # fmt: skip


def test_the_same_tree_has_the_same_digest_wherever_it_lies_and_however_it_was_made(tmp_path: Path) -> None:
    files = {f"{folder}/{name}.py": folder + name for folder in "bca" for name in "zxy"}
    write(tmp_path / "here", files)
    write(tmp_path / "there", dict(sorted(files.items())))
    here, there = (bundle_workdir(tmp_path / name).bundle for name in ("here", "there"))
    assert here.files == there.files
    assert here.digest == there.digest


def edit_by_renaming(path: Path) -> None:
    path.with_name("tmp").write_text("B")
    path.with_name("tmp").replace(path)


def edit_and_backdate(path: Path) -> None:
    path.write_text("B")
    os.utime(path, ns=(0, 0))


CHANGES: dict[str, Callable[[Path], object]] = {
    "an edit in place": lambda root: (root / "a.py").write_text("longer than before"),
    "an edit of the same length": lambda root: (root / "a.py").write_text("B"),
    "an edit by renaming": lambda root: edit_by_renaming(root / "a.py"),
    "an edit that hides its time": lambda root: edit_and_backdate(root / "a.py"),
    "a new file": lambda root: (root / "sub/new.py").write_text(""),
    "a removed file": lambda root: (root / "sub/b.py").unlink(),
    "a new folder": lambda root: write(root, {"more/x.py": ""}),
    "a removed folder": lambda root: shutil.rmtree(root / "sub"),
    "an executable bit": lambda root: (root / "a.py").chmod(0o755),
    "an ignore rule": lambda root: (root / ".gitignore").write_text("b.py\n"),
    "an ignore file inside": lambda root: (root / "sub/.gitignore").write_text("*\n"),
    "git's own exclude file": lambda root: (root / ".git/info/exclude").write_text("b.py\n"),
    "a folder that becomes an environment": lambda root: (root / "sub/pyvenv.cfg").touch(),
    "a link's target": lambda root: (root / "target").write_text("changed"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("persisted", [False, True], ids=["same process", "next process"])
def test_every_change_is_seen_and_gives_what_a_first_capture_would(
    tmp_path: Path, change: Callable[[Path], object], persisted: bool
) -> None:
    work, cache = tmp_path / "work", tmp_path / "cache"
    write(
        work, {"a.py": "A", "sub/b.py": "b", ".gitignore": "*.log\n", ".git/info/exclude": "", "target": "t"}
    )
    (work / "link").symlink_to("target")
    settle()
    first = bundle_workdir(work, cache_dir=cache)
    assert first.is_current()
    change(work)
    assert not first.is_current()
    if persisted:
        index._open_indexes.clear()
    settle()
    again = bundle_workdir(work, cache_dir=cache)
    assert again.bundle == bundle_workdir(work, cache_dir=tmp_path / "empty").bundle
    assert again.bundle.digest != first.bundle.digest
    assert again.left_out == bundle_workdir(work, cache_dir=tmp_path / "empty").left_out
    assert again.is_current()


def test_an_edit_within_the_clocks_tick_is_not_missed(tmp_path: Path) -> None:
    seen: set[str] = set()
    for number in range(10, 60):
        (tmp_path / "a.py").write_text(str(number))
        capture = bundle_workdir(tmp_path)
        assert contents(capture)["a.py"] == str(number)
        seen.add(capture.bundle.digest)
    assert len(seen) == 50


def test_a_fresh_capture_becomes_current_once_the_tick_has_passed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = bundle_workdir(tmp_path)
    settle()
    second = bundle_workdir(tmp_path)
    assert second.is_current()
    assert second.bundle == first.bundle


def test_an_edited_module_is_no_longer_current(tmp_path: Path, on_path: Callable[..., Reach]) -> None:
    write(tmp_path, {"bc_helper.py": "1", "bystander.py": ""})
    settle()
    capture = bundle_modules(on_path("bc_helper", path=[tmp_path]))
    (tmp_path / "bystander.py").write_text("what is not captured does not matter")
    assert capture.is_current()
    (tmp_path / "bc_helper.py").write_text("2")
    assert not capture.is_current()


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, cache = tmp_path / "work", tmp_path / "cache"
    write(work, {f"m{number}.py": str(number) for number in range(20)})
    settle()
    first = bundle_workdir(work, cache_dir=cache)
    index._open_indexes.clear()
    read: list[str] = []
    honest = index.hash_file

    def hash_file(path: str, entry: index.FileEntry) -> None:
        read.append(os.path.basename(path))
        honest(path, entry)

    monkeypatch.setattr(index, "hash_file", hash_file)
    (work / "m3.py").write_text("changed")
    again = bundle_workdir(work, cache_dir=cache)
    assert read == ["m3.py"]
    assert len(again.bundle.files) == len(first.bundle.files) == 20


@pytest.mark.parametrize("damage", [b"", b"torn", b"\0" * 500])
def test_a_damaged_index_costs_time_and_nothing_else(tmp_path: Path, damage: bytes) -> None:
    work, cache = tmp_path / "work", tmp_path / "cache"
    write(work, {"a.py": "1"})
    first = bundle_workdir(work, cache_dir=cache)
    for file in (cache / "index").iterdir():
        file.write_bytes(damage)
    index._open_indexes.clear()
    assert bundle_workdir(work, cache_dir=cache).bundle == first.bundle


def test_a_cache_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    write(tmp_path, {"work/a.py": "1", "occupied": "a file, no folder"})
    assert len(bundle_workdir(tmp_path / "work", cache_dir=tmp_path / "occupied").bundle.files) == 1


def test_too_much_is_refused_before_it_is_read_naming_the_biggest(tmp_path: Path) -> None:
    for name, size in {"a.bin": 4_000_000_000, "b.bin": 300_000, "c.py": 10}.items():
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    with pytest.raises(
        SizeLimitExceeded, match=r"4\.0 GB.*a\.bin \(4\.0 GB\), b\.bin \(300 kB\), c\.py"
    ) as caught:
        bundle_workdir(tmp_path)
    assert "bundle_size_limit" in str(caught.value)
    assert "custom_file_filter" in caught.value.hint


def test_a_working_directory_that_is_none_is_an_error_of_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="include_local_workdir"):
        bundle_workdir(tmp_path / "absent")


names = st.text("abc.", min_size=1, max_size=3).filter(lambda name: name.strip("."))
edits = st.lists(st.tuples(names, names, st.integers(0, 2)), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(edits, min_size=1, max_size=4))
def test_any_history_of_edits_ends_in_what_a_first_capture_finds(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, str, int]]]
) -> None:
    root = tmp_path_factory.mktemp("history")
    work, cache = root / "work", root / "cache"
    work.mkdir()
    for number, batch in enumerate(rounds):
        for folder, name, kind in batch:
            path = work / folder / name
            if kind == 0:
                shutil.rmtree(work / folder, ignore_errors=True)
            elif not (work / folder).exists() or (work / folder).is_dir():
                path.parent.mkdir(exist_ok=True)
                path.write_text(f"{number if kind == 1 else ''}")
        kept = bundle_workdir(work, cache_dir=cache)
        anew = bundle_workdir(work, cache_dir=root / f"cache{number}")
        assert kept.bundle == anew.bundle
        expected = {
            str(path.relative_to(work)): path.read_text() for path in work.rglob("*") if path.is_file()
        }
        assert contents(kept) == expected
