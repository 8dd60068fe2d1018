"""The messages of the control streams: frozen dataclasses to JSON and back, checked field by field.

A message on the wire is ``<json length><body length><json><body>``; the body is bytes that JSON should not carry.
Nothing here trusts its input: a wrong type, an unknown name, a missing or surplus field is a `ProtocolError`, and
nothing else is. Which messages there are is `protocol`'s to say.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import sys
import threading
import types
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeGuard, TypeVar, Union

from ..model.errors import ProtocolError
from ..model.record import dataclass_transform, fields_of, record

LENGTHS = struct.Struct("<II")
MAX_JSON = 16 << 20
MAX_BODY = 64 << 20

T = TypeVar("T")
Decoder = Callable[[Any, str], Any]

_TYPES: dict[str, type] = {}
_DECODERS: dict[Any, Decoder] = {}
_BUILDING: set[Any] = set()
_LOCK = threading.RLock()  # held while a decoder is built


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def message(cls: type[T]) -> type[T]:
    """Class decorator: make a frozen dataclass that can be sent, known on the wire by its name."""
    made = record(cls)
    _TYPES[cls.__name__] = made
    return made


def encode(value: object, body: bytes | memoryview = b"") -> bytes:
    """Return the bytes of one message.

    Raises:
        ProtocolError: it is longer than any peer would take.
        TypeError: it holds what JSON cannot.
    """
    text = json.dumps([type(value).__name__, value], default=_plain, separators=(",", ":")).encode()
    if len(text) > MAX_JSON or len(body) > MAX_BODY:
        size = max(len(text), len(body))
        raise ProtocolError(f"a {type(value).__name__} of {size:,} bytes is too long to be sent")
    return b"".join((LENGTHS.pack(len(text), len(body)), text, body))


def decode(text: bytes | bytearray | memoryview) -> Any:
    """Return the message that this JSON names.

    Raises:
        ProtocolError: it is not one of our messages.
    """
    try:
        pair = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not (_is_list(pair) and len(pair) == 2 and isinstance(pair[0], str) and pair[0] in _TYPES):
        raise ProtocolError("not a message of this protocol")
    cls: type[Any] = _TYPES[pair[0]]
    return from_plain(cls, pair[1])


class MessageReader:
    """Bytes in, ``(message, body)`` out. It keeps one message at most that is not whole yet."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Any, bytes]]:
        """Take in what the stream gave, and return the messages that are whole now.

        Raises:
            ProtocolError: the peer does not speak this protocol.
        """
        self._buffer += data
        messages: list[tuple[Any, bytes]] = []
        start = 0
        while len(self._buffer) - start >= LENGTHS.size:
            json_size, body_size = LENGTHS.unpack_from(self._buffer, start)
            if json_size > MAX_JSON or body_size > MAX_BODY:
                raise ProtocolError("a message is over the bound")
            middle = start + LENGTHS.size + json_size
            if len(self._buffer) < middle + body_size:
                break
            with memoryview(self._buffer) as view:
                body = bytes(view[middle : middle + body_size])
            messages.append((decode(self._buffer[start + LENGTHS.size : middle]), body))
            start = middle + body_size
        del self._buffer[:start]
        return messages


def to_plain(value: object) -> Any:
    """Return a dataclass as what JSON can hold."""
    return json.loads(json.dumps(value, default=_plain))


def from_plain(cls: type[T], value: Any) -> T:
    """Return the dataclass that `to_plain` was given.

    Raises:
        ProtocolError: the value is not of that shape.
    """
    try:
        return typing.cast(T, _decoder(cls)(value, cls.__name__))
    except RecursionError:
        raise ProtocolError(f"{cls.__name__} holds itself too often") from None


def _plain(value: object) -> Any:
    names = fields_of(type(value))
    if names is not None:
        return {name: getattr(value, name) for name in names}
    raise TypeError(f"{type(value).__name__} cannot be sent in a message")


def _decoder(kind: Any) -> Decoder:
    found = _DECODERS.get(kind)
    return found if found is not None else _build(kind)


