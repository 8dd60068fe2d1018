"""A job's log: all of it while it is small, its beginning and its end when it is not."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_exec.worker.joblog import STREAMS, LogReader, LogRecord, LogWriter

RECORDS = st.lists(
    st.builds(
        LogRecord,
        st.floats(allow_nan=False),
        st.sampled_from([stream for stream in STREAMS if stream != "gap"]),
        st.binary(max_size=300),
        st.integers(0, 2**32 - 1),
    ),
    max_size=20,
)


def everything(reader: LogReader, offset: int = 0) -> list[LogRecord]:
    found: list[LogRecord] = []
    while True:
        records, offset = reader.read(offset, limit_bytes=1)
        if not records:
            return found
        found += records


def on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.iterdir())


@given(batches=st.lists(RECORDS, max_size=6))
def test_what_was_appended_is_read_by_whoever_follows(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[LogRecord]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    reader, offset = LogReader(path), 0
    assert reader.read(0) == ([], 0)
    for batch in batches:
        with LogWriter(path) as writer:  # opened anew each time, as after an agent's death
            writer.append(batch)
        records, offset = reader.read(offset)
        assert records == batch
    assert everything(reader) == [record for batch in batches for record in batch]


@given(cut=st.integers(1, 100), garbage=st.binary(max_size=50))
def test_a_torn_tail_costs_only_the_torn_record(
    tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    records = [LogRecord(float(n), "out", b"%d\n" % n * 12) for n in range(6)]
    with LogWriter(path) as writer:
        writer.append(records)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size - cut] + garbage)
    before = everything(LogReader(path))
    assert before == records[: len(before)]
    assert len(before) >= 6 - 1 - cut // 44
    assert LogReader(path).tail_lines(1) == ([str(len(before) - 1)] if before else [])
    with LogWriter(path) as writer:
        writer.append([records[0]])
    assert everything(LogReader(path)) == [*before, records[0]]


def test_a_flood_keeps_its_beginning_and_its_end_on_bounded_disk(tmp_path: Path) -> None:
    path = tmp_path / "log"
    limit = 256 << 10
    lines = [b"line %06d\n" % n for n in range(100_000)]
    printed = b"".join(lines)
    with LogWriter(path, limit_bytes=limit) as writer:
        for start in range(0, len(lines), 50):
            writer.append([LogRecord(1.0, "out", b"".join(lines[start : start + 50]))])
            assert on_disk(path) <= limit
    records = everything(LogReader(path))
    gap = [record.stream for record in records].index("gap")
    head = b"".join(record.data for record in records[:gap])
    tail = b"".join(record.data for record in records[gap + 1 :])
    assert len(head) > limit * 0.4
    assert len(tail) > limit * 0.2
    assert printed.startswith(head)
    assert printed.endswith(tail)
    left_out = len(printed) - len(head) - len(tail)
    assert records[gap].data == f"[{left_out:,} bytes left out]\n".encode()
    assert LogReader(path).tail_lines(3) == ["line 099997", "line 099998", "line 099999"]


def test_a_slow_follower_is_told_what_it_missed_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader, offset, seen = LogReader(path), 0, list[LogRecord]()
    with LogWriter(path, limit_bytes=16 << 10) as writer:
        for number in range(3000):
            writer.write("out", b"%05d" % number)
            if number % 700 == 0 or number >= 2900:
                records, offset = reader.read(offset)
                seen += records
    numbers = [int(record.data) for record in seen if record.stream == "out"]
    assert numbers == sorted(set(numbers))
    assert numbers[-100:] == list(range(2900, 3000))
    assert any(record.stream == "gap" for record in seen)


def test_a_rotated_log_goes_on_after_the_writers_death(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for start in range(0, 3000, 100):
        writer = LogWriter(path, limit_bytes=16 << 10)
        for number in range(start, start + 100):
            writer.write("out", b"%05d\n" % number)
        writer.close()
    records = everything(LogReader(path))
    kept = [int(record.data) for record in records if record.stream == "out"]
    (gap,) = [record for record in records if record.stream == "gap"]
    assert gap.data == f"[{(3000 - len(kept)) * 6:,} bytes left out]\n".encode()
    assert kept[0] == 0
    assert kept[-150:] == list(range(2850, 3000))


def test_the_last_lines_are_put_together_by_stream(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert LogReader(path).tail_lines(5) == []
    with LogWriter(path) as writer:
        for stream, data in (
            ("out", b"one\ntw"),
            ("err", b"Trace"),
            ("event", b"{}\n"),
            ("out", b"o\nthree"),
            ("err", "back ü\n".encode()),
            ("log", b"\xff\n"),
        ):
            writer.append([LogRecord(1.0, stream, data)])  # type: ignore[arg-type]
    reader = LogReader(path)
    assert reader.tail_lines(10) == ["one", "two", "Traceback ü", "\ufffd", "three"]
    assert reader.tail_lines(2) == ["\ufffd", "three"]
    assert reader.tail_lines(0) == []


WRITER = """
import sys
from remote_exec.worker.joblog import LogWriter
with LogWriter(sys.argv[1], limit_bytes=64 << 10) as log:
    number = 0
    while True:
        log.write("out", b"%09d\\n" % number)
        number += 1
        if number % 100 == 0:
            print(number, flush=True)
"""


def test_another_process_reads_whole_records_while_they_are_written_and_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        reader, offset, numbers = LogReader(path), 0, list[int]()
        for _ in range(200):
            writer.stdout.readline()
            records, offset = reader.read(offset)
            numbers += [int(record.data) for record in records if record.stream == "out"]
        writer.send_signal(signal.SIGKILL)
        acknowledged = [int(line) for line in writer.stdout if line.endswith(b"\n")]
    numbers += [int(record.data) for record in everything(reader, offset) if record.stream == "out"]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    last = max(acknowledged, default=20_000)
    assert numbers[-1] >= last - 1
    assert int(reader.tail_lines(1)[0]) == numbers[-1]


def test_a_full_disk_is_said_and_leaves_the_log_readable(tmp_path: Path) -> None:
    path = tmp_path / "log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with LogWriter(path) as writer:
        writer.write("out", b"before\n")
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
            with pytest.raises(OSError, match="too large"):
                writer.write("out", b"x" * 5000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        writer.write("out", b"after\n")
    assert [record.data for record in everything(LogReader(path))] == [b"before\n", b"after\n"]
