"""How things that pickle alone cannot send are taken apart, for `rebuild` to put together.

cloudpickle shows the way; what it loses is kept here: file names and source text of code, slots, caches,
dispatch tables, shared closure cells, names used only in annotations or class bodies, attributes of enum
members. Functions take the pickler and the object, and return what `pickle.Pickler.reducer_override` may
return. No state but caches keyed by code objects.
"""

from __future__ import annotations

import abc
import dataclasses
import dis
import enum
import functools
import io
import pickle
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from ..model import errors
from . import directories, rebuild
from .cloudpickle_copy import HERE, ON_CLIENT, RUNTIME, cloudpickle
from .sources import source_of

if TYPE_CHECKING:
    from .pickling import Pickler

Reduced = Any  # a tuple for pickle, the name of a global, or NotImplemented

# Parts of this project that hosts know under the runtime's name only.
_CARRIED = tuple(f"{HERE}.{part}" for part in ("model", "wire", "serial", "session", "worker", "agent"))

MAX_SOURCES_CHARS = 4_000_000


# code and functions


class Source:
    """Stands for the file name of code in a pickle; pickled once, however many functions share it."""

    def __init__(self, filename: str, text: str) -> None:
        self.filename = filename
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild.source, (self.filename, self.text)


def reduce_code(pickler: Pickler, code: CodeType) -> Reduced:
    kind, args = cloudpickle._code_reduce(code)
    filename = _file(pickler, code.co_filename, code)
    return kind, tuple(filename if type(arg) is str and arg == "<dynamic-code>" else arg for arg in args)


def _file(pickler: Pickler, filename: str, code: CodeType | None = None) -> Source | str:
    """What stands for a file's name: with its text, where that can be had."""
    known = pickler.sources.get(filename)
    if known is None:
        text = source_of(filename, code)
        sent = sum(len(source.text) for source in pickler.sources.values() if isinstance(source, Source))
        small = text is not None and sent + len(text) <= MAX_SOURCES_CHARS
        known = Source(filename, text) if text is not None and small else filename
        if code is not None or known is not filename:  # code that matches may yet come
            pickler.sources[filename] = known
    return known


def reduce_function(pickler: Pickler, function: FunctionType) -> Reduced:
    if function.__code__ is _SINGLE_DISPATCH_CODE:
        return _reduce_single_dispatch(function)
    args = (function.__code__, pickler.namespace_of(function), function.__name__, function.__closure__)
    return (
        rebuild.make_function,
        args,
        function_state(pickler, function),
        None,
        None,
        rebuild.set_function_state,
    )


_FUNCTION_ATTRIBUTES = (
    *("__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__"),
    *("__annotations__", "__type_params__"),
)


def _attributes(function: Any) -> dict[str, Any]:
    return {name: getattr(function, name) for name in _FUNCTION_ATTRIBUTES if hasattr(function, name)}


def function_state(pickler: Pickler, function: FunctionType) -> dict[str, Any]:
    """All that `rebuild.set_function_state` needs; `modules` is there to be imported only."""
    attributes = _attributes(function)
    namespace = function.__globals__
    used = {name: namespace[name] for name in global_names(function.__code__) if name in namespace}
    hinted = [name for name in _annotation_names(attributes["__annotations__"]) if name not in used]
    reachable = [*used.values(), *_cell_contents(function.__closure__ or ())]
    return {
        "globals": used,
        "hints": _hints(pickler, hinted, namespace),
        "dict": vars(function),
        "attributes": attributes,
        "modules": list(_submodules(reachable, function.__code__)),
    }


def _cell_contents(cells: Iterable[CellType]) -> Iterator[Any]:
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:
            continue


_GLOBAL_OPERATIONS = frozenset(
    # LOAD_NAME: the body of a class in a function
    {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
)
_names_of_code: weakref.WeakKeyDictionary[CodeType, dict[str, None]] = weakref.WeakKeyDictionary()


def global_names(code: CodeType) -> dict[str, None]:
    """Names of the globals that `code`, and code nested in it, may use, in order of appearance."""
    names = _names_of_code.get(code)
    if names is None:
        names = {i.argval: None for i in dis.get_instructions(code) if i.opname in _GLOBAL_OPERATIONS}
        for nested in _nested(code):
            names.update(global_names(nested))
        _names_of_code[code] = names
    return names


def _nested(code: CodeType) -> Iterator[CodeType]:
    return (const for const in code.co_consts if isinstance(const, CodeType))


def _all_names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*map(_all_names, _nested(code)))


