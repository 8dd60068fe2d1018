"""Folders of data: what is found is what is laid out, whatever it is called; what would lead out is refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_exec.agent.trees import blobs_of, check, mount, read
from remote_exec.capture.data import find
from remote_exec.errors import ProtocolError
from remote_exec.model.bundle import BundleFile
from remote_exec.model.tree import Tree
from remote_exec.worker.blobs import BlobMissing, BlobStore
from remote_exec.worker.folders import stays_inside
from remote_exec.worker.holding import Holder, held_in
from remote_exec.worker.unpacked import prune

NAMES = st.one_of(
    st.sampled_from(["a", "b", "c", ".git", "__pycache__", "x.pyc", ".gitignore", "ä", "a b", "-", "'\""]),
    st.binary(min_size=1, max_size=6).map(os.fsdecode).filter(lambda name: not {"/", "\0"} & set(name)),
).filter(lambda name: name not in (".", ".."))
CONTENTS = st.tuples(st.binary(max_size=100), st.booleans())
FOLDERS = st.recursive(
    st.just({}) | st.dictionaries(NAMES, CONTENTS, max_size=3),
    lambda inner: st.dictionaries(
        NAMES, CONTENTS | inner | NAMES.map(lambda name: ("link", name)), max_size=4
    ),
    max_leaves=12,
)


def write(folder: Path, what: dict[str, Any]) -> None:
    folder.mkdir()
    for name, found in what.items():
        path = folder / name
        if isinstance(found, dict):
            write(path, found)
        elif found[0] == "link":
            path.symlink_to(found[1])
        else:
            path.write_bytes(found[0])
            path.chmod(0o755 if found[1] else 0o644)


def content(folder: Path) -> dict[str, Any]:
    """Return what is in a folder; of links, where they lead."""
    found: dict[str, Any] = {}
    for entry in os.scandir(folder):
        if entry.is_symlink():
            found[entry.name] = os.readlink(entry.path)
        elif entry.is_dir():
            found[entry.name] = content(Path(entry.path))
        else:
            executable = bool(entry.stat().st_mode & stat.S_IXUSR)
            found[entry.name] = (Path(entry.path).read_bytes(), executable)
    return found


def store(path: Path, blobs: BlobStore) -> str:
    """Put a folder's tree among blobs, and return its digest."""
    source = find(path, cache_dir=None)
    for file in source.paths.values():
        blobs.put(Path(file), durable=False)
    return blobs.put(source.tree.manifest, durable=False)


@given(FOLDERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_found_is_what_is_laid_out(
    tmp_path_factory: pytest.TempPathFactory, what: dict[str, Any]
) -> None:
    base = tmp_path_factory.mktemp("t")
    home = base / "data"
    write(home, what)
    blobs = BlobStore(base / "blobs")
    digest = store(home, blobs)
    tree = Tree.of(blobs.read(digest))
    assert (tree.digest, find(home, cache_dir=None).tree) == (digest, tree)
    place = mount(digest, blobs, base / "trees")
    assert os.listdir(place) == ["data"]
    assert content(place / "data") == content(home)
    assert mount(digest, blobs, base / "trees") == place


@given(
    st.lists(st.sampled_from(["..", "a", "b", ".", ""]), max_size=5).map("/".join),
    st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3).map("/".join),
)
def test_a_link_that_is_kept_stays_inside_wherever_others_lead(target: str, place: str) -> None:
    path = f"data/{place}"
    if stays_inside(path, target):
        assert f"/{os.path.normpath(os.path.join(os.path.dirname(path), target))}/".startswith("/data")


def file(path: str) -> BundleFile:
    return BundleFile(path=path, digest=f"sha256:{'0' * 64}", size=1)


