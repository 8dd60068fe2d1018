"""Why something cannot be pickled: the very path to the culprit, and what to do about it.

Walks the objects as the pickler would, by the same reductions, until one fails. Runs only after a pickle
has failed; bounded in objects and time. Changes nothing and owns nothing.
"""

from __future__ import annotations

import copyreg
import pickle
import re
import time
from collections.abc import Iterator, Mapping
from types import CellType, FunctionType
from typing import Any, NamedTuple, cast

from ..model.errors import RemoteExecError, SerializationError
from .pickling import Named, Pickler

MAX_OBJECTS = 200_000
MAX_SECONDS = 3.0
_MAX_SHOWN_PARTS = 12

# What the pickler saves itself, without asking for a reduction.
_PLAIN = (type(None), bool, int, float, str, bytes, bytearray, pickle.PickleBuffer)

# What the culprit's type is called, or begins with -> what to do. The first that fits is said.
_HINTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("_thread.", "threading.", "multiprocessing.synchronize.", "asyncio.locks."),
        "locks and threads belong to one process: create it inside the function, "
        "or leave it out of the object's `__getstate__`",
    ),
    (
        ("_io.", "tempfile.", "fileinput.", "zipfile.", "tarfile."),
        "pass the path or the content, and open the file inside the function",
    ),
    (
        ("socket.", "ssl.", "_ssl.", "select.", "selectors."),
        "connect inside the function, and pass the address",
    ),
    (
        ("generator", "coroutine", "async_generator", "frame", "traceback"),
        "running code cannot travel: pass a list of its values, or the function that makes it",
    ),
    (
        (
            "sqlite3.",
            "psycopg",
            "pymysql",
            "sqlalchemy.",
            "pymongo.",
            "redis.",
            "asyncpg.",
            "duckdb",
            "_duckdb",
        ),
        "a database connection belongs to one process: pass its address, and connect inside the function",
    ),
    (("module",), "import the module inside the function"),
    (
        ("subprocess.", "concurrent.futures.", "asyncio.", "_asyncio.", "multiprocessing."),
        "create it inside the function",
    ),
    (
        ("torch.cuda", "torch._C._Cuda", "cupy.", "pycuda.", "numba.cuda", "jaxlib."),
        "what lives on a GPU belongs to one process: create it inside the function, "
        "or move the data to the CPU first",
    ),
    (("weakref", "ReferenceType"), "pass the object itself instead of a weak reference to it"),
    (("_contextvars.", "contextvars."), "pass the variable's value"),
    (
        ("ctypes.", "_ctypes.", "_cffi", "PyCapsule"),
        "memory of a C library cannot travel: make it inside the function",
    ),
)
_ANY_HINT = "create it inside the function, or pass what it is made from"
_DEPTH_HINT = "flatten it, or give its class a `__reduce__` that does not recurse (a long linked list, say)"


# What pickle says of a type that it has no way for; the path says as much.
_BARE = re.compile(r"cannot pickle '[^']*' object(?:s)?")


class _Step(NamedTuple):
    """One object on the way, and how it was reached."""

    label: str
    obj: Any
    parent: _Step | None


def explain(
    obj: Any, error: BaseException, *, name: str = "", by_value: frozenset[str] = frozenset()
) -> SerializationError:
    """Say which part of `obj` made pickling fail with `error`.

    Args:
        obj: what was pickled.
        error: what the pickler raised.
        name: what to call `obj`; its own name or type if empty.
        by_value: as given to `pickling.dump`.

    Example:
        >>> import threading
        >>> explain({"a": threading.Lock()}, TypeError()).path
        ('dict', "dict['a']", '_thread.lock')
    """
    return _explain([_Step(name or _name_of(obj), obj, None)], error, by_value)


def explain_arguments(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: BaseException,
    *,
    by_value: frozenset[str] = frozenset(),
) -> SerializationError:
    """`explain` for the arguments of one call; the path begins with the argument's position or name."""
    steps = [_Step(f"argument {index}", value, None) for index, value in enumerate(args)]
    steps += [_Step(f"argument {key!r}", value, None) for key, value in kwargs.items()]
    return _explain(steps, error, by_value)


