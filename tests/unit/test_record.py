"""Records are dataclasses to all who ask, though nobody has made them ones before."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest

import remote_exec
from remote_exec.model import record as module
from remote_exec.model.record import record

CARRIED = ("model", "wire", "agent", "worker", "serial")


@record
class Point:
    x: int
    y: int = 2
    names: list[str] = field(default_factory=list[str])
    ORIGIN: ClassVar[int] = 7


@record(kw_only=True)
class Named(Point):
    """With a name."""

    name: str
    y: int = 5


def test_a_record_is_a_dataclass() -> None:
    @record
    class Fresh:
        x: int
        y: list[int] = field(default_factory=list[int])

    found: object = Fresh
    assert dataclasses.is_dataclass(found)
    assert [f.name for f in dataclasses.fields(Fresh)] == ["x", "y"]
    assert dataclasses.asdict(Fresh(1)) == {"x": 1, "y": []}
    assert dataclasses.replace(Fresh(1), x=3) == Fresh(3) != Fresh(1)


def test_it_is_made_compared_and_shown_as_one() -> None:
    named = Named(1, name="a")
    assert (named.x, named.y, named.names, named.name, named.ORIGIN) == (1, 5, [], "a", 7)
    assert repr(named) == "Named(x=1, y=5, names=[], name='a')"
    assert named == Named(x=1, name="a") == pickle.loads(pickle.dumps(named))
    assert Point(1) != named
    with pytest.raises(TypeError, match="by position"):
        Named(*(1, 2, [], "a"))  # type: ignore[call-arg, arg-type]
    with pytest.raises(TypeError, match="lacks 'name'"):
        Named(1)  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        named.x = 2  # type: ignore[misc]


def test_it_can_be_matched_before_anything_else_is_known_of_it() -> None:
    @record
    class Pair:
        left: int
        right: int

    match pickle.loads(pickle.dumps(Point(1, 3))), Pair(1, 2):
        case Point(x, y), Pair(left, right):
            assert (x, y, left, right) == (1, 3, 1, 2)
        case other:
            raise AssertionError(other)


def _records() -> list[type[Any]]:
    home = Path(remote_exec.__file__).parent
    for part in CARRIED:
        for path in (home / part).glob("*.py"):
            import_module(f"remote_exec.{part}.{path.stem}".removesuffix(".__init__"))
    return [cls for cls in _all_classes() if cls.__init__.__name__ == "_init"]


def _all_classes() -> list[type[Any]]:
    return [cls for cls in object.__subclasses__() if cls.__module__.startswith("remote_exec.")]


def test_what_is_found_of_fields_is_what_dataclasses_find() -> None:
    """Of all records that the carried runtime has."""
    records = _records()
    assert len(records) > 80
    for cls in records:
        ours = {
            name: (f.default, f.default_factory, by_name)
            for name, (f, by_name) in module._fields(cls).items()
        }
        theirs = {f.name: (f.default, f.default_factory, f.kw_only) for f in dataclasses.fields(cls)}
        assert list(ours.items()) == list(theirs.items()), cls