def _build(kind: Any) -> Decoder:
    with _LOCK:
        if kind in _BUILDING:  # a type that holds itself
            return lambda value, where: _decoder(kind)(value, where)
        _BUILDING.add(kind)
        try:
            made = _DECODERS[kind] = _make_decoder(kind)
        finally:
            _BUILDING.discard(kind)
        return made


def _make_decoder(kind: Any) -> Decoder:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if kind is Any:
        return lambda value, _where: value
    if origin in (Union, getattr(types, "UnionType", Union)):
        return _union(arguments)
    if origin is tuple:
        return _tuple(arguments)
    if origin is dict and arguments[0] is str:
        return _dict(arguments[1])
    if isinstance(kind, type):
        if fields_of(kind) is not None:
            return _dataclass(kind)
        if issubclass(kind, Enum):
            return _enum(kind)
        if kind in (str, int, float, bool):
            return _scalar(kind)
    raise TypeError(f"a message cannot hold {kind!r}")


def _scalar(kind: type[Any]) -> Decoder:
    def check(value: Any, where: str) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int and abs(value) < 1 << 1000:
            return float(value)
        raise ProtocolError(f"{where} must be {kind.__name__}, not {type(value).__name__}")

    return check


def _enum(kind: type[Enum]) -> Decoder:
    def check(value: Any, where: str) -> Any:
        try:
            return kind(value)
        except ValueError:
            raise ProtocolError(f"{where} must be one of {[m.value for m in kind]}") from None

    return check


def _union(kinds: tuple[Any, ...]) -> Decoder:
    some = [kind for kind in kinds if kind is not type(None)]
    if len(some) != 1 or len(kinds) != 2:
        raise TypeError("a message may hold optional values, no other unions")
    inner = _decoder(some[0])
    return lambda value, where: None if value is None else inner(value, where)


def _tuple(kinds: tuple[Any, ...]) -> Decoder:
    each = [_decoder(kind) for kind in kinds if kind is not Ellipsis]
    repeated = kinds[-1] is Ellipsis

    def check(value: Any, where: str) -> Any:
        if not _is_list(value) or not (repeated or len(value) == len(each)):
            raise ProtocolError(f"{where} must be a list" + ("" if repeated else f" of {len(each)}"))
        if repeated:
            return tuple([each[0](item, where) for item in value])
        return tuple([inner(item, where) for inner, item in zip(each, value)])  # noqa: B905

    return check


def _dict(kind: Any) -> Decoder:
    inner = _decoder(kind)

    def check(value: Any, where: str) -> Any:
        if not _is_object(value):
            raise ProtocolError(f"{where} must be an object")
        return {key: inner(item, f"{where}.{key}") for key, item in value.items()}

    return check


def _dataclass(kind: type[Any]) -> Decoder:
    """The fields' decoders are made at the first message: by then every type they name is defined."""
    names = vars(sys.modules[kind.__module__])
    # as typing.get_type_hints does, at a tenth of the price; the text is that of our own source
    found = fields_of(kind) or {}
    fields = {name: _decoder(_evaluated(annotation, names)) for name, (annotation, _) in found.items()}
    required = {name for name, (_, needed) in found.items() if needed}
    lenient = bool(getattr(kind, "LENIENT", False))

    def check(value: Any, where: str) -> Any:
        if not _is_object(value) or not required <= value.keys():
            raise ProtocolError(f"{where} lacks some of {sorted(required)}")
        if not value.keys() <= fields.keys():
            if not lenient:
                raise ProtocolError(f"{where} has other fields than {sorted(fields)}")
            value = {name: item for name, item in value.items() if name in fields}
        return kind(**{name: fields[name](item, f"{where}.{name}") for name, item in value.items()})

    return check


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    """Compiled first: to run a text while a process ends hides from the shell that it was interrupted."""
    if not isinstance(annotation, str):
        return annotation
    return eval(compile(annotation, "<annotation>", "eval"), names)  # noqa: S307


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
