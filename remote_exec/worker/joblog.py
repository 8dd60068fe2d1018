"""The log of one job or call: bounded on disk, cheap to append, readable by others while it is written.

::

    <path>        the head: how it began; filled once, to half of the limit
    <path>.a .b   the tail: two segments in turn, a quarter each; a new one takes the older one's name

    segment   magic 8 · offset where it starts 8 · where the head ends 8 · payload bytes between these two 8
    record    0xA5 · check 2 · stream 1 · length 4 · time 8 · call 4 · payload · length 4

An offset is a position in the log as if nothing had been left out: it only grows. The length after the
payload lets the last lines be found from behind. `check` is over the header only: whether a payload reached
the disk before the power went is the file system's promise, which cuts a file rather than show old blocks.
One process writes and owns the files, any number read. Secrets are not its business, nor is showing lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import zlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Literal, NamedTuple, cast, get_args

from ..model.record import record
from .atomic import StrPath, same_file, write_all

# a gap is never written, only told by a reader
Stream = Literal["out", "err", "log", "event", "gap"]
STREAMS: tuple[Stream, ...] = get_args(Stream)
LINE_STREAMS = frozenset[Stream](("out", "err", "log"))

LOG_NAME = "log"  # in the folder of a lease
LIMIT_BYTES = 16 << 20
SMALLEST_LIMIT_BYTES = 16 << 10
# longer payloads are parted, so that each record fits into any segment and any read
RECORD_BYTES = 64 << 10
READ_BYTES = 1 << 20
TAIL_BYTES = 256 << 10

_MARK = 0xA5
_MARK_AND_CHECK = struct.Struct("<BH")
_BODY = struct.Struct("<BIdI")
_LENGTH = struct.Struct("<I")
_HEADER_BYTES = _MARK_AND_CHECK.size + _BODY.size
_FRAME_BYTES = _HEADER_BYTES + _LENGTH.size
_SEGMENT_MAGIC = b"rxelog1\n"
_SEGMENT = struct.Struct("<8sQQQ")


class LogRecord(NamedTuple):
    """One piece of output. For the stream "gap", the payload is a line that says how much was left out."""

    time: float  # UTC, seconds since the epoch
    stream: Stream
    data: bytes
    call: int = 0  # its number on the lease, where one log serves several calls

    @property
    def event(self) -> dict[str, Any] | None:
        """For the streams "log" and "event": what happened; None for all others."""
        if self.stream not in ("log", "event"):
            return None
        try:
            found: object = json.loads(self.data)
        except ValueError:
            return None
        return cast("dict[str, Any]", found) if isinstance(found, dict) else None

    @property
    def text(self) -> str:
        """What people read of it: nothing of an event, and of a log record its line."""
        if self.stream == "event":
            return ""
        event = self.event
        return self.data.decode(errors="replace") if event is None else str(event.get("text", ""))


@record
class _Segment:
    """One file of a log, and where it lies in the whole."""

    descriptor: int
    # "" for the head, "a" or "b"
    name: str = ""
    start: int = 0
    head_end: int = 0
    # of the records between the head's end and this segment's start
    payload: int = 0

    @property
    def overhead(self) -> int:
        return _SEGMENT.size if self.name else 0

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, offset - self.start + self.overhead)

    @property
    def end(self) -> int:
        return self.start + os.fstat(self.descriptor).st_size - self.overhead


class LogWriter:
    """Appends to a log; opening one that exists goes on after its last whole record.

    Example::

        with LogWriter(path, limit_bytes=1 << 20) as log:
            log.append([LogRecord(time.time(), "out", b"hello\\n")])
    """

    def __init__(self, path: StrPath, *, limit_bytes: int = LIMIT_BYTES) -> None:
        """Open a log for writing.

        Args:
            path: the head's file, the tail's lie beside it; the folder exists.
            limit_bytes: how much all of it may take on disk; at least 16 KiB.
        """
        limit_bytes = max(limit_bytes, SMALLEST_LIMIT_BYTES)
        self._path = os.fspath(path)
        self._head_limit = limit_bytes // 2
        self._tail_limit = limit_bytes // 4
        self._record_limit = min(RECORD_BYTES, self._tail_limit // 4)
        self._closed = False
        segments = _open_segments(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self._segment = segments[-1]
        for segment in segments[:-1]:
            os.close(segment.descriptor)
        self._end, self._payload = _measure(self._segment)
        # a record that was torn by a crash would hide all that came after it
        os.ftruncate(self._segment.descriptor, self._end - self._segment.start + self._segment.overhead)

    def append(self, records: Iterable[LogRecord]) -> None:
        """Append records, usually with one system call.

        Raises:
            OSError: the disk is full or broken, and some may be lost; the log stays readable, and the next
                append may work.
        """
        pieces: list[bytes] = []
        size = payload = 0
        limit = self._room()
        for stamp, stream, data, call in records:
            for part in _parted(data, self._record_limit):
                if size + len(part) + _FRAME_BYTES > limit:
                    self._write(pieces, size=size, payload=payload)
                    self._rotate()
                    pieces, size, payload, limit = [], 0, 0, self._room()
                length = _LENGTH.pack(len(part))
                pieces += (_header(stamp, stream, len(part), call), part, length)
                size += len(part) + _FRAME_BYTES
                payload += len(part)
        self._write(pieces, size=size, payload=payload)

    def write(self, stream: Stream, data: bytes, *, call: int = 0) -> None:
        """Append one record, of now."""
        self.append([LogRecord(time.time(), stream, data, call)])

    def close(self) -> None:
        """Close the file; nothing was buffered. Twice does no harm."""
        if not self._closed:
            self._closed = True
            os.close(self._segment.descriptor)

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _room(self) -> int:
        used = self._end - self._segment.start + self._segment.overhead
        return (self._tail_limit if self._segment.name else self._head_limit) - used

    def _write(self, pieces: list[bytes], *, size: int, payload: int) -> None:
        if not size:
            return
        descriptor = self._segment.descriptor
        try:
            write_all(descriptor, b"".join(pieces))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self._end - self._segment.start + self._segment.overhead)
            raise
        self._end += size
        self._payload += payload

    def _rotate(self) -> None:
        """Go on in a new tail segment. It takes the older one's name; who reads that one keeps its bytes."""
        last = self._segment
        name = "b" if last.name == "a" else "a"
        head_end = last.head_end if last.name else self._end
        payload = last.payload + self._payload if last.name else 0
        temporary = f"{self._path}.new"
        flags = os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        try:
            write_all(descriptor, _SEGMENT.pack(_SEGMENT_MAGIC, self._end, head_end, payload))
            os.rename(temporary, f"{self._path}.{name}")
        except OSError:
            os.close(descriptor)
            raise
        os.close(last.descriptor)
        self._segment = _Segment(descriptor, name, self._end, head_end, payload)
        self._payload = 0


