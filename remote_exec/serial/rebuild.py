"""What pickles call to put objects together again where they arrive.

Every public function here is named in pickles as ``remote_exec_runtime.serial.rebuild.NAME``, whichever
side wrote them. Nothing here decides what travels: that is `reducers`. Owns the set of classes made here
from pickles; classes that this process defined itself are never changed by what comes back.
"""

from __future__ import annotations

import abc
import functools
import importlib
import importlib.machinery
import pickle
import sys
import types
import typing
import weakref
from pathlib import Path
from types import CellType, CodeType, FunctionType
from typing import Any

from . import directories, sources
from .cloudpickle_copy import ON_CLIENT, RUNTIME, cloudpickle

_made_here: weakref.WeakSet[type] = weakref.WeakSet()
# (module, name) pairs that annotations of rebuilt classes needed in a module that is not theirs here
_lent_names: set[tuple[str, str]] = set()


def source(filename: str, text: str) -> str:
    """Make a source text known here; stands in a pickle where a code object's file name would."""
    sources.register(filename, text)
    return filename


def directory(digest: str, name: str) -> Path:
    """Where a folder that has travelled lies here."""
    return directories.unpack(digest, name)


def optional(module: str, qualname: str) -> Any:
    """What only annotations name; `optional` itself where it is missing."""
    try:
        return attribute(module, qualname) if qualname else importlib.import_module(module)
    except Exception:  # whatever a package raises while it is imported
        return optional


def _present(names: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if value is not optional}


def attribute(module: str, qualname: str) -> Any:
    """Import `module` and follow `qualname` in it."""
    return functools.reduce(getattr, qualname.split("."), importlib.import_module(module))


# functions


def make_function(
    code: CodeType, namespace: dict[str, Any], name: str, closure: tuple[CellType, ...] | None
) -> FunctionType:
    """A function without its state yet, so that what refers to it can be built first."""
    namespace.setdefault("__builtins__", __builtins__)
    return FunctionType(code, namespace, name, None, closure)


def set_function_state(function: FunctionType, state: dict[str, Any]) -> None:
    """Give a made function its attributes, and its namespace the globals that it uses."""
    function.__globals__.update(state["globals"])
    for name, value in _present(state["hints"]).items():
        function.__globals__.setdefault(name, value)
    vars(function).update(state["dict"])
    for name, value in state["attributes"].items():
        setattr(function, name, value)


def make_cell() -> CellType:
    """An empty closure cell; `set_cell` fills it, for what it holds may refer to it."""
    return types.CellType()


def set_cell(cell: CellType, contents: tuple[Any]) -> None:
    """Fill a closure cell."""
    cell.cell_contents = contents[0]


def cached(function: Any, parameters: dict[str, Any]) -> Any:
    """An `functools.lru_cache` wrapper, its cache empty."""
    return functools.lru_cache(**parameters)(function)


def cached_property(function: Any) -> Any:
    """A `functools.cached_property`; its state follows."""
    return functools.cached_property(function)


def single_dispatch(function: Any) -> Any:
    """A `functools.singledispatch` function that knows its default implementation only."""
    return functools.singledispatch(function)


def set_single_dispatch_state(wrapper: Any, state: dict[str, Any]) -> None:
    """Give a single-dispatch function its attributes and implementations."""
    for name, value in state["attributes"].items():
        setattr(wrapper, name, value)
    wrapper.__dict__.update(state["dict"])
    for cls, implementation in state["registry"]:
        wrapper.register(cls, implementation)


# classes


def make_class(
    kind: type, name: str, bases: tuple[type, ...], namespace: dict[str, Any], tracker_id: str
) -> type:
    """A class without attributes yet, or the one that this process knows under `tracker_id` already."""
    known: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)
    return known if known is not None else _track(_new_class(kind, name, bases, namespace), tracker_id)


def make_enum(
    kind: Any,
    name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
    members: dict[str, Any],
    tracker_id: str,
) -> type:
    """An enum with its members, or the one that this process knows under `tracker_id` already."""
    known: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)
    if known is not None:
        return known
    body = kind.__prepare__(name, bases)
    for key, value in {**namespace, **members}.items():
        body[key] = value
    return _track(kind.__new__(kind, name, bases, body), tracker_id)


def _track(made: type, tracker_id: str) -> type:
    tracked: type = cloudpickle._lookup_class_or_track(tracker_id, made)
    if tracked is made:
        _made_here.add(made)
    return tracked