def _submodules(values: Iterable[Any], code: CodeType) -> Iterator[ModuleType]:
    """Modules that `code` reaches as attributes of packages among `values`: ``import xml.dom.minidom``."""
    packages = [value for value in values if isinstance(value, ModuleType) and hasattr(value, "__path__")]
    names = _all_names(code) if packages else ()
    while packages:
        package = packages.pop()
        for name in names:
            module = sys.modules.get(f"{package.__name__}.{name}")
            if isinstance(module, ModuleType):
                yield module
                packages.append(module)


def _annotation_names(annotations: dict[str, Any]) -> dict[str, None]:
    return {name: None for value in annotations.values() for name in _names_in(value)}


def _hints(pickler: Pickler, names: Iterable[str], namespace: Any) -> dict[str, Any]:
    return {name: _optional(pickler, namespace[name]) for name in names if name in namespace}


def _optional(pickler: Pickler, value: Any) -> Any:
    """A value that only annotations name: the call must not fail where its package is not installed."""
    if isinstance(value, ModuleType) and pickler.module_goes_by_reference(value.__name__):
        return Optional(value.__name__, "")
    if isinstance(value, type) and value.__module__ != "builtins" and pickler.goes_by_reference(value):
        return Optional(value.__module__, value.__qualname__)
    return value


class Optional:
    """Stands for a module, or something in it, that may be missing over there."""

    def __init__(self, module: str, qualname: str) -> None:
        self.module = module
        self.qualname = qualname

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild.optional, (self.module, self.qualname)


def _names_in(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, str):
        yield from _expression_names(annotation)
    elif isinstance(annotation, typing.ForwardRef):
        yield from _expression_names(annotation.__forward_arg__)
    else:
        for part in typing.get_args(annotation):
            if isinstance(part, (str, typing.ForwardRef)) or typing.get_args(part):
                yield from _names_in(part)


@functools.lru_cache(maxsize=4096)
def _expression_names(expression: str) -> tuple[str, ...]:
    try:
        return compile(expression, "<annotation>", "eval", dont_inherit=True).co_names
    except (SyntaxError, ValueError):
        return ()


def reduce_cell(pickler: Pickler, cell: CellType) -> Reduced:
    # The contents follow as state: functions that share a cell go on sharing it, and it may hold them.
    try:
        contents = (cell.cell_contents,)
    except ValueError:
        return rebuild.make_cell, ()
    return rebuild.make_cell, (), contents, None, None, rebuild.set_cell


_CACHED = type(functools.cache(len))


def reduce_cached(pickler: Pickler, wrapper: Any) -> Reduced:
    if pickler.goes_by_reference(wrapper):
        return NotImplemented
    return rebuild.cached, (wrapper.__wrapped__, wrapper.cache_parameters()), vars(wrapper)


def reduce_cached_property(pickler: Pickler, prop: Any) -> Reduced:
    attributes: dict[str, Any] = prop.__dict__
    state = {name: value for name, value in attributes.items() if name != "lock"}  # until Python 3.12
    return rebuild.cached_property, (prop.func,), state


def _example(value: object) -> None: ...


_SINGLE_DISPATCH_CODE = typing.cast(FunctionType, functools.singledispatch(_example)).__code__
_SINGLE_DISPATCH_OWN = ("register", "dispatch", "registry", "_clear_cache")


def _reduce_single_dispatch(wrapper: Any) -> Reduced:
    function = wrapper.__wrapped__
    own: dict[str, Any] = wrapper.__dict__
    state: dict[str, Any] = {
        "attributes": {name: getattr(wrapper, name) for name in ("__name__", *_FUNCTION_ATTRIBUTES[:3])},
        "dict": {name: value for name, value in own.items() if name not in _SINGLE_DISPATCH_OWN},
        "registry": [(cls, found) for cls, found in wrapper.registry.items() if found is not function],
    }
    return rebuild.single_dispatch, (function,), state, None, None, rebuild.set_single_dispatch_state


# classes


def reduce_class(pickler: Pickler, cls: Any) -> Reduced:
    if cls in _BUILTIN_TYPES:
        return cloudpickle._class_reduce(cls)
    if cls.__module__ == _ERRORS and cls in errors.ALL:
        return rebuild.attribute, (f"{RUNTIME}.model.errors", cls.__name__)
    if pickler.goes_by_reference(cls):
        return carried_name(cls)
    skeleton = (cls.__class__, cls.__name__, cls.__bases__, _skeleton_namespace(cls))
    tracker_id = cloudpickle._get_or_create_tracker_id(cls)
    state = class_state(pickler, cls)
    if isinstance(cls, enum.EnumMeta):
        members = {name: member.value for name, member in _members(cls).items()}
        args: tuple[Any, ...] = (*skeleton, members, tracker_id)
        return rebuild.make_enum, args, state, None, None, rebuild.set_class_state
    return rebuild.make_class, (*skeleton, tracker_id), state, None, None, rebuild.set_class_state