class LogReader:
    """Reads a log, also while another process writes it. It holds nothing open between two calls.

    Example::

        reader, offset = LogReader(path), 0
        records, offset = reader.read(offset)  # and again from there, when there may be more
    """

    def __init__(self, path: StrPath) -> None:
        """Read the log at `path`; one that does not exist (yet) is empty."""
        self._path = os.fspath(path)

    def read(self, offset: int = 0, *, limit_bytes: int = READ_BYTES) -> tuple[list[LogRecord], int]:
        """Return the next records, and where to go on; none means that there is nothing new.

        Args:
            offset: 0, or what the last call returned.
            limit_bytes: how much to return at most, though at least one record.
        """
        limit_bytes = max(limit_bytes, RECORD_BYTES + _FRAME_BYTES)
        with _opened(self._path) as segments:
            for segment, end in zip(segments, _ends(segments)):  # noqa: B905 - equal by construction
                if end is not None and offset >= end:
                    continue
                records: list[LogRecord] = []
                if offset < segment.start:
                    records.append(_gap(offset, segment))
                    offset = segment.start
                begin = offset
                for position, record in _parse(segment.read(begin, limit_bytes)):
                    records.append(record)
                    offset = begin + position
                if records or end is None:
                    return records, offset
                # a complete segment whose rest cannot be read must not hold up a reader for ever
                offset = end
        return [], offset

    def last_event(self, kind: str, *, call: int = 0) -> Any:
        """Return what the newest event of a kind told, of a call, or of any (0); None: none in the last 256 KiB."""
        size = 0
        with _opened(self._path) as segments:
            for segment in reversed(segments):
                for record in _parse_backwards(segment):
                    event = record.event if record.stream == "event" and call in (0, record.call) else None
                    if event is not None and kind in event:
                        return event[kind]
                    size += len(record.data)
                    if size >= TAIL_BYTES:
                        return None
        return None

    def tail_lines(self, count: int, *, call: int = 0) -> list[str]:
        """Return the last lines of stdout, stderr and logging, oldest first, of the last 256 KiB at most.

        Args:
            count: how many at most.
            call: of this call alone; 0: of any.
        """
        newest: list[LogRecord] = []
        lines = size = 0
        with _opened(self._path) as segments:
            following: int | None = None
            for segment in reversed(segments):
                # beyond a gap, lines would be joined that never were
                if following is not None and segment.end != following:
                    break
                following = segment.start
                for record in _parse_backwards(segment):
                    # each stream's oldest piece may begin within a line
                    if lines >= count + len(LINE_STREAMS) or size >= TAIL_BYTES:
                        break
                    size += len(record.data)
                    if record.stream in LINE_STREAMS and call in (0, record.call):
                        newest.append(record)
                        lines += record.data.count(b"\n")
        return _lines(reversed(newest))[-count:] if count > 0 else []


def _header(stamp: float, stream: Stream, length: int, call: int) -> bytes:
    body = _BODY.pack(STREAMS.index(stream), length, stamp, call)
    return _MARK_AND_CHECK.pack(_MARK, zlib.crc32(body) & 0xFFFF) + body


