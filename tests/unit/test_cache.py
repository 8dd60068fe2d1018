"""The cache against a set, against rot, against crashes between any two file operations, against pruning."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from remote_exec.model.errors import ProtocolError
from remote_exec.worker.blobs import BlobMissing, BlobStore, digest_of

# everything is old enough for it
NO_GRACE = -100.0
BIG = bytes(range(256)) * 1000


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def rot(blobs: BlobStore, digest: str) -> None:
    """Change one bit, as a disk does or a user who writes into a hard link."""
    path = blobs.path(digest)
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    os.utime(path, ns=(time.time_ns(), 1))


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_bytes_files_and_chunks_come_back_under_one_digest(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BIG)
    digest = digest_of(BIG)
    assert blobs.missing([digest, digest]) == [digest]
    contents: list[Any] = [BIG, bytearray(BIG), memoryview(BIG), tmp_path / "file", iter([BIG[:9], BIG[9:]])]
    for content in contents:
        for durable in (True, False):
            assert blobs.put(content, durable=durable) == digest
            content = BIG  # an iterator is used up
    assert blobs.missing([digest]) == []
    assert blobs.read(digest) == BIG
    with blobs.open(digest) as file:
        assert file.read() == BIG
    assert stat.S_IMODE(blobs.path(digest).stat().st_mode) == 0o444
    assert [(info.digest, info.size_bytes) for info in blobs.ls()] == [(digest, len(BIG))]
    stats = blobs.stats()
    assert (stats.blobs, stats.size_bytes, stats.incoming_bytes) == (1, len(BIG), 0)


@pytest.mark.parametrize("content", [b"small", BIG], ids=["small", "big"])
@pytest.mark.parametrize("way", ["read", "open", "path", "link_to", "missing", "put"])
def test_a_corrupt_blob_is_dropped_and_reported_as_missing(
    blobs: BlobStore, tmp_path: Path, content: bytes, way: str
) -> None:
    digest = blobs.put(content)
    rot(blobs, digest)
    ways: dict[str, Callable[[], Any]] = {
        "read": lambda: blobs.read(digest),
        "open": lambda: blobs.open(digest),
        "path": lambda: blobs.path(digest),
        "link_to": lambda: blobs.link_to(digest, tmp_path / "target"),
    }
    if way in ways:
        with pytest.raises(BlobMissing) as caught:
            ways[way]()
        assert caught.value.digests == (digest,)
    elif way == "missing":
        assert blobs.missing([digest], verify=True) == [digest]
    blobs.put(content, durable=False)
    assert blobs.read(digest) == content
    assert not (tmp_path / "target").exists()


def test_a_digest_is_checked_before_it_becomes_a_path(blobs: BlobStore) -> None:
    for digest in ("", "sha256:", "sha256:../../etc/passwd", "md5:" + "a" * 64, "sha256:" + "A" * 64):
        with pytest.raises(ProtocolError, match="not a blob's digest"):
            blobs.missing([digest])


def test_an_upload_goes_on_where_it_broke_off(blobs: BlobStore) -> None:
    digest = digest_of(BIG)
    first = blobs.put_stream(digest)
    first.write(BIG[:1000])
    rival = blobs.put_stream(digest)
    assert rival.offset == 0, "the second of two begins from nothing"
    first.suspend()
    second = blobs.put_stream(digest)
    assert second.offset == 1000
    second.write(BIG[1000:])
    second.commit()
    assert blobs.read(digest) == BIG
    rival.write(BIG)
    rival.commit()
    assert blobs.read(digest) == BIG
    assert blobs.stats().incoming_bytes == 0


def test_an_upload_of_other_bytes_is_refused_and_dropped(blobs: BlobStore) -> None:
    digest = digest_of(b"right")
    upload = blobs.put_stream(digest)
    upload.write(b"wrong")
    with pytest.raises(ProtocolError, match=f"5 bytes came for {digest}"):
        upload.commit()
    upload.abort()
    assert blobs.missing([digest]) == [digest]
    again = blobs.put_stream(digest)
    assert again.offset == 0
    again.abort()


def test_links_are_read_only_share_bytes_and_fall_back_to_copies(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = blobs.put(b"#!/bin/sh\nexit 7\n")
    blobs.link_to(digest, tmp_path / "plain")
    blobs.link_to(digest, tmp_path / "script", executable=True)
    assert (tmp_path / "plain").stat().st_ino == blobs.path(digest).stat().st_ino
    assert os.waitstatus_to_exitcode(os.system(str(tmp_path / "script"))) == 7
    with pytest.raises(FileExistsError):
        blobs.link_to(digest, tmp_path / "plain")

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", no_links)
    blobs.link_to(digest, tmp_path / "copy")
    blobs.link_to(digest, tmp_path / "copied script", executable=True)
    with pytest.raises(FileExistsError):
        blobs.link_to(digest, tmp_path / "copy")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir() if path.is_file()}
    assert modes == {"plain": 0o444, "script": 0o555, "copy": 0o444, "copied script": 0o555}
    assert (tmp_path / "copy").read_bytes() == b"#!/bin/sh\nexit 7\n"


def test_links_can_be_made_while_others_store_the_same_anew(blobs: BlobStore, tmp_path: Path) -> None:
    def work(number: int) -> int:
        for again in range(60):
            store = BlobStore(blobs.folder)  # as another process has it
            store.link_to(store.put(BIG), tmp_path / f"{number}-{again}", executable=True)
        return number

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(work, range(6))) == list(range(6))


def test_pruning_takes_the_least_recently_used_but_no_root_and_nothing_fresh(
    blobs: BlobStore, tmp_path: Path
) -> None:
    digests = [blobs.put(bytes([number]) * 1000) for number in range(6)]
    for age, digest in enumerate(reversed(digests)):
        os.utime(blobs.path(digest), (time.time() - 10_000 * (age + 1), 1))
    blobs = BlobStore(blobs.folder)
    blobs.link_to(digests[0], tmp_path / "bundle")
    assert blobs.missing([digests[1]]) == []  # promised to somebody just now
    removed = blobs.prune(limit_bytes=4000, roots=[digests[2]])
    assert removed == (digests[3], digests[4])
    assert blobs.prune(limit_bytes=0, roots=[digests[2]]) == (digests[5],)
    assert blobs.missing(digests) == digests[3:]


def test_pruning_leaves_living_uploads_and_takes_abandoned_ones(blobs: BlobStore) -> None:
    living, dead = digest_of(b"living"), digest_of(b"dead")
    upload = blobs.put_stream(living)
    upload.write(b"liv")
    abandoned = blobs.put_stream(dead)
    abandoned.write(b"de")
    abandoned.suspend()
    blobs.prune(limit_bytes=1 << 30)
    assert blobs.stats().incoming_bytes == 5, "within the grace period both stay"
    blobs.prune(limit_bytes=1 << 30, grace_seconds=NO_GRACE)
    assert blobs.stats().incoming_bytes == 3
    upload.write(b"ing")
    upload.commit()
    assert blobs.read(living) == b"living"


def test_what_is_not_missing_is_there_however_much_is_pruned_meanwhile(blobs: BlobStore) -> None:
    contents = {blobs.put(b"%d" % n, durable=False): b"%d" % n for n in range(50)}
    stop = threading.Event()

    def prune_always() -> None:
        while not stop.is_set():
            blobs.prune(limit_bytes=0)

    pruner = threading.Thread(target=prune_always)
    pruner.start()
    try:
        kept = lost = 0
        for _ in range(20):
            for digest, content in contents.items():
                blobs.put(content, durable=False)
                assert blobs.read(digest) == content
                os.utime(blobs.path(digest), (1, 1))
                if blobs.missing([digest]):
                    lost += 1
                else:
                    kept += 1
                    assert blobs.read(digest) == content
    finally:
        stop.set()
        pruner.join()
    assert kept


OPERATIONS = (
    "open",
    "write",
    "fsync",
    "fchmod",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "utime",
    "stat",
    "close",
)


def crash_at(number: int, story: Callable[[], None]) -> bool:
    """Run a story in a child that ends without a word at its n-th file operation; False when it had fewer."""
    child = os.fork()
    if child == 0:
        left = number

        def crashing(call: Callable[..., Any]) -> Callable[..., Any]:
            def instead(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os._exit(9)
                return call(*arguments, **named)

            return instead

        for name in OPERATIONS:
            setattr(os, name, crashing(getattr(os, name)))
        try:
            story()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), "the story itself failed"
    return code == 9


def test_a_crash_between_any_two_file_operations_leaves_every_blob_whole(tmp_path: Path) -> None:
    contents = {digest_of(content): content for content in (b"first", b"second" * 100, BIG)}
    one, two, three = contents

    def story() -> None:
        blobs = BlobStore(folder)
        blobs.put(contents[one])
        blobs.put(contents[one], durable=False)
        upload = blobs.put_stream(two)
        upload.write(contents[two][upload.offset :][:50])
        upload.write(contents[two][upload.offset :])
        upload.commit()
        blobs.link_to(one, folder.with_suffix(f".link{time.monotonic_ns()}"))
        blobs.link_to(two, folder.with_suffix(f".link{time.monotonic_ns()}"), executable=True)
        blobs.put(iter([contents[three]]))
        blobs.prune(limit_bytes=0, grace_seconds=NO_GRACE)
        blobs.put(contents[three], durable=False)

    number, crashed = 0, True
    while crashed:
        number += 1
        folder = tmp_path / f"{number}"
        crashed = crash_at(number, story)
        blobs = BlobStore(folder)
        for info in blobs.ls():
            assert blobs.read(info.digest) == contents[info.digest]
        for link in tmp_path.glob(f"{number}.link*"):
            assert link.read_bytes() in (contents[one], contents[two])
        story()
        blobs.prune(limit_bytes=1 << 30, grace_seconds=NO_GRACE)
        assert not files_in(folder / "incoming")
        assert blobs.read(three) == BIG
    assert number > 60, "the story has many operations"


CONTENTS = [bytes([number]) * 10 * (number + 1) for number in range(5)] + [BIG, b""]
WHICH = st.integers(0, len(CONTENTS) - 1).map(lambda number: CONTENTS[number])


class CacheAgreesWithASet(RuleBasedStateMachine):
    """Whatever is put, spoilt, pruned and reopened: each blob is its bytes or missing."""

    folder: Path

    @initialize()
    def begin(self) -> None:
        self.path = self.folder / f"{len(os.listdir(self.folder))}"
        self.blobs = BlobStore(self.path)
        self.there: set[bytes] = set()
        self.rotten: set[bytes] = set()

    @rule(content=WHICH, durable=st.booleans())
    def put(self, content: bytes, durable: bool) -> None:
        self.blobs.put(content, durable=durable)
        self.there.add(content)
        self.rotten.discard(content)

    @rule(content=WHICH, cut=st.integers(0, 100))
    def upload(self, content: bytes, cut: int) -> None:
        upload = self.blobs.put_stream(digest_of(content))
        upload.write(content[upload.offset :][:cut])
        if upload.offset < len(content):
            upload.suspend()
            return
        upload.commit()
        self.there.add(content)
        self.rotten.discard(content)

    @rule(content=WHICH)
    def spoil(self, content: bytes) -> None:
        if content and content in self.there - self.rotten:
            rot(self.blobs, digest_of(content))
            self.rotten.add(content)

    @rule(content=WHICH)
    def read(self, content: bytes) -> None:
        if content in self.there - self.rotten:
            assert self.blobs.read(digest_of(content)) == content
            return
        with pytest.raises(BlobMissing):
            self.blobs.read(digest_of(content))
        self.there.discard(content)
        self.rotten.discard(content)

    @rule(roots=st.sets(WHICH), limit=st.integers(0, 300))
    def prune(self, roots: set[bytes], limit: int) -> None:
        kept = [digest_of(content) for content in roots]
        removed = self.blobs.prune(limit_bytes=limit, roots=kept, grace_seconds=NO_GRACE)
        gone = {content for content in self.there if digest_of(content) in removed}
        assert not gone & roots
        self.there -= gone
        self.rotten -= gone
        assert sum(map(len, self.there - roots)) <= limit

    @rule()
    def reopen(self) -> None:
        self.blobs = BlobStore(self.path)

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "there"):
            assert {info.digest for info in self.blobs.ls()} == {digest_of(content) for content in self.there}


def test_the_cache_agrees_with_a_set(tmp_path: Path) -> None:
    CacheAgreesWithASet.folder = tmp_path
    run_state_machine_as_test(
        CacheAgreesWithASet,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
