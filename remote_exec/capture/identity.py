"""What a function and its arguments are, as one digest that every process computes alike.

A pickle's bytes are no identity: they differ from process to process (random ids of classes, the order of sets,
file names). Here values are followed by what they consist of. Code is what its bytecode, constants and names are,
not where it stands in a file; what code reaches by name in an importable module is the name alone, since modules
have digests of their own (the bundle, the environment). Objects are what they pickle as: whatever the worker gets
to see is in the digest, so equal digests mean equal input. The other way round does not hold (an object whose
pickle differs from process to process has another digest in each): that costs a cached result, never a wrong one.

Values are only read, nothing is executed but what pickling executes. Owns no state.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import struct
import sys
from collections.abc import Callable, Iterable
from pickle import PickleBuffer
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, cast

from ..model.errors import ConfigurationError
from ..serial.pickling import Named, Pickler
from .by_value import global_names, module_travels_by_value, travels_by_value

_ABSENT = object()
_CACHED_FUNCTION: type = type(functools.lru_cache(len))
# set by the interpreter, abc or pickling itself; what dataclasses add follows from the rest
_CLASS_BOOKKEEPING = frozenset(
    {
        "__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__slotnames__", "__annotations_cache__",
        "__annotate__", "__annotate_func__", "__dataclass_fields__", "__dataclass_params__",
        "__abstractmethods__", "_abc_impl", "__static_attributes__", "__firstlineno__", "__classcell__",
        "__parameters__",
    }
)  # fmt: skip
# whether two equal ones are one object depends on whether their code was compiled or loaded
_UNNUMBERED: frozenset[type] = frozenset({tuple, frozenset, CodeType})
_FUNCTION_BOOKKEEPING = frozenset({"__wrapped__"})


def digest_of(value: object, *, name: str) -> str:
    """Return 64 hexadecimal digits that equal values have in every process of this Python version.

    Args:
        value: a function with its world, an argument, or anything else that can be pickled.
        name: what to call it in an error's path.

    Raises:
        ConfigurationError: something in it has no identity that lasts; the message leads there.

    Example:
        >>> digest_of({"a", "b"}, name="letters") == digest_of({"b", "a"}, name="letters")
        True
        >>> digest_of(1, name="number") == digest_of(1.0, name="number")
        False
    """
    return _Walk().digest(value, name).hex()


class _Walk:
    """One digest. What comes up again is told by its number, so that a structure's knots count and cycles end."""

    def __init__(self, path: tuple[str, ...] = ()) -> None:
        self._hash = hashlib.sha256()
        self._numbers: dict[int, int] = {}
        self._alive: list[object] = []  # keeps ids unique while they are compared
        self._path = list(path)
        self._pickler = Pickler(_Discard(), 5)
        self._pickler.named = Named()  # folders go by their content

    def digest(self, value: object, name: str) -> bytes:
        self._path.append(name)
        try:
            self._take(value)
        except ConfigurationError:
            raise
        except RecursionError:
            raise self._refusal("it is nested too deeply") from None
        except Exception as error:
            raise self._refusal(f"{type(error).__name__}: {error}") from error
        self._path.pop()
        return self._hash.digest()

    def _refusal(self, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"cache=True: {' → '.join(self._path)} has no identity that could be compared with an earlier "
            f"call's: {reason}",
            option="cache",
            hint="pass plain values, arrays, data frames or dataclasses, or call it with options(cache=False)",
        )

    # --- values -------------------------------------------------------------------------------------------------

    def _take(self, value: Any) -> None:
        kind = _kind(value)
        plain = _PLAIN.get(kind)
        if plain is not None:
            data = plain(value)
            self._tag(kind.__name__, len(data))
            self._hash.update(data)
            return
        if kind not in _UNNUMBERED:
            number = self._numbers.get(id(value))
            if number is not None:
                self._tag("again", number)
                return
            self._numbers[id(value)] = len(self._numbers)
            self._alive.append(value)
        self._follow(value, kind)

    def _tag(self, word: str, number: int = 0) -> None:
        self._hash.update(f"{word}:{number};".encode())

    def _parts(self, word: str, parts: Iterable[tuple[str, Any]]) -> None:
        """Take labelled parts in order; empty labels do not show in paths."""
        count = 0
        self._tag(word)
        for label, part in parts:
            count += 1
            if label:
                self._path.append(label)
            self._take(part)
            if label:
                self._path.pop()
        self._tag("end", count)

    def _follow(self, value: Any, kind: type[Any]) -> None:
        if kind in (list, tuple):
            self._parts(kind.__name__, ((f"[{index}]", part) for index, part in enumerate(value)))
        elif kind is dict:
            self._mapping(value)
        elif kind in (set, frozenset):
            self._set(value, kind)
        elif kind is FunctionType:
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif kind is CodeType:
            self._code(value)
        elif kind is ModuleType:
            self._module(value)
        elif _is_array(kind):
            self._array(value)
        elif _is_tensor(kind):
            self._tensor(value)
        else:
            self._object(value, kind)

    def _mapping(self, value: dict[Any, Any]) -> None:
        # in their order: a function may see it
        pairs = ((key, part) for key, part in value.items())
        self._parts("dict", (item for k, v in pairs for item in (("", k), (f"[{_shown(k)}]", v))))

    def _set(self, value: Iterable[object], kind: type) -> None:
        # not in their order: it changes with the process's hash seed
        digests = sorted(_Walk(tuple(self._path)).digest(part, "an element") for part in value)
        self._tag(kind.__name__, len(digests))
        self._hash.update(b"".join(digests))

    def _array(self, array: Any) -> None:
        self._parts("array", (("", repr(array.dtype)), ("", tuple(array.shape))))
        if array.dtype.hasobject:
            self._parts("elements", ((f".flat[{i}]", part) for i, part in enumerate(array.ravel().tolist())))
            return
        contiguous = array if array.flags.c_contiguous else array.copy(order="C")
        self._hash.update(contiguous.reshape(-1).view("u1").data if contiguous.size else b"")

    def _tensor(self, tensor: Any) -> None:
        torch: Any = sys.modules["torch"]
        facts = (str(tensor.dtype), str(tensor.device), bool(tensor.requires_grad), type(tensor).__qualname__)
        plain = tensor.detach().cpu().contiguous()
        self._parts("tensor", (("", facts), ("", tuple(tensor.shape))))
        self._hash.update(plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b"")

    # --- code ---------------------------------------------------------------------------------------------------

    def _function(self, function: FunctionType) -> None:
        if not travels_by_value(function):
            self._name("function", function.__module__, function.__qualname__)
            return
        if hasattr(function, "registry") and hasattr(function, "dispatch"):  # functools.singledispatch
            registry = cast("MappingProxyType[type, Any]", cast("Any", function).registry)
            self._parts(
                "dispatch", (item for pair in registry.items() for item in (("", part) for part in pair))
            )
            return
        self._path.append(function.__qualname__.rpartition(".")[2])
        self._parts("function", self._function_parts(function))
        self._path.pop()

    def _function_parts(self, function: FunctionType) -> Iterable[tuple[str, Any]]:
        code = function.__code__
        yield "", code
        yield "defaults", function.__defaults__
        yield "defaults", _sorted(function.__kwdefaults__)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            yield f"closure {name!r}", cell
        for name in global_names(code):
            found = function.__globals__.get(name, _ABSENT)
            yield "", name
            if found is not _ABSENT:  # else a built-in, or nothing
                yield f"global {name!r}", found
        yield "annotations", _annotations(function)
        yield "attributes", _sorted(vars(function), without=_FUNCTION_BOOKKEEPING)

    def _code(self, code: CodeType) -> None:
        facts = (
            code.co_code, code.co_name, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
            code.co_flags, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
            getattr(code, "co_exceptiontable", b""),
        )  # fmt: skip
        self._parts("code", (*(("", fact) for fact in facts), ("", code.co_consts)))

    def _class(self, cls: type) -> None:
        if not travels_by_value(cls):
            self._name("class", cls.__module__, cls.__qualname__)
            return
        self._path.append(cls.__qualname__.rpartition(".")[2])
        self._parts("class", self._class_parts(cls))
        self._path.pop()

    def _class_parts(self, cls: type) -> Iterable[tuple[str, Any]]:
        yield "", cls.__name__
        yield "", type(cls)
        yield from (("", base) for base in cls.__bases__)
        for name, member in sorted(vars(cls).items()):
            if name in _CLASS_BOOKKEEPING or isinstance(member, (MemberDescriptorType, GetSetDescriptorType)):
                continue
            yield "", name
            yield f".{name}", member

    def _module(self, module: ModuleType) -> None:
        if module_travels_by_value(module):
            names = {name: part for name, part in vars(module).items() if not name.startswith("__")}
            self._parts("module", ((f".{name}", part) for name, part in sorted(names.items())))
        else:
            self._name("module", module.__name__, "")

    def _name(self, word: str, module: str | None, name: str) -> None:
        self._parts(word, (("", module or ""), ("", name)))

    # --- everything else: what it pickles as --------------------------------------------------------------------

    def _object(self, value: Any, kind: type[Any]) -> None:
        parts = _own_parts(value, kind)
        if parts is None:
            wrapped = getattr(value, "__wrapped__", None)
            if kind.__module__.startswith("remote_exec.") and wrapped is not None:
                parts = (wrapped,)  # a decorated function: where it runs does not matter
        if parts is not None:
            self._parts(kind.__name__, (("", part) for part in parts))
            return
        reduced = self._reduced(value, kind)
        if isinstance(reduced, str):
            self._name("name", getattr(value, "__module__", None), reduced)
            return
        padded: tuple[Any, ...] = (*reduced, *(None,) * 6)
        make, args, state, items, pairs, setter = padded[:6]
        self._path.append(kind.__name__)
        self._parts(
            "object",
            (
                ("", make),
                *(("", part) for part in args),
                *_state_parts(state),
                *((f"[{index}]", part) for index, part in enumerate(items or ())),
                *(item for k, v in pairs or () for item in (("", k), (f"[{_shown(k)}]", v))),
                ("", setter),
            ),
        )
        self._path.pop()

    def _reduced(self, value: Any, kind: type[Any]) -> Any:
        reduced = self._pickler.reducer_override(value)
        if reduced is not NotImplemented:
            return reduced
        reduce: Callable[[Any], Any] | None = copyreg.dispatch_table.get(kind)
        return reduce(value) if reduce is not None else value.__reduce_ex__(5)