def _parted(data: bytes, limit: int) -> Iterable[bytes]:
    if len(data) <= limit:
        return (data,)
    return (data[start : start + limit] for start in range(0, len(data), limit))


def _parse_one(data: bytes, position: int) -> LogRecord | None:
    """The whole record at a position, or None."""
    start = position + _HEADER_BYTES
    if len(data) < start + _LENGTH.size:
        return None
    mark, check = _MARK_AND_CHECK.unpack_from(data, position)
    body = data[position + _MARK_AND_CHECK.size : start]
    if mark != _MARK or check != zlib.crc32(body) & 0xFFFF:
        return None
    number, length, stamp, call = _BODY.unpack(body)
    end = start + length
    if (
        len(data) < end + _LENGTH.size
        or _LENGTH.unpack_from(data, end)[0] != length
        or number >= len(STREAMS)
    ):
        return None
    return LogRecord(stamp, STREAMS[number], data[start:end], call)


def _parse(data: bytes) -> Iterator[tuple[int, LogRecord]]:
    """Whole records, each with where it ends; up to the first that is torn, or not yet written whole."""
    position = 0
    while record := _parse_one(data, position):
        position += len(record.data) + _FRAME_BYTES
        yield position, record


def _parse_backwards(segment: _Segment) -> Iterator[LogRecord]:
    """The last records of a segment, newest first, from a bounded part of it."""
    end = segment.end
    begin = max(segment.start, end - TAIL_BYTES - RECORD_BYTES - _FRAME_BYTES)
    data = segment.read(begin, end - begin)
    position = len(data)
    if _before(data, position) is None:
        # its end is torn, or just being written: find it from the front
        end, _ = _measure(segment)
        position = max(0, end - begin)
    while found := _before(data, position):
        position, record = found
        yield record


def _before(data: bytes, position: int) -> tuple[int, LogRecord] | None:
    """The record that ends at a position, and where it begins."""
    if position < _FRAME_BYTES:
        return None
    start = position - _LENGTH.unpack_from(data, position - _LENGTH.size)[0] - _FRAME_BYTES
    record = _parse_one(data, start) if start >= 0 else None
    return (start, record) if record else None


def _measure(segment: _Segment) -> tuple[int, int]:
    """Where a segment's last whole record ends, and how many payload bytes it holds."""
    end, payload, position = segment.start, 0, -1
    while position:
        position = 0
        for position, piece in _parse(segment.read(end, READ_BYTES)):  # noqa: B007 - the last one counts
            payload += len(piece.data)
        end += position
    return end, payload


def _lines(records: Iterable[LogRecord]) -> list[str]:
    """The lines of all streams in the order in which they ended; unfinished ones last."""
    lines: list[bytes] = []
    rests: dict[Stream, bytes] = {}
    for piece in records:
        data = piece.text.encode() if piece.stream == "log" else piece.data
        *whole, rest = (rests.pop(piece.stream, b"") + data).split(b"\n")
        lines += whole
        if rest:
            rests[piece.stream] = rest
    return [line.decode("utf-8", "replace") for line in (*lines, *rests.values())]


def _gap(offset: int, segment: _Segment) -> LogRecord:
    """What a reader at an offset is told that comes to a segment further on."""
    # exact where the head ends; a reader that fell behind later learns of it with the frames
    size = segment.payload if offset == segment.head_end else segment.start - offset
    return LogRecord(time.time(), "gap", f"[{size:,} bytes left out]\n".encode())


def _ends(segments: list[_Segment]) -> list[int | None]:
    """Where each segment ends for good; None for the last, which grows."""
    following = segments[1:]
    ends = [segment.end if segment.name else next_.head_end for segment, next_ in zip(segments, following)]  # noqa: B905
    return [*ends, None] if segments else []


@contextlib.contextmanager
def _opened(path: str) -> Generator[list[_Segment], None, None]:
    segments = _open_segments(path, os.O_RDONLY)
    try:
        yield segments
    finally:
        for segment in segments:
            os.close(segment.descriptor)


def _open_segments(path: str, flags: int) -> list[_Segment]:
    """Head and tail in order; without O_CREAT, a head that is missing means none at all."""
    while True:
        segments: list[_Segment] = []
        try:
            segments.append(_Segment(os.open(path, flags | os.O_CLOEXEC, 0o600)))
        except FileNotFoundError:
            return segments
        for name in ("a", "b"):
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(f"{path}.{name}", flags & ~os.O_CREAT | os.O_CLOEXEC)
                _, *fields = _SEGMENT.unpack(os.pread(descriptor, _SEGMENT.size, 0))
                segments.append(_Segment(descriptor, name, *fields))
        # the writer may have replaced one between two opens: what seems left out would be there
        if sum(os.path.exists(f"{path}.{name}") for name in ("a", "b")) == len(segments) - 1 and all(
            same_file(segment.descriptor, f"{path}.{segment.name}") for segment in segments[1:]
        ):
            return sorted(segments, key=lambda segment: segment.start)
        for segment in segments:
            os.close(segment.descriptor)