def _members(enumeration: Any) -> dict[str, Any]:
    """Aliases too."""
    return dict(enumeration.__members__)


def _skeleton_namespace(cls: Any) -> dict[str, Any]:
    """What a class must know from the moment that it is made."""
    own: dict[str, Any] = cls.__dict__
    namespace = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    if isinstance(own.get("__dict__"), property):
        namespace["__dict__"] = own["__dict__"]
    if "__slots__" in own:
        namespace["__slots__"] = _slots(cls)
    if "__orig_bases__" in own:  # Generic asks for it
        namespace["__orig_bases__"] = own["__orig_bases__"]
    return namespace


_ERRORS = errors.RemoteExecError.__module__
_BUILTIN_TYPES = {*cloudpickle._BUILTIN_TYPE_NAMES, type(None), type(Ellipsis), type(NotImplemented)}


def carried_name(found: Any) -> Reduced:
    """How to name a class or function by reference: parts of this project by the name that hosts know."""
    if ON_CLIENT and found.__module__.startswith(_CARRIED):
        return rebuild.attribute, (RUNTIME + found.__module__.removeprefix(HERE), found.__qualname__)
    return NotImplemented


def _slots(cls: type[Any]) -> Any:
    slots: Any = vars(cls)["__slots__"]
    if issubclass(type(slots), (str, tuple, list, dict)):
        return slots
    # An iterator is used up by now; what it named is there as descriptors.
    return tuple(n for n, v in vars(cls).items() if isinstance(v, types.MemberDescriptorType))


_ENUM_OWN = (
    *("_generate_next_value_", "_member_names_", "_member_map_", "_member_type_", "_value2member_map_"),
    *("_unhashable_values_", "_hashable_values_", "_unhashable_values_map_"),
)
_MEMBER_OWN = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})


def class_state(pickler: Pickler, cls: type[Any]) -> dict[str, Any]:
    """All that `rebuild.set_class_state` needs."""
    attributes: dict[str, Any] = cloudpickle._extract_class_dict(cls)
    for name in ("__weakref__", "__dict__", "__slots__", "__orig_bases__", "__annotate_func__"):
        attributes.pop(name, None)
    for name, value in list(attributes.items()):
        if isinstance(value, types.MemberDescriptorType) and value.__objclass__ is cls:
            del attributes[name]
    if isinstance(cls, abc.ABCMeta):
        registered: Any = vars(abc)["_get_dump"](cls)[0]
        attributes["_abc_impl"] = [sub for ref in registered if (sub := ref()) is not None]
    state: dict[str, Any] = {"attributes": attributes}
    if isinstance(cls, enum.EnumMeta):
        members = _members(cls)
        for name in (*_ENUM_OWN, *members):
            attributes.pop(name, None)
        state["members"] = {name: _member_extras(member) for name, member in members.items()}
    module = sys.modules.get(cls.__module__)
    if cls.__module__ == "__main__" and isinstance(file := getattr(module, "__file__", None), str):
        state["file"] = _file(pickler, file)  # inspect looks for a class in its module's file
    namespace = vars(module or object)
    state["hints"] = _hints(pickler, _annotation_names(vars(cls).get("__annotations__", {})), namespace)
    return state