class _Discard:
    def write(self, data: Any) -> None:
        pass


def _kind(value: object) -> type[Any]:
    return type(value)


def _float(value: float) -> bytes:
    return struct.pack("<d", value)


_PLAIN: dict[type, Callable[[Any], bytes | bytearray | memoryview]] = {
    type(None): lambda value: b"",
    type(Ellipsis): lambda value: b"",
    type(NotImplemented): lambda value: b"",
    bool: lambda value: b"1" if value else b"0",
    int: lambda value: hex(value).encode(),
    float: _float,
    complex: lambda value: _float(value.real) + _float(value.imag),
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: value,
}


def _own_parts(value: Any, kind: type[Any]) -> tuple[Any, ...] | None:
    """What wraps code, and would else be followed by way of its pickle, which has random parts."""
    if kind is CellType:
        try:
            return (value.cell_contents,)
        except ValueError:
            return ()
    if kind is MethodType:
        return (value.__func__, value.__self__)
    if kind in (staticmethod, classmethod):
        return (value.__func__,)
    if kind is property:
        return (value.fget, value.fset, value.fdel)
    if kind is functools.cached_property:
        return (value.func,)
    if kind is functools.partial:
        return (value.func, value.args, value.keywords)
    if kind is _CACHED_FUNCTION:
        return (value.__wrapped__, sorted(value.cache_parameters().items()))
    if kind is BuiltinFunctionType and (value.__self__ is None or isinstance(value.__self__, ModuleType)):
        return (value.__module__, value.__qualname__)
    if kind in (bytearray, memoryview):
        return (bytes(value),)
    if kind is PickleBuffer:
        return (value.raw().tobytes(),)
    if kind is MappingProxyType:
        return (dict(value),)
    return None


def _state_parts(state: Any) -> Iterable[tuple[str, Any]]:
    if type(state) is dict:
        attributes = cast("dict[str, Any]", state)
        for name, part in attributes.items():
            yield "", name
            yield f".{name}", part
    else:
        yield "", state


def _sorted(names: dict[str, Any] | None, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    return {name: names[name] for name in sorted(names) if name not in without} if names else {}


def _annotations(function: FunctionType) -> dict[str, Any]:
    # evaluated on first use from Python 3.14 on, when a name in them may not exist
    try:
        return dict(function.__annotations__)
    except NameError:
        return {}


def _is_array(kind: type[Any]) -> bool:
    return kind.__module__ == "numpy" and kind.__name__ == "ndarray"


def _is_tensor(kind: type[Any]) -> bool:
    return kind.__module__ == "torch" and kind.__name__ == "Tensor"


def _shown(key: object) -> str:
    text = repr(key) if isinstance(key, (str, int, float, bytes)) else f"a {type(key).__name__}"
    return text if len(text) <= 40 else text[:39] + "…"
