"""What the package says it exports is what it exports, under its own name."""

from __future__ import annotations

import importlib
import inspect
import pydoc

import pytest

import remote_exec
from remote_exec import errors
from remote_exec.model import errors as carried


def test_everything_in_all_is_there_and_everything_public_is_in_all() -> None:
    for name in remote_exec.__all__:
        assert getattr(remote_exec, name) is not None
    loadable = {name for name in remote_exec._HOMES if not name.startswith("_")}
    assert loadable == set(remote_exec.__all__)
    assert len(set(remote_exec.__all__)) == len(remote_exec.__all__)


def test_type_checkers_see_the_same_names() -> None:
    source = inspect.getsource(remote_exec)
    seen = source.partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    for name in remote_exec.__all__:
        assert name in seen, f"{name} is not imported under TYPE_CHECKING"


@pytest.mark.parametrize("name", remote_exec.__all__)
def test_a_public_thing_calls_itself_public_and_is_documented(name: str) -> None:
    value = getattr(remote_exec, name)
    assert value.__module__ == "remote_exec"
    assert getattr(remote_exec, value.__qualname__) is value
    assert inspect.getdoc(value), f"{name} has no docstring"
    assert pydoc.locate(f"remote_exec.{name}") is value


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        remote_exec.nothing
    assert not hasattr(remote_exec, "_nothing")


def test_errors_are_one_list_in_three_places() -> None:
    assert {cls.__name__ for cls in carried.ALL} == set(errors.__all__)
    for cls in carried.ALL:
        assert getattr(errors, cls.__name__) is cls
        assert cls.__module__ == "remote_exec.errors"
        assert getattr(importlib.import_module(cls.__module__), cls.__qualname__) is cls
        assert issubclass(cls, errors.RemoteExecError)
        assert inspect.getdoc(cls)