def _member_extras(member: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = getattr(member, "__dict__", {})
    return {name: value for name, value in attributes.items() if name not in _MEMBER_OWN}


# types that are made by calls


def reduce_type_variable(pickler: Pickler, variable: Any) -> Reduced:
    if pickler.goes_by_reference(variable, variable.__name__):
        return NotImplemented
    rebuilt = rebuild.param_spec if type(variable).__name__ == "ParamSpec" else rebuild.type_var_tuple
    tracker_id = cloudpickle._get_or_create_tracker_id(variable)
    return rebuilt, (variable.__name__, type(variable).__module__, tracker_id)


def reduce_new_type(pickler: Pickler, new_type: Any) -> Reduced:
    if pickler.goes_by_reference(new_type):
        return NotImplemented
    tracker_id = cloudpickle._get_or_create_tracker_id(new_type)
    return rebuild.new_type, (new_type.__name__, new_type.__supertype__, new_type.__module__, tracker_id)


def reduce_type_alias(pickler: Pickler, alias: Any) -> Reduced:
    if pickler.goes_by_reference(alias, alias.__name__):
        return NotImplemented
    return rebuild.type_alias, (alias.__name__, alias.__value__, alias.__type_params__)


# values


def reduce_exception(error: Any) -> Reduced:
    """Exceptions with an ``__init__`` whose signature need not match their `args`."""
    kind: type[Any] = error.__class__
    own: Any = next(base for base in kind.__mro__ if "__reduce__" in vars(base))
    if own.__module__ != "builtins" or any("__reduce_ex__" in vars(base) for base in kind.__mro__[:-1]):
        return NotImplemented  # the class knows better
    _, args, *state = own.__reduce__(error)
    return rebuild.exception, (kind, args), *state


def reduce_own(pickler: Pickler, obj: Any) -> Reduced:
    """Objects of a class of ``__main__``: their own reduction, unless it is a name in ``__main__``.

    Sentinels do so (``def __reduce__(self): return "MISSING"``): one object for all pickles that hold it.
    """
    reduced = obj.__reduce_ex__(5)
    if not isinstance(reduced, str) or pickler.goes_by_reference(obj, reduced):
        return reduced
    tracker_id = cloudpickle._get_or_create_tracker_id(obj)
    return rebuild.singleton, (obj.__class__, getattr(obj, "__dict__", {}), tracker_id)


def reduce_module(pickler: Pickler, module: ModuleType) -> Reduced:
    if pickler.module_goes_by_reference(module.__name__):
        return cloudpickle.subimport, (module.__name__,)
    state = {name: value for name, value in vars(module).items() if name != "__builtins__"}
    return cloudpickle.dynamic_subimport, (module.__name__, state)


def reduce_file(pickler: Pickler, file: Any) -> Reduced:
    for name in ("stdout", "stderr"):
        if file is getattr(sys, name) or file is getattr(sys, f"__{name}__"):
            return getattr, (sys, name)
    raise pickle.PicklingError(f"cannot pickle an open file ({file.name!r})")


def reduce_method(pickler: Pickler, method: Any) -> Reduced:
    owner = method.__self__
    if (
        str(type(owner).__module__).partition(".")[0] == HERE
    ):  # a remote function's, say: it has another class over there
        return getattr, (owner, method.__name__)
    return cloudpickle._method_reduce(method)


def reduce_directory(pickler: Pickler, path: directories.Dir) -> Reduced:
    if directories.noted.by_name:
        return Path, (str(path),)
    return rebuild.directory, directories.pack(path, pickler.named)


def reduce_memoryview(pickler: Pickler, view: memoryview) -> Reduced:
    if not view.contiguous or not view.nbytes:
        return bytes, (view.tobytes(),)
    return rebuild.view, (pickle.PickleBuffer(view), view.format, view.shape)


def reduce_weak_mapping(pickler: Pickler, mapping: Any) -> Reduced:
    return type(mapping), (dict(mapping.items()),)


class Joined:
    """A pickle and its buffers, to be pickled as one."""

    def __init__(self, stream: bytes, buffers: list[pickle.PickleBuffer]) -> None:
        self.stream = stream
        self.buffers = buffers

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild.joined, (self.stream, self.buffers)


def _by_name(name: str) -> Callable[[Pickler, Any], Reduced]:
    return lambda _pickler, _sentinel: name


def _own_reducers() -> dict[type, Callable[[Pickler, Any], Reduced]]:
    reducers: dict[type, Callable[[Pickler, Any], Reduced]] = {
        CodeType: reduce_code,
        CellType: reduce_cell,
        ModuleType: reduce_module,
        types.MethodType: reduce_method,
        io.TextIOWrapper: reduce_file,
        memoryview: reduce_memoryview,
        directories.Dir: reduce_directory,
        weakref.WeakKeyDictionary: reduce_weak_mapping,
        weakref.WeakValueDictionary: reduce_weak_mapping,
        _CACHED: reduce_cached,
        functools.cached_property: reduce_cached_property,
        typing.ParamSpec: reduce_type_variable,
        typing.NewType: reduce_new_type,
        type(dataclasses.MISSING): _by_name("MISSING"),
    }
    for name, reducer in (("TypeVarTuple", reduce_type_variable), ("TypeAliasType", reduce_type_alias)):
        if hasattr(typing, name):
            reducers[getattr(typing, name)] = reducer
    for name in ("_HAS_DEFAULT_FACTORY", "KW_ONLY"):  # like MISSING, asked for by identity
        if hasattr(dataclasses, name):
            reducers[type(getattr(dataclasses, name))] = _by_name(name)
    for kind, reduce in cloudpickle.Pickler._dispatch_table.items():
        if kind not in reducers:
            reducers[kind] = functools.partial(_without_pickler, reduce)
    return reducers


def _without_pickler(reduce: Callable[[Any], Reduced], _pickler: Pickler, value: Any) -> Reduced:
    return reduce(value)


REDUCERS = _own_reducers()