@pytest.mark.parametrize(
    "tree",
    [
        Tree(folders=("a",), files=(file("../b"),)),
        Tree(folders=("a",), files=(file("/a/b"),)),
        Tree(folders=("a",), files=(file("a/./b"),)),
        Tree(folders=("a",), files=(file("a/b"), file("a/b"))),
        Tree(folders=("a", "a/b"), files=(file("a/b"),)),
        Tree(folders=("a",), files=(file("a/b"),), links=(("a/b", "c"),)),
        Tree(folders=("a",), files=(file("a/l/b"),), links=(("a/l", "c"),)),
        Tree(folders=("a", "a/l", "a/l/x"), links=(("a/l", "c"),)),
        Tree(folders=("a",), links=(("a/l", "../../etc"),)),
        Tree(folders=("a",), links=(("a/l", "/etc"),)),
        Tree(folders=("a",), links=(("a/l", "b/../../.."),)),
        Tree(folders=("a", "b")),
        Tree(folders=("a",), files=(file("b"),)),
        Tree(folders=("a",), files=(file("a/b/c"),)),
        Tree(folders=("a/b", "a")),
        Tree(folders=("a", "a")),
        Tree(folders=("a", "a/..")),
        Tree(),
    ],
    ids=str,
)
def test_a_manifest_that_leads_out_or_clashes_is_refused(tree: Tree) -> None:
    with pytest.raises(ProtocolError):
        check(tree)


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[1]", b'[9,["a"],[],[]]', b"[1,[7],[],[]]", b"\xff"])
def test_what_is_no_manifest_is_refused(manifest: bytes) -> None:
    with pytest.raises(ProtocolError):
        Tree.of(manifest)


def test_what_is_missing_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    write(tmp_path / "data", {"a": (b"a", False), "b": (b"b", True)})
    blobs = BlobStore(tmp_path / "blobs")
    source = find(tmp_path / "data", cache_dir=None)
    with pytest.raises(BlobMissing) as missing:
        mount(source.tree.digest, blobs, tmp_path / "trees")
    assert missing.value.digests == (source.tree.digest,)
    blobs.put(source.tree.manifest)
    with pytest.raises(BlobMissing) as missing:
        mount(source.tree.digest, blobs, tmp_path / "trees")
    assert set(missing.value.digests) == set(source.paths)
    assert not list((tmp_path / "trees").iterdir())


@pytest.mark.parametrize("name", ["a", "b"])
def test_what_was_written_to_is_found_out_and_laid_out_anew(tmp_path: Path, name: str) -> None:
    write(tmp_path / "data", {"a": (b"a", False), "b": (b"b", True)})
    blobs = BlobStore(tmp_path / "blobs")
    digest = store(tmp_path / "data", blobs)
    damaged = mount(digest, blobs, tmp_path / "trees") / "data" / name
    damaged.chmod(0o755)
    damaged.write_bytes(b"x")
    with pytest.raises(BlobMissing) if name == "a" else open(os.devnull):  # of b, a copy was written to
        mount(digest, blobs, tmp_path / "trees")
    store(tmp_path / "data", blobs)
    assert content(mount(digest, blobs, tmp_path / "trees") / "data") == content(tmp_path / "data")


def test_what_a_living_process_holds_stays(tmp_path: Path) -> None:
    write(tmp_path / "data", {"a": (b"a", False)})
    blobs = BlobStore(tmp_path / "blobs")
    place = mount(store(tmp_path / "data", blobs), blobs, tmp_path / "trees")
    users = tmp_path / "users"
    code = (
        "import sys\nfrom pathlib import Path\nfrom remote_exec.worker.holding import Holder\n"
        "Holder(Path(sys.argv[1])).hold(sys.argv[2])\nprint('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(users), place.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"held\n"
        mine = Holder(users)
        mine.hold("another")
        assert held_in(users) == {place.name, "another"}
        mine.let_go()
        assert held_in(users) == {place.name}
        process.stdin.close()
    assert held_in(users) == frozenset()
    assert not list(users.iterdir())


def test_pruning_removes_read_only_folders_and_frees_their_blobs(tmp_path: Path) -> None:
    write(tmp_path / "data", {"a": (b"a", False), "deep": {"b": (b"b", False)}})
    blobs = BlobStore(tmp_path / "blobs")
    digest = store(tmp_path / "data", blobs)
    place = mount(digest, blobs, tmp_path / "trees")
    needed = blobs_of([digest], blobs)
    assert needed == {digest, *find(tmp_path / "data", cache_dir=None).paths}
    old = time.time() - 100
    os.utime(place, (old, old))
    assert prune(tmp_path / "trees", limit=0, roots=[digest], grace_seconds=10) == ()
    assert prune(tmp_path / "trees", limit=0, grace_seconds=10) == (place.name,)
    assert not list((tmp_path / "trees").iterdir())
    assert set(blobs.prune(limit_bytes=0, roots=needed, grace_seconds=-1)) == set()
    assert set(blobs.prune(limit_bytes=0, grace_seconds=-1)) == needed
    with pytest.raises(BlobMissing):
        read(digest, blobs)