class _Quiet:
    """The first base for a moment: keeps ``__init_subclass__`` from running with arguments unknown."""

    __slots__ = ()

    def __init_subclass__(cls, **_: Any) -> None:
        pass


def _new_class(kind: type[Any], name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
    try:
        return types.new_class(name, bases, {"metaclass": kind}, lambda body: body.update(namespace))
    except Exception:
        # The metaclass or a base wants keyword arguments or attributes that a class statement gave. All that
        # they made of them is in the state that follows, so build the bare class past them.
        new = abc.ABCMeta.__new__ if issubclass(kind, abc.ABCMeta) else type.__new__
        hooked = any("__init_subclass__" in vars(cls) for base in bases for cls in base.__mro__[:-1])
        if not hooked:
            bare: type[Any] = new(kind, name, bases, dict(namespace))
            return bare
        made: type[Any] = new(kind, name, (_Quiet, *bases), dict(namespace))
        made.__bases__ = bases
        return made


def set_class_state(cls: Any, state: dict[str, Any]) -> None:
    """Give a made class its attributes. A class that this process defined itself stays as it is."""
    if cls not in _made_here:
        return
    cloudpickle._class_setstate(cls, (state["attributes"], {}))
    for name, extras in state.get("members", {}).items():
        cls.__members__[name].__dict__.update(extras)
    _lend(cls.__module__, _present(state["hints"]))
    if not ON_CLIENT and "file" in state:
        _name_main(state["file"])


def _lend(module_name: str, names: dict[str, Any]) -> None:
    """`typing.get_type_hints(cls)` looks into the class's module, which is not its own here."""
    module = sys.modules.get(module_name)
    for name, value in names.items():
        if module is not None and (not hasattr(module, name) or (module_name, name) in _lent_names):
            setattr(module, name, value)
            _lent_names.add((module_name, name))


def _name_main(file: str) -> None:
    """`inspect.getsource(cls)` looks into the file of the class's module, which is the caller's script."""
    main = sys.modules["__main__"]
    main.__file__ = file
    # By this name multiprocessing knows that there is no file to be run again in its children.
    main.__spec__ = importlib.machinery.ModuleSpec("__main__", None)


# types


def _tracked(made: Any, tracker_id: str) -> Any:
    return cloudpickle._lookup_class_or_track(tracker_id, made)


def param_spec(name: str, module: str, tracker_id: str) -> Any:
    """A `typing.ParamSpec` (or one of typing_extensions), one object for all pickles that hold it."""
    made = attribute(module, "ParamSpec")(name)
    return _tracked(made, tracker_id)


def type_var_tuple(name: str, module: str, tracker_id: str) -> Any:
    """A `typing.TypeVarTuple`, one object for all pickles that hold it."""
    return _tracked(attribute(module, "TypeVarTuple")(name), tracker_id)


def new_type(name: str, supertype: Any, module: str, tracker_id: str) -> Any:
    """A `typing.NewType`, one object for all pickles that hold it."""
    make: Any = typing.NewType
    made = make(name, supertype)
    made.__module__ = module
    return _tracked(made, tracker_id)


def type_alias(name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    """What ``type NAME = VALUE`` makes (Python 3.12)."""
    alias: Any = vars(typing)["TypeAliasType"]
    return alias(name, value, type_params=parameters)


# values


def exception(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An exception of `cls` without calling its own ``__init__``, whose signature need not match `args`."""
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    try:
        made = cls.__new__(cls, *args)
    except TypeError:
        made = builtin.__new__(cls, *args)
    try:
        # Some keep their arguments in C fields that only this fills: OSError, SystemExit, UnicodeDecodeError.
        builtin.__init__(made, *args)
    except TypeError:
        made.args = args
    return made


def singleton(kind: Any, attributes: dict[str, Any], tracker_id: str) -> Any:
    """An object that is compared by identity, such as a sentinel."""
    known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)
    if known is not None:
        return known
    made = object.__new__(kind)
    if attributes:
        made.__dict__.update(attributes)
    return _tracked(made, tracker_id)


def view(buffer: Any, item_format: str, shape: tuple[int, ...]) -> Any:
    """A memoryview over a received buffer."""
    flat: Any = memoryview(buffer).cast("B")
    return flat.cast(item_format, shape)


def joined(stream: bytes, buffers: list[Any]) -> Any:
    """What `pickling.join` made one of."""
    return pickle.loads(stream, buffers=buffers)


for _name, _value in list(globals().items()):
    if isinstance(_value, FunctionType) and _value.__module__ == __name__ and not _name.startswith("_"):
        _value.__module__ = f"{RUNTIME}.serial.rebuild"
