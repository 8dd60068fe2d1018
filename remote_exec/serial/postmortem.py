"""Debugging a failure after its worker is gone: what is kept of the failing frames' locals, and pdb upon it.

Kept are, within a budget of bytes and seconds, the innermost frames first: the repr of each local, and the
value itself where it is small and can be pickled. Whatever looks secret is masked before it leaves the
worker: by its name, by the names inside a repr or a pickle, and by being equal to something with such a name.
This is a net, not a wall: a secret in an innocent name is not found.

`post_mortem` rebuilds the frames with these locals and opens pdb. No state is owned here.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import re
import reprlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import (
    BuiltinFunctionType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import IO, Any, cast

from ..model.failure import Failure, Frame

MASK = "***"
MAX_REPR = 2_000
MAX_VALUE_BYTES = 64_000
MAX_LOCALS = 200
BUDGET_BYTES = 1_000_000
BUDGET_SECONDS = 2.0
MAX_VISITED = 2_000

# Long words are secret wherever they stand in a name ("tokenizer" is not "token"); short ones must stand
# alone.
_SECRET_PART = re.compile(
    r"passw|passphrase|secret|token(?!i[sz])|credential|api_?key|private_?key|access_?key|cookie|authori[sz]ation",
    re.I,
)
_SECRET_WORD = re.compile(r"(auth|bearer|creds?|dsn|jwt|keys?|pw|pwd|pass|pat|sas|signature)", re.I)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_IDENTIFIER = re.compile(rb"[A-Za-z_][A-Za-z0-9_]{2,}")
# name=value, 'name': value, "name": "value" in a repr
_ASSIGNED = re.compile(
    r"""(?P<quote>\\?['"]?)(?P<name>[A-Za-z_][\w-]*)(?P=quote)(?P<sep>\s*[:=]\s*)"""
    r"""(?P<value>[rbuRBU]{0,2}'(?:[^'\\]|\\.)*'?|[rbuRBU]{0,2}"(?:[^"\\]|\\.)*"?|[^\s,)}\]'"]+)"""
)
_IN_TEXT = re.compile(
    r"(?P<before>\b(?:Bearer|Basic)\s+|://[^/\s:@'\"]*:)(?P<value>[^\s'\"@]+)(?=@|['\"\s]|$)"
)
_NEVER_PICKLED = (
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    type,
    GeneratorType,
    CoroutineType,
    FrameType,
    TracebackType,
    CodeType,
)


def looks_secret(name: str) -> bool:
    """Return whether something of this name should not leave the worker.

    >>> [looks_secret(name) for name in ("db_password", "apiKey", "key", "tokenizer", "monkey")]
    [True, True, True, False, False]
    """
    return bool(_SECRET_PART.search(name)) or any(map(_SECRET_WORD.fullmatch, _WORD.findall(name)))


class RemoteValue:
    """Stands for a local that stayed behind: its repr is the remote one."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class Keeper:
    """Keeps locals of the frames of one failure, within one budget.

    Args:
        frames: all frames of the failure, so that a secret in one of them is found in all.
        dumps: pickles a value.
    """

    def __init__(self, frames: Sequence[FrameType], *, dumps: Callable[[object], bytes]) -> None:
        self._dumps = dumps
        self._bytes_left = BUDGET_BYTES
        self._deadline = time.monotonic() + BUDGET_SECONDS
        self._secrets = {text for frame in frames for text in _secret_texts(frame)}
        self._repr = reprlib.Repr()
        self._repr.maxlevel = 4
        self._repr.maxstring = self._repr.maxother = self._repr.maxlong = MAX_REPR
        for kind in ("list", "tuple", "dict", "set", "frozenset", "deque", "array"):
            setattr(self._repr, f"max{kind}", 50)

    def keep(self, frame: FrameType) -> tuple[dict[str, str], dict[str, bytes]]:
        """Return name -> repr and name -> pickled value of one frame's locals."""
        texts: dict[str, str] = {}
        values: dict[str, bytes] = {}
        for name, value in _locals(frame):
            if self._bytes_left <= 0 or time.monotonic() > self._deadline:
                break
            if looks_secret(name):
                texts[name] = MASK
                continue
            text, clean = self._text(value)
            texts[name] = text
            self._bytes_left -= len(name) + len(text)
            data = self._value(value) if clean else None
            if data is not None and len(data) <= self._bytes_left:
                values[name] = data
                self._bytes_left -= len(data)
        return texts, values

    def _text(self, value: object) -> tuple[str, bool]:
        """Return the masked repr, and whether nothing had to be masked."""
        try:
            text = self._repr.repr(value)
        except BaseException as error:  # user code: whatever it raises, the capture goes on
            return f"<{_type_name(value)}: repr() raised {type(error).__name__}>", True
        # cut after masking, so that no half of a secret survives; the slack bounds the work
        masked = mask(text[: 2 * MAX_REPR])
        for secret in self._secrets:
            masked = masked.replace(secret, MASK)
        clean = masked == text[: 2 * MAX_REPR]
        return (masked if len(masked) <= MAX_REPR else masked[: MAX_REPR - 3] + "..."), clean

    def _value(self, value: object) -> bytes | None:
        try:
            if not _is_small(value):
                return None
            data = self._dumps(value)
        except BaseException:  # as above
            return None
        if len(data) > MAX_VALUE_BYTES or any(
            secret.encode("utf-8", "surrogatepass") in data for secret in self._secrets
        ):
            return None
        # attribute names and keys stand in a pickle as they are
        if any(looks_secret(word.decode()) for word in set(_IDENTIFIER.findall(data))):
            return None
        return data


def mask(text: str) -> str:
    """Return text (a repr, mostly) with the values of names that look secret replaced.

    >>> mask("Config(user='me', password='hunter2')")
    "Config(user='me', password='***')"
    """

    def assigned(match: re.Match[str]) -> str:
        if not looks_secret(match["name"]):
            return match[0]
        quote = next((char for char in match["value"] if char in "'\""), "")
        return f"{match['quote']}{match['name']}{match['quote']}{match['sep']}{quote}{MASK}{quote}"

    return _IN_TEXT.sub(lambda match: match["before"] + MASK, _ASSIGNED.sub(assigned, text))


def _locals(frame: FrameType) -> list[tuple[str, object]]:
    try:
        values = frame.f_locals
        names = list(values)
        if values is frame.f_globals:
            names = [name for name in names if not name.startswith("__")]
        pairs = [(name, values[name]) for name in names]
    except BaseException:  # a class body's namespace may be user code
        return []
    return [(name, value) for name, value in pairs if not isinstance(value, ModuleType)][:MAX_LOCALS]


def _secret_texts(frame: FrameType) -> set[str]:
    """Return the text values of secret names, long enough not to be found everywhere."""
    return {
        value
        for name, value in _locals(frame)
        if isinstance(value, str) and 6 <= len(value) <= MAX_REPR and looks_secret(name)
    }


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_small(value: object) -> bool:
    """Return whether pickling is worth a try: an estimate that copies nothing."""
    todo: list[Any] = [value]
    seen, size = set[int](), 0
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if (
            len(seen) > MAX_VISITED
            or isinstance(item, _NEVER_PICKLED)
            or getattr(item, "is_cuda", False) is True
        ):
            return False
        size += _size_bytes(item)
        if size > MAX_VALUE_BYTES:
            return False
        if isinstance(item, (list, tuple, set, frozenset)):
            todo.extend(cast("list[object]", item))
        elif isinstance(item, dict):
            for pair in cast("dict[object, object]", item).items():
                todo.extend(pair)
        attributes: Any = getattr(cast("Any", item), "__dict__", None)
        if isinstance(attributes, Mapping):
            todo.extend(cast("Mapping[object, object]", attributes).values())
    return True


def _size_bytes(item: object) -> int:
    if isinstance(item, (str, bytes, bytearray, list, tuple, dict, set, frozenset)):
        return len(cast("Sequence[object]", item)) + 1
    for name, unit in (("nbytes", 1), ("size", 8)):  # arrays, tensors, tables; data frames
        count: object = getattr(item, name, None)
        if isinstance(count, int):
            return count * unit
    return 8


def placeholders(frame: Frame) -> dict[str, object]:
    """Return a frame's locals as objects that show the remote reprs."""
    return {name: RemoteValue(text) for name, text in (frame.locals or {}).items()}


def values(frame: Frame, *, loads: Callable[[bytes], object]) -> dict[str, object]:
    """Return a frame's locals: the values that were kept, others as objects that show the remote reprs."""
    found = placeholders(frame)
    for name, data in (frame.values or {}).items():
        with contextlib.suppress(Exception):  # its class may be missing here: the repr stays
            found[name] = loads(data)
    return found


def post_mortem(
    failure: Failure,
    *,
    loads: Callable[[bytes], object] = pickle.loads,
    stdin: IO[str] | None = None,
    stdout: IO[str] | None = None,
) -> None:
    """Open pdb on the frames of a failure, at the innermost.

    ``where``, ``up``, ``down``, ``list``, ``p`` and ``pp`` work; small locals are the values themselves,
    others show their remote repr. From Python 3.13 on, ``exceptions`` walks the chain.

    Args:
        failure: the failure; it should have been captured with its locals.
        loads: turns a kept value's bytes into the value.
        stdin: where commands come from; the terminal by default.
        stdout: where pdb writes; the terminal by default.

    Raises:
        ValueError: the failure has no frames.

    Example:
        >>> post_mortem(exc.remote.failure)  # doctest: +SKIP
    """
    import pdb

    from .failures import stand_in

    if not failure.frames:
        raise ValueError(f"failure: no frames were kept of this {failure.qualname}; there is nothing to walk")

    exc = stand_in(failure, values=functools.partial(values, loads=loads))
    # readrc: a user's .pdbrc belongs to a terminal, not to a stream that drives us
    debugger = pdb.Pdb(stdin=stdin, stdout=stdout, nosigint=True, readrc=stdin is None)
    debugger.use_rawinput = stdin is None and stdout is None
    debugger.reset()
    interaction = cast("Any", debugger.interaction)
    interaction(None, exc if sys.version_info >= (3, 13) else exc.__traceback__)