def is_told(error: Exception) -> bool:
    """Whether an error says by itself what cannot be pickled, or why nothing can be now."""
    return isinstance(error, RemoteExecError) and bool(getattr(error, "path", True))


def _explain(roots: list[_Step], error: BaseException, by_value: frozenset[str]) -> SerializationError:
    culprit, reason = _find(roots, by_value)
    too_deep = isinstance(error, RecursionError) or "recursion" in str(error)
    if culprit is None:
        where = " and ".join(step.label for step in roots[:3]) or "the arguments"
        if too_deep:
            return SerializationError(
                f"cannot pickle {where}: nested too deeply", path=(where,), hint=_DEPTH_HINT
            )
        return SerializationError(f"cannot pickle {where}: {_said(error)}", path=(where,), hint=_ANY_HINT)
    kind = _type_name(culprit.obj)
    labels = _labels(culprit)
    path = labels if labels[-1] == kind else (*labels, kind)
    said = "" if _BARE.fullmatch(str(reason)) else _said(reason)
    message = f"cannot pickle {_shown(path)}" + (f": {said}" if said else "")
    return SerializationError(message, path=path, hint=_hint(culprit.obj, kind))


def _said(error: BaseException | None) -> str:
    if error is None:
        return ""
    text = str(error) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "…"


def _shown(path: tuple[str, ...]) -> str:
    if len(path) > _MAX_SHOWN_PARTS:
        half = _MAX_SHOWN_PARTS // 2
        path = (*path[:half], f"… {len(path) - 2 * half} more …", *path[-half:])
    return " → ".join(path)


def _labels(step: _Step) -> tuple[str, ...]:
    labels: list[str] = []
    at: _Step | None = step
    while at is not None:
        if at.label:
            labels.append(at.label)
        at = at.parent
    return tuple(reversed(labels))


def _hint(culprit: Any, kind: str) -> str:
    if isinstance(culprit, FunctionType | type):
        return "define it at the top of a module or script, or inside the function that uses it"
    for base in type(culprit).__mro__:
        for prefixes, hint in _HINTS:
            if (base is type(culprit) and kind.startswith(prefixes)) or _full_name(base).startswith(prefixes):
                return hint
    return _ANY_HINT


# the walk


def _find(roots: list[_Step], by_value: frozenset[str]) -> tuple[_Step | None, BaseException | None]:
    """The first object, in the pickler's order, whose own reduction fails; and why."""
    pickler = Pickler(_Discard(), 5)
    pickler.by_value = by_value
    pickler.named = Named()
    deadline = time.monotonic() + MAX_SECONDS
    seen: dict[int, Any] = {}  # keeps what reductions made alive, so that no id comes twice
    pending = list(reversed(roots))
    while pending and len(seen) < MAX_OBJECTS and time.monotonic() < deadline:
        step = pending.pop()
        obj = step.obj
        if type(obj) in _PLAIN or id(obj) in seen:
            continue
        seen[id(obj)] = obj
        try:
            pending += reversed([_Step(label, part, step) for label, part in _parts(pickler, obj)])
        except Exception as error:
            return step, error
    return None, None


class _Discard:
    def write(self, data: Any) -> None:
        pass


def _parts(pickler: Pickler, obj: Any) -> Iterator[tuple[str, Any]]:
    """What the pickler would save for `obj`, labelled; raises what it would raise for `obj` itself."""
    kind = _kind(obj)
    if kind in (list, tuple):
        yield from ((f"{kind.__name__}[{index}]", part) for index, part in enumerate(obj))
    elif kind is dict:
        for key, part in obj.items():
            yield "dict key", key
            yield f"dict[{_key(key)}]", part
    elif kind in (set, frozenset):
        yield from ((f"element of a {kind.__name__}", part) for part in obj)
    else:
        yield from _reduced_parts(pickler, obj)


