"""Messages: what is encoded is what arrives; whatever else arrives is a `ProtocolError`, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import threading
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_exec.model.errors import ProtocolError
from remote_exec.model.pool import PoolSpec
from remote_exec.wire import messages, protocol
from remote_exec.wire.messages import (
    LENGTHS,
    MAX_BODY,
    MAX_JSON,
    MessageReader,
    decode,
    encode,
    from_plain,
    to_plain,
)

MESSAGES: list[type[Any]] = [
    value
    for value in vars(protocol).values()
    if dataclasses.is_dataclass(value) and value.__module__ == protocol.__name__
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """A strategy for a field's type: hypothesis's own, but for what JSON can hold."""
    if kind is Any:
        return JSON
    if dataclasses.is_dataclass(kind):
        return instances(typing.cast("type[Any]", kind))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict:
        return st.dictionaries(st.text(max_size=8), values(arguments[1]), max_size=3)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*[values(each) for each in arguments])
    if origin is not None:  # an optional value
        return st.one_of([st.none() if each is type(None) else values(each) for each in arguments])
    if kind is float:
        return st.floats(allow_nan=False)
    return st.from_type(kind)


def instances(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    fields = {field.name: values(hints[field.name]) for field in dataclasses.fields(cls)}
    return st.builds(cls, **fields)


ANY_MESSAGE = st.sampled_from(MESSAGES).flatmap(instances)


def receive(data: bytes, step: int | None = None) -> list[tuple[Any, bytes]]:
    reader = MessageReader()
    step = step or max(1, len(data))
    return [one for start in range(0, len(data), step) for one in reader.feed(data[start : start + step])]


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_every_message_comes_back_as_it_was_sent(cls: type[Any]) -> None:
    @given(instances(cls), st.binary(max_size=50))
    @settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    def check(value: Any, body: bytes) -> None:
        assert receive(encode(value, body)) == [(value, body)]

    check()


@given(st.lists(st.tuples(ANY_MESSAGE, st.binary(max_size=30)), max_size=4), st.integers(1, 40))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_pieces_do_not_matter(sent: list[tuple[Any, bytes]], step: int) -> None:
    data = b"".join(encode(value, body) for value, body in sent)
    assert receive(data, step) == sent


@given(ANY_MESSAGE, st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_a_message_with_something_wrong_in_it_is_refused_or_still_well_typed(
    value: Any, data: st.DataObject
) -> None:
    """Put any JSON anywhere into a message: it is a `ProtocolError`, or a message that can be sent on."""
    name, plain = type(value).__name__, to_plain(value)
    place: Any = [name, plain]
    whole, key = place, 1
    while isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
        place = place[key]
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
    place[key] = data.draw(JSON)
    try:
        found = decode(json.dumps(whole).encode())
    except ProtocolError:
        return
    assert receive(encode(found))[0][0] == found


@given(st.binary(max_size=200) | ANY_MESSAGE.map(encode), st.integers(0, 300), st.binary(max_size=4))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_garbage_is_a_protocol_error_and_nothing_else(data: bytes, position: int, noise: bytes) -> None:
    data = data[:position] + noise + data[position + len(noise) :]
    try:
        receive(data, 17)
    except ProtocolError:
        pass


GOOD = {"lease": "a", "call": 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'["CancelCall",' + b"[" * 100_000 + b"]" * 100_001, "not JSON"),
        (b"1" * 10_000, "not"),
        (b"{}", "not a message"),
        (b'["CancelCall"]', "not a message"),
        (b'[["CancelCall"],{}]', "not a message"),
        (b'["object",{}]', "not a message"),
        (b'["PoolSpec",{}]', "not a message"),
        (b'["CancelCall",null]', "CancelCall lacks some of"),
        (b'["CancelCall",{"lease":"a"}]', "CancelCall lacks some of"),
        (json.dumps(["CancelCall", {**GOOD, "x": 1}]).encode(), "CancelCall has other fields"),
        (json.dumps(["CancelCall", {**GOOD, "call": "1"}]).encode(), r"CancelCall\.call must be int, not str"),
        (json.dumps(["CancelCall", {**GOOD, "call": True}]).encode(), r"CancelCall\.call must be int, not bool"),
        (json.dumps(["CancelCall", {**GOOD, "call": 1.0}]).encode(), r"CancelCall\.call must be int, not float"),
        (json.dumps(["Preload", {"modules": "abc"}]).encode(), r"Preload\.modules must be a list"),
        (json.dumps(["Preload", {"modules": {"a": 1}}]).encode(), r"Preload\.modules must be a list"),
        (
            json.dumps(["ForkServerReady", {"pid": 1, "python": "", "workers": [[1, 2, 3]]}]).encode(),
            r"workers must be a list of 2",
        ),
        (
            json.dumps(["Preloaded", {"failed": [], "seconds": 0, "threads": 0}]).encode(),
            "failed must be an object",
        ),
        (
            b'["Preloaded",{"failed":{},"seconds":1' + b"0" * 400 + b',"threads":0}]',
            r"seconds must be float, not int",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: bytes, told: str) -> None:
    with pytest.raises(ProtocolError, match=told):
        decode(text)


def test_a_whole_number_is_a_float_too() -> None:
    told = decode(b'["Preloaded",{"failed":{},"seconds":2,"threads":0}]')
    assert type(told.seconds) is float


@pytest.mark.parametrize("cls", [protocol.Hello, protocol.Welcome])
def test_greetings_pass_over_fields_of_newer_versions(cls: type[Any]) -> None:
    sent = {
        protocol.Hello: protocol.Hello(1, "1.0", "abc", "3.11", 5),
        protocol.Welcome: protocol.Welcome(1, "1.0", "abc", 5, True),
    }[cls]
    plain = {**to_plain(sent), "from_the_future": [1]}
    assert decode(json.dumps([cls.__name__, plain]).encode()) == sent


def test_no_other_message_is_lenient() -> None:
    assert {cls for cls in MESSAGES if getattr(cls, "LENIENT", False)} == {protocol.Hello, protocol.Welcome}


@pytest.mark.parametrize("lengths", [(MAX_JSON + 1, 0), (2, MAX_BODY + 1), ((1 << 32) - 1,) * 2])
def test_lengths_over_the_bounds_are_refused_before_anything_is_kept(lengths: tuple[int, int]) -> None:
    with pytest.raises(ProtocolError, match="over the bound"):
        MessageReader().feed(LENGTHS.pack(*lengths))


def test_a_message_that_no_peer_would_take_is_refused_where_it_is_made() -> None:
    with pytest.raises(ProtocolError, match="PutBlob of 67,108,865 bytes is too long"):
        encode(protocol.PutBlob(1, "sha256:", True), bytes(MAX_BODY + 1))
    with pytest.raises(ProtocolError, match=r"Stack of .* bytes is too long"):
        encode(protocol.Stack(1, "x" * MAX_JSON))


@given(instances(PoolSpec))
@settings(max_examples=20)
def test_nouns_can_be_stored_as_plain_values(spec: PoolSpec) -> None:
    assert from_plain(PoolSpec, json.loads(json.dumps(to_plain(spec)))) == spec


# --- types of our own -----------------------------------------------------------------------------------------


class Colour(str, Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Tree:
    """A type that holds itself, in every way that a message can."""

    colour: Colour = Colour.RED
    parent: Optional[Tree] = None  # noqa: UP045 - both spellings are understood
    other: Tree | None = None
    children: tuple[Tree, ...] = ()
    named: dict[str, Tree] = dataclasses.field(default_factory=lambda: dict[str, Tree]())


TREES = st.recursive(
    st.builds(Tree),
    lambda inner: st.builds(
        Tree,
        parent=st.none() | inner,
        other=st.none() | inner,
        children=st.lists(inner, max_size=2).map(tuple),
        named=st.dictionaries(st.text(max_size=2), inner, max_size=2),
    ),
    max_leaves=6,
)


@given(TREES)
def test_a_type_may_hold_itself(tree: Tree) -> None:
    assert from_plain(Tree, to_plain(tree)) == tree


def test_a_value_that_holds_itself_too_often_is_refused() -> None:
    plain: dict[str, Any] = {}
    for _ in range(100_000):
        plain = {"parent": plain}
    with pytest.raises(ProtocolError, match="Tree holds itself too often"):
        from_plain(Tree, plain)
    while plain:  # taken apart by hand: a deep value's own end is recursive too
        plain = plain.get("parent", {})


@pytest.mark.parametrize("value", ["blue", 3, None, [], {}])
def test_only_an_enums_values_are_taken(value: object) -> None:
    with pytest.raises(ProtocolError, match=r"colour must be one of \['red'\]"):
        from_plain(Tree, {"colour": value})


def test_many_threads_may_decode_a_type_for_the_first_time() -> None:
    def make() -> type[Any]:
        @dataclasses.dataclass(frozen=True)
        class Fresh:
            LENIENT: ClassVar[bool] = True
            trees: tuple[Tree, ...]

        return Fresh

    for _ in range(20):
        cls = make()
        messages._DECODERS.pop(Tree, None)
        start = threading.Barrier(4)
        found: list[Any] = []

        def work(cls: type[Any] = cls, start: threading.Barrier = start, found: list[Any] = found) -> None:
            start.wait()
            found.append(from_plain(cls, {"trees": [{"parent": {"children": [{}]}}]}))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [cls((Tree(parent=Tree(children=(Tree(),))),))] * 4


@pytest.mark.parametrize("kind", [list[int], bytes, dict[int, str], int | str | None, complex, dict])
def test_a_field_that_json_cannot_hold_is_a_bug_found_at_once(kind: Any) -> None:
    made: Callable[..., Any] = dataclasses.make_dataclass("Bad", [("x", kind)], frozen=True)
    with pytest.raises(TypeError, match="message"):
        from_plain(typing.cast("type[Any]", made), {"x": 1})
