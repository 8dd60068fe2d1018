"""One exception object to bytes and back, without its traceback and chain.

Pickle calls ``cls(*args)``, and constructors written in Python rarely take what ends up in ``args``. So such
an exception travels in parts, ``(class, arguments, state)``, and is put together by its built-in base alone;
a class with a ``__reduce__`` of its own is asked. What cannot be pickled is left out, or becomes text.
No state is owned here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable
from types import FunctionType, MemberDescriptorType
from typing import Any, cast

from ..model.failure import Failure

MAX_PICKLED_BYTES = 256_000
MAX_PART_BYTES = 32_000
MAX_TEXT = 1_000

Dumps = Callable[[object], bytes]
Loads = Callable[[bytes], object]


def pickled(exc: BaseException, *, dumps: Dumps) -> bytes | None:
    """Return bytes that `unpickled` can make the exception of, the truest first, or None. It never raises."""
    for form in (_whole, functools.partial(_salvaged, dumps=dumps)):
        with contextlib.suppress(BaseException):  # user code: whatever it raises, the capture goes on
            data = dumps(form(exc))
            if len(data) <= MAX_PICKLED_BYTES:
                return data
    return None


def unpickled(failure: Failure, *, loads: Loads) -> BaseException:
    """Return the exception that `pickled` took apart.

    Raises:
        Exception: anything, if it cannot be had here.
    """
    made = loads(failure.pickled or b"")
    if isinstance(made, tuple):
        parts: Any = made  # pyright: ignore[reportUnknownVariableType]
        cls, arguments, state = parts
        made = construct(cls or find_class(failure), arguments, state=state)
    cls = type(made)
    if (
        isinstance(made, BaseException)
        and cls.__qualname__ == failure.qualname
        and cls.__module__ == failure.module
    ):
        return made
    raise TypeError(f"{failure.module}.{failure.qualname} came back as {cls.__module__}.{cls.__qualname__}")


def find_class(failure: Failure) -> type[BaseException]:
    """Return the class that a failure names, importing its module.

    Raises:
        Exception: anything, if it cannot be had here.
    """
    found: Any = sys.modules.get(failure.module) or importlib.import_module(failure.module)
    for part in failure.qualname.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise TypeError(f"{failure.module}.{failure.qualname} is no exception class")
    return found


def construct(
    cls: type[BaseException], arguments: tuple[object, ...], *, state: dict[str, object] | None = None
) -> BaseException:
    """Return an exception without calling any constructor written in Python."""
    exc = cast("BaseException", _native(cls, "__new__")(cls, *arguments))
    with contextlib.suppress(Exception):
        _native(cls, "__init__")(exc, *arguments)
    try:
        # sets attributes: ImportError and its like keep some of them in no `__dict__`
        BaseException.__setstate__(exc, state)
    except Exception:  # a class that forbids it, such as a frozen dataclass
        exc.__dict__.update(state or {})
    return exc


def _native(cls: type, name: str) -> Any:
    """Return the most derived method of this name that is not written in Python."""
    return next(
        getattr(base, name)
        for base in cls.__mro__
        if name in vars(base) and not isinstance(vars(base)[name], (FunctionType, staticmethod))
    )


def _whole(exc: BaseException) -> object:
    cls = type(exc)
    constructors = [getattr(cls, "__init__"), getattr(cls, "__new__")]  # noqa: B009 (pyright: unsafe on instances)
    written = any(isinstance(each, FunctionType) for each in constructors) or _slots(exc)
    if _has_own_reduce(cls) or not written:
        return exc
    return cls, *_parts(exc)


def _salvaged(exc: BaseException, *, dumps: Dumps) -> object:
    """Return the parts that can be pickled; the rest of the arguments as text."""

    def can(value: object) -> bool:
        with contextlib.suppress(BaseException):
            return len(dumps(value)) <= MAX_PART_BYTES
        return False

    cls = type(exc)
    arguments, state = _parts(exc)
    return (
        cls if can(cls) else None,
        tuple(value if can(value) else _text(value) for value in arguments),
        {name: value for name, value in state.items() if can(value)},
    )


def _text(value: object) -> str:
    with contextlib.suppress(BaseException):
        return repr(value)[:MAX_TEXT]
    return f"<{type(value).__qualname__}: repr() failed>"


def _parts(exc: BaseException) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return an exception's arguments and state, asking the reduce of its built-in base only."""
    if _has_own_reduce(type(exc)):
        return exc.args, {**exc.__dict__, **_slots(exc)}
    _, arguments, *rest = cast("tuple[Any, ...]", exc.__reduce__())
    return arguments, {**(rest[0] or {} if rest else {}), **_slots(exc)}


def _slots(exc: BaseException) -> dict[str, object]:
    """Return the attributes that an exception's class keeps in slots, which its reduce leaves out."""
    names = [
        name
        for base in type(exc).__mro__
        for name, kept in vars(base).items()
        if isinstance(kept, MemberDescriptorType) and "__slots__" in vars(base)
    ]
    return {name: getattr(exc, name) for name in names if hasattr(exc, name)}


def _has_own_reduce(cls: type) -> bool:
    names = ("__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")
    return any(isinstance(vars(base).get(name), FunctionType) for base in cls.__mro__ for name in names)
