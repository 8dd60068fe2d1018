"""What goes over a link goes by a thread of its own, where it takes long: a Ctrl-C must not wait for a slow link.

A message that is left goes no further than its chunk that is under way; a frame behind that says that no other
follows. So whoever leaves knows whether all of it goes: never is there a part of a call at the far end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..wire.frames import CUT, HEADER, MORE
from ..wire.stream import Buffer
from .interrupts import check

if TYPE_CHECKING:
    from ..wire.resumable import ResumableStream

LOOK_SECONDS = 0.05


class NotSentError(Exception):
    """Whoever sent a message was interrupted, and it will not arrive.

    Attributes:
        why: by what.
    """

    def __init__(self, why: BaseException) -> None:
        super().__init__(str(why))
        self.why = why


class Outgoing:
    """A message on its way out.

    Args:
        pieces: of its frames, as `frames.pack` made them; or one piece that holds whole frames.
        moved: told how many more bytes have gone.
    """

    def __init__(self, pieces: Sequence[Buffer], *, moved: Callable[[int], None] | None = None) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None
        self._pieces = pieces
        self._moved = moved
        self._lock = threading.Lock()
        self._left = False
        self._ends = False  # the last of it is under way

    def leave(self) -> bool:
        """Let it go no further; return whether it goes nevertheless, since its end is under way."""
        with self._lock:
            self._left = True
            return self._ends

    def send(self, stream: ResumableStream) -> None:
        """Send it, unless or until it is left.

        Raises:
            OSError: the stream has ended.
        """
        if len(self._pieces) > 1:
            stream.send_frames(self._frames())
        elif self._goes_on(ends=True):
            stream.send_now(bytes(self._pieces[0]))

    def _frames(self) -> Iterator[Buffer]:
        pieces, inside = iter(self._pieces), False
        for header in pieces:
            left, _, flags, *_ = HEADER.unpack(header)
            if not self._goes_on(ends=not flags & MORE):
                if inside:
                    yield HEADER.pack(0, CUT, 0, 0, 0, 0, 0)
                return
            yield header
            size = left
            while left:
                piece = next(pieces)
                left -= len(piece)
                yield piece
            inside = bool(flags & MORE)
            if self._moved is not None:
                self._moved(size)

    def _goes_on(self, *, ends: bool) -> bool:
        with self._lock:
            self._ends = ends and not self._left
            return not self._left


class Sender:
    """Sends messages one after the other. Its thread lives for as long as there are some.

    Args:
        stream: by which they go.
    """

    def __init__(self, stream: ResumableStream) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._waiting: deque[Outgoing] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether it is at nothing: what is sent past it comes behind all that it was given."""
        return not self._waiting

    def send(self, message: Outgoing) -> None:
        """Return when a message has gone.

        Raises:
            NotSentError: a Ctrl-C came before that, and it does not go.
            KeyboardInterrupt: it came so late that it goes.
            OSError: the stream has ended.
        """
        try:
            with self._lock:
                self._waiting.append(message)
                begins = len(self._waiting) == 1
            if begins:
                self._begin()
            while not message.done.wait(LOOK_SECONDS):
                check()
        except BaseException as why:
            if message.leave():
                raise
            raise NotSentError(why) from why
        if message.error is not None:
            raise message.error

    def _begin(self) -> None:
        try:
            threading.Thread(target=self._run, name="remote_exec-send", daemon=True).start()
        except RuntimeError:  # the interpreter is ending
            self._run()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            message = self._waiting[0]
            try:
                message.send(self._stream)
            except BaseException as error:  # whoever gave it is to know
                message.error = error
            with self._lock:
                self._waiting.popleft()
                is_last = not self._waiting
            message.done.set()