def _reduced_parts(pickler: Pickler, obj: Any) -> Iterator[tuple[str, Any]]:
    reduced = pickler.reducer_override(obj)
    if reduced is NotImplemented:
        if isinstance(obj, FunctionType | type):
            return  # by reference, and found
        reduce: Any = copyreg.dispatch_table.get(_kind(obj))
        reduced = reduce(obj) if reduce is not None else obj.__reduce_ex__(5)
    if isinstance(reduced, str):
        _check_global(pickler, obj, reduced)
    elif isinstance(obj, FunctionType | type) and len(reduced) < 3:
        return  # by the name that hosts know
    elif isinstance(obj, FunctionType):
        yield from _function_parts(obj, reduced)
    elif isinstance(obj, type):
        yield from _class_parts(obj, reduced)
    elif isinstance(obj, CellType):
        yield from (("", part) for part in (reduced[2] if len(reduced) > 2 else ()))
    else:
        yield from _instance_parts(obj, reduced)


def _check_global(pickler: Pickler, obj: Any, name: str) -> None:
    pickler.dump(obj)  # small: a name; it raises when the name leads elsewhere


def _function_parts(function: FunctionType, reduced: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    state = reduced[2]
    if "globals" not in state:  # single dispatch
        yield "", reduced[1]
        yield from state.items()
        return
    code, namespace, *_ = reduced[1]
    yield from (("", code), ("", namespace))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield f"closure {name!r}", cell
    yield from ((f"global {name!r}", part) for name, part in state["globals"].items())
    yield from ((f"annotation's {name!r}", part) for name, part in state["hints"].items())
    attributes: dict[str, Any] = dict(state["attributes"])
    yield from _defaults(function)
    yield from (
        (f"annotation of {name!r}", part) for name, part in (attributes.pop("__annotations__", {})).items()
    )
    for name in ("__defaults__", "__kwdefaults__"):
        attributes.pop(name, None)
    yield from (
        (f"{function.__name__}.{name}", part) for name, part in {**attributes, **state["dict"]}.items()
    )
    yield from (("", module) for module in state["modules"])


def _defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    code, defaults = function.__code__, function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    for name, part in zip(positional[len(positional) - len(defaults) :], defaults, strict=False):
        yield f"default of {name!r}", part
    for name, part in (function.__kwdefaults__ or {}).items():
        yield f"default of {name!r}", part


def _class_parts(cls: type, reduced: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    name, state = cls.__name__, reduced[2]
    yield from ((f"base of {name}", base) for base in (type(cls), *cls.__bases__))
    yield from ((f"{name}.{key}", part) for key, part in state["attributes"].items())
    for member, extras in state.get("members", {}).items():
        yield from ((f"{name}.{member}.{key}", part) for key, part in extras.items())
    yield from ((f"annotation's {key!r}", part) for key, part in state["hints"].items())


def _instance_parts(obj: Any, reduced: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    kind = type(obj).__name__
    padded: tuple[Any, ...] = (*reduced, *(None,) * 6)
    function, args, state, items, pairs, setter = padded[:6]
    yield "", function
    # A class's own name in the arguments of its making says nothing; what else stands there, does.
    for index, part in enumerate(args):
        yield ("" if isinstance(part, type) else f"{kind}, part {index} of its making"), part
    # Objects with slots give a pair of dicts.
    for attributes in state if _is_pair_of_dicts(state) else (state,):
        if type(attributes) is dict:
            named = cast("dict[str, Any]", attributes)
            yield from ((f"{kind}.{name}", part) for name, part in named.items())
        elif attributes is not None:
            yield f"state of {kind}", attributes
    yield from ((f"{kind}[{index}]", part) for index, part in enumerate(items or ()))
    for key, part in pairs or ():
        yield f"key of {kind}", key
        yield f"{kind}[{_key(key)}]", part
    if setter is not None:
        yield "", setter


def _is_pair_of_dicts(state: Any) -> bool:
    return _kind(state) is tuple and len(state) == 2 and _kind(state[1]) is dict


# names


def _kind(obj: object) -> type[Any]:
    return type(obj)


def _key(key: object) -> str:
    text = repr(key) if isinstance(key, str | int | float | bytes) else f"a {type(key).__name__}"
    return text if len(text) <= 40 else text[:39] + "…"


def _name_of(obj: Any) -> str:
    return getattr(obj, "__name__", "") if isinstance(obj, FunctionType | type) else type(obj).__name__


def _type_name(obj: Any) -> str:
    kind = _kind(obj)
    return f"{kind.__name__} {obj.__qualname__}" if isinstance(obj, FunctionType | type) else _full_name(kind)


def _full_name(kind: type[Any]) -> str:
    return (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
