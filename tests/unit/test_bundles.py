"""Bundles become folders once, whole, and never outside of their folder."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_exec.agent.bundles import check_paths, materialise, prune
from remote_exec.model.bundle import Bundle, BundleFile
from remote_exec.model.errors import ProtocolError
from remote_exec.worker.blobs import BlobMissing, BlobStore

TREE = {"pkg/__init__.py": b"", "pkg/deep/er/data.bin": bytes(range(256)), "run.sh": b"#!/bin/sh\n"}


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def bundle_of(blobs: BlobStore, tree: dict[str, bytes]) -> Bundle:
    return Bundle(
        files=tuple(
            BundleFile(
                path=path,
                digest=blobs.put(content, durable=False),
                size=len(content),
                executable=path.endswith(".sh"),
            )
            for path, content in tree.items()
        )
    )


def tree_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def named(*paths: str, **fields: tuple[str, ...]) -> Bundle:
    files = tuple(BundleFile(path=path, digest="sha256:" + "0" * 64, size=1) for path in paths)
    return Bundle(files=files, **fields)


def test_a_bundle_is_unpacked_once_and_read_only(blobs: BlobStore, tmp_path: Path) -> None:
    bundle = bundle_of(blobs, TREE)
    root = materialise(bundle, blobs, tmp_path / "bundles")
    assert tree_of(root) == TREE
    assert bundle.digest.removeprefix("sha256:") in root.name
    modes = {path: stat.S_IMODE((root / path).stat().st_mode) for path in TREE}
    assert modes == {"pkg/__init__.py": 0o444, "pkg/deep/er/data.bin": 0o444, "run.sh": 0o555}
    marker = root / "__pycache__"
    marker.mkdir()
    assert materialise(bundle, blobs, tmp_path / "bundles") == root
    assert marker.exists()
    assert os.listdir(tmp_path / "bundles") == [root.name]
    assert tree_of(materialise(Bundle(), blobs, tmp_path / "bundles")) == {}


def test_many_at_once_get_the_same_whole_folder(blobs: BlobStore, tmp_path: Path) -> None:
    bundle = bundle_of(blobs, {f"p{n % 7}/m{n}.py": b"%d" % n for n in range(200)})
    gate, found = threading.Barrier(6), list[tuple[Path, int]]()

    def unpack() -> None:
        gate.wait()
        root = materialise(bundle, BlobStore(blobs.folder), tmp_path / "bundles")
        found.append((root, len(tree_of(root))))

    threads = [threading.Thread(target=unpack) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {(found[0][0], 200)}
    assert len(found) == 6
    assert os.listdir(tmp_path / "bundles") == [found[0][0].name]


def test_missing_and_corrupt_blobs_are_named_and_leave_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    bundle = bundle_of(blobs, TREE)
    corrupt = bundle.files[1].digest
    os.chmod(blobs.path(corrupt), 0o600)
    blobs.path(corrupt).write_bytes(b"rotten")
    for _ in range(2):  # found corrupt, then found missing
        with pytest.raises(BlobMissing) as caught:
            materialise(bundle, blobs, tmp_path / "bundles")
        assert caught.value.digests == (corrupt,)
    assert os.listdir(tmp_path / "bundles") == []
    blobs.put(TREE["pkg/deep/er/data.bin"])
    assert tree_of(materialise(bundle, blobs, tmp_path / "bundles")) == TREE


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["/etc/passwd"], "absolute"),
        (["../up"], "must be a name"),
        (["a/../../up"], "must be a name"),
        (["a//b"], "must be a name"),
        (["./a"], "must be a name"),
        (["a/"], "must be a name"),
        ([""], "must be a name"),
        (["a\0b"], "NUL"),
        (["\ud800"], "cannot be encoded"),
        (["x" * 256], "too long"),
        (["x/" * 2000 + "x"], "too long"),
        (["a", "a"], "twice"),
        (["a", "a/b/c"], "a file and a folder"),
        (["a/b/c", "a/b"], "a file and a folder"),
    ],
)
def test_a_path_that_could_lead_elsewhere_is_refused_before_anything_is_written(
    blobs: BlobStore, tmp_path: Path, paths: list[str], reason: str
) -> None:
    with pytest.raises(ProtocolError, match=reason):
        materialise(named("innocent.py", *paths), blobs, tmp_path / "bundles")
    assert os.listdir(tmp_path / "bundles") == []


def test_an_import_root_that_leads_elsewhere_is_refused() -> None:
    assert check_paths(named("src/a.py", import_roots=(".", "src"))) == ["src"]
    with pytest.raises(ProtocolError, match=r"import root '\.\./x'"):
        check_paths(named("a.py", import_roots=("../x",)))


@given(st.lists(st.text("ab./\0", max_size=6), max_size=5))
def test_any_manifest_is_refused_or_can_be_written_inside(paths: list[str]) -> None:
    try:
        folders = check_paths(named(*paths))
    except ProtocolError:
        return
    made = {"."}
    for folder in folders:
        assert os.path.dirname(folder) in made | {""}
        made.add(folder)
    assert len(set(paths)) == len(paths)
    assert not made & set(paths)
    for path in paths:
        assert os.path.normpath(path) == path
        assert not os.path.isabs(path)
        assert ".." not in path.split("/")


def test_pruning_keeps_roots_the_fresh_and_what_is_being_unpacked(blobs: BlobStore, tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    bundles = [bundle_of(blobs, {"m.py": b"%d" % n}) for n in range(5)]
    roots = [materialise(bundle, blobs, folder) for bundle in bundles]
    for age, root in enumerate(reversed(roots)):
        os.utime(root, (1, time.time() - 10_000 * (age + 1)))
    (folder / ".0000.tmp" / "half").mkdir(parents=True)
    os.utime(folder / ".0000.tmp", (1, 1))
    materialise(bundles[0], blobs, folder)
    removed = prune(folder, limit=2, roots=[bundles[1].digest])
    assert removed == (roots[2].name, roots[3].name)
    assert sorted(os.listdir(folder)) == sorted(roots[n].name for n in (0, 1, 4))
    assert tree_of(materialise(bundles[2], blobs, folder)) == {"m.py": b"2"}
    assert prune(tmp_path / "nowhere", limit=0) == ()


def test_five_thousand_files_are_unpacked_quickly(blobs: BlobStore, tmp_path: Path) -> None:
    bundle = bundle_of(blobs, {f"pkg{n % 50}/module_{n}.py": b"%d" % (n % 500) for n in range(5000)})
    begin = time.perf_counter()
    materialise(bundle, blobs, tmp_path / "bundles")
    # a quarter of a second when the machine is quiet
    assert time.perf_counter() - begin < 3
