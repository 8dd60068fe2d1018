"""The messages of the control streams: frozen dataclasses to JSON and back, checked field by field.

A message on the wire is ``<json length><body length><json><body>``; the body is bytes that JSON should not carry.
Nothing here trusts its input: a wrong type, an unknown name, a missing or surplus field is a `ProtocolError`.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import sys
import types
import typing
from enum import Enum
from typing import Any, Callable, TypeVar, Union

from ..model.errors import ProtocolError

LENGTHS = struct.Struct("<II")
MAX_JSON = 16 << 20
MAX_BODY = 64 << 20

T = TypeVar("T")
Decoder = Callable[[Any, str], Any]

_TYPES: dict[str, type] = {}
_DECODERS: dict[Any, Decoder] = {}


def message(cls: type[T]) -> type[T]:
    """Class decorator: make a frozen dataclass that can be sent, known on the wire by its name."""
    made = dataclasses.dataclass(frozen=True)(cls)
    _TYPES[cls.__name__] = made
    return made


def encode(value: object, body: bytes | memoryview = b"") -> bytes:
    """Return the bytes of one message."""
    text = json.dumps([type(value).__name__, value], default=_plain, separators=(",", ":")).encode()
    return b"".join((LENGTHS.pack(len(text), len(body)), text, body))


def decode(text: bytes | bytearray | memoryview) -> Any:
    """Return the message that this JSON names.

    Raises:
        ProtocolError: it is not one of our messages.
    """
    try:
        pair = json.loads(bytes(text))
    except ValueError as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and pair[0] in _TYPES):
        raise ProtocolError("not a message of this protocol")
    return _decoder(_TYPES[pair[0]])(pair[1], pair[0])


class MessageReader:
    """Bytes in, ``(message, body)`` out."""

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
            body = bytes(self._buffer[middle : middle + body_size])
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
    return typing.cast(T, _decoder(cls)(value, cls.__name__))


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} cannot be sent in a message")


def _decoder(kind: Any) -> Decoder:
    found = _DECODERS.get(kind)
    if found is None:
        found = _DECODERS[kind] = _make_decoder(kind)
    return found


def _make_decoder(kind: Any) -> Decoder:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if kind is Any:
        return lambda value, _where: value
    if origin in (Union, getattr(types, "UnionType", Union)):
        return _union(arguments)
    if origin is tuple:
        return _tuple(arguments)
    if origin is dict:
        return _dict(arguments[1])
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast(type, kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(kind)
    return _scalar(kind)


def _scalar(kind: type) -> Decoder:
    def check(value: Any, where: str) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
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
        if not isinstance(value, list) or not (repeated or len(value) == len(each)):
            raise ProtocolError(f"{where} must be a list")
        if repeated:
            return tuple([each[0](item, where) for item in value])
        return tuple([inner(item, where) for inner, item in zip(each, value)])  # noqa: B905

    return check


def _dict(kind: Any) -> Decoder:
    inner = _decoder(kind)

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise ProtocolError(f"{where} must be an object")
        return {key: inner(item, f"{where}.{key}") for key, item in value.items()}

    return check


def _dataclass(kind: type) -> Decoder:
    hints = typing.get_type_hints(kind, vars(sys.modules[kind.__module__]))
    fields = {f.name: _decoder(hints[f.name]) for f in dataclasses.fields(kind)}
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }

    lenient = bool(getattr(kind, "LENIENT", False))

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict) or not required <= value.keys():
            raise ProtocolError(f"{where} lacks some of {sorted(required)}")
        if not value.keys() <= fields.keys():
            if not lenient:
                raise ProtocolError(f"{where} has other fields than {sorted(fields)}")
            value = {name: item for name, item in value.items() if name in fields}
        return kind(**{name: fields[name](item, f"{where}.{name}") for name, item in value.items()})

    return check
