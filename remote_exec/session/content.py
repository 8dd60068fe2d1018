"""What objects hold, as a digest: two looks at an object tell whether anything in it has changed in between.

The digest is over the object's pickle, functions and classes of the namespace by value, and over the memory that it
refers to. It compares looks of one process at one object; it says nothing across processes. Nothing that is looked
at is copied, and pickles are hashed as they are made, not kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import EnumMeta
from types import FunctionType, MemberDescriptorType, ModuleType
from typing import Any, ClassVar, NamedTuple

from ..serial import pickling, rebuild, reducers
from ..serial.cloudpickle_copy import RUNTIME, cloudpickle

PIECE_BYTES = 1 << 20  # of memory: what has changed is found, and told, in pieces of this size
ALONE_BYTES = 8 << 20  # memory beyond this is looked at by two threads
OF_PANDAS = frozenset({"pandas.core.internals.blocks", "pandas.core.internals.managers"})
_HERE = f"{RUNTIME}.session.content"


class Space:
    """Stands for the namespace itself, in pickles: each end has its own."""

    def __reduce__(self) -> Any:
        return loading_namespace, ()


SPACE = Space()


class StandIn:
    """What stands for an object that is elsewhere; see `kept.Kept`."""

    def told(self) -> Any:
        """Return what goes into an update instead."""
        raise NotImplementedError


class Loading:
    """One end, while something is loaded there. Nothing that has been there before changes meanwhile.

    Args:
        namespace: into which.
        keeping: what stays at either end (`kept.KeptHere`).
        blocks: of pandas, that have been met (`frames.Blocks`).

    Attributes:
        classes: that were there before, and are told of as if they were new, with their attributes.
        parts: of arrays, that get new contents once all is loaded.
    """

    _running: ClassVar[list[Loading]] = []

    def __init__(self, namespace: dict[str, Any], keeping: Any, blocks: Any) -> None:
        self.namespace = namespace
        self.keeping = keeping
        self.classes: dict[type, dict[str, Any]] = {}
        self.blocks = blocks
        self.parts: list[tuple[Any, Any]] = []

    def __enter__(self) -> Loading:
        self._running.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.pop()

    @classmethod
    def current(cls) -> Loading:
        """Return the innermost."""
        return cls._running[-1]


def loading_namespace() -> dict[str, Any]:
    """Return the namespace into which is being loaded."""
    return Loading.current().namespace


def make_class(*args: Any) -> type:
    """As `rebuild.make_class`; a class that has been here before is noted."""
    return _noted(rebuild.make_class, args)


def make_enum(*args: Any) -> type:
    """As `rebuild.make_enum`; a class that has been here before is noted."""
    return _noted(rebuild.make_enum, args)


def _noted(make: Callable[..., type], args: tuple[Any, ...]) -> type:
    known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(args[-1])
    if known is not None:
        Loading.current().classes.setdefault(known, {})
    return make(*args)


def set_class_state(cls: type, state: dict[str, Any]) -> None:
    """As `rebuild.set_class_state`; what a class that has been here before is to get waits for all to be loaded."""
    waiting = Loading.current().classes
    if cls in waiting:
        waiting[cls] = state["attributes"]
    else:
        rebuild.set_class_state(cls, state)


_CLASS_MAKERS: dict[Any, Any] = {rebuild.make_class: make_class, rebuild.make_enum: make_enum}


class ValuePickler(pickling.Pickler):
    """Functions and classes of one namespace by value, but for what they find in it.

    Attributes:
        namespace: whose functions keep it as their globals.
        stands_for: identities of objects that stay here -> what goes instead.
        functions: of the namespace, that were met.
        by_value_ids: identities of the functions and classes that went by value.
        arrays: of NumPy and PyTorch, that were met.
        blocks: of pandas, that were met.
        parts: identities of arrays that lie in others -> how these are taken apart.
        storage_parts: addresses of tensors' storages that lie in others -> the same.
    """

    namespace: dict[str, Any]
    stands_for: Mapping[int, StandIn]
    functions: list[FunctionType]
    by_value_ids: set[int]
    arrays: list[Any]
    blocks: list[Any]
    parts: Mapping[int, Any]
    storage_parts: Mapping[int, Any]

    def reducer_override(self, obj: object) -> Any:
        """As everywhere, and what belongs to the namespace stays bound to it."""
        if self.stands_for and id(obj) in self.stands_for:
            return self.stands_for[id(obj)].told()
        if isinstance(obj, StandIn):
            return obj.told()
        if type(obj) is ModuleType and vars(obj) is self.namespace:
            return cloudpickle.subimport, ("__main__",)
        module = type(obj).__module__
        if module == "numpy" and type(obj).__name__ == "ndarray":
            self.arrays.append(obj)
            array: Any = obj
            if id(obj) in self.parts:
                return self.parts[id(obj)]
            if not array.flags.writeable:
                return self._reduce_read_only(array)
        elif module == "torch.storage" and self.storage_parts and type(obj).__name__ == "UntypedStorage":
            storage: Any = obj
            if storage.data_ptr() in self.storage_parts:
                return self.storage_parts[storage.data_ptr()]
        elif module in OF_PANDAS or type(obj) is memoryview:
            reduced = self._reduce_memory(obj)
            if reduced is not None:
                return reduced
        reduced = super().reducer_override(obj)
        torch: Any = sys.modules.get("torch")
        if torch is not None and isinstance(obj, torch.Tensor):
            self.arrays.append(obj)
            return _with_gradient(obj, reduced)
        parts: Any = reduced
        if isinstance(obj, type) and type(reduced) is tuple:
            maker, args, *more = parts
            if maker in _CLASS_MAKERS:
                state = more[0]
                self.by_value_ids.add(id(obj))
                _add_repeated(obj, state["attributes"])
                return _CLASS_MAKERS[maker], args, state, None, None, set_class_state
        return parts

    def _reduce_read_only(self, array: Any) -> Any:
        reduced = super().reducer_override(array)
        return read_only, (array.__reduce_ex__(5) if reduced is NotImplemented else reduced)

    def _reduce_memory(self, obj: Any) -> Any:
        from . import frames, memory_parts  # which need this module

        if type(obj) is memoryview:
            return memory_parts.reduce_memoryview(obj)
        return frames.reduce(obj, self.blocks)

    def _reduce_function(self, function: FunctionType) -> Any:
        if (function.__module__ or "").startswith(RUNTIME) or self.goes_by_reference(function):
            return super()._reduce_function(function)
        self.by_value_ids.add(id(function))
        self.functions.append(function)
        if function.__globals__ is not self.namespace or function.__code__ is reducers._SINGLE_DISPATCH_CODE:
            return super()._reduce_function(function)
        state = {
            "globals": {},
            "hints": {},
            "dict": vars(function),
            "attributes": reducers._attributes(function),
        }
        args = (function.__code__, SPACE, function.__name__, function.__closure__)
        return rebuild.make_function, args, state, None, None, rebuild.set_function_state


def _with_gradient(tensor: Any, reduced: Any) -> Any:
    if reduced is NotImplemented:
        reduced = tensor.__reduce_ex__(5)
    parts: Any = reduced
    if not tensor.is_leaf or tensor.grad is None or type(reduced) is not tuple:
        return reduced
    return (*parts, tensor.grad, None, None, set_gradient) if len(parts) == 2 else parts


def set_gradient(tensor: Any, gradient: Any) -> None:
    """Give a tensor its gradient."""
    tensor.grad = gradient


def read_only(make: Callable[..., Any], args: tuple[Any, ...], state: Any = None) -> Any:
    """Return an array that cannot be written to."""
    made = make(*args)
    if state is not None:
        made.__setstate__(state)
    try:
        made.flags.writeable = True
    except ValueError:  # what it is a view of at the other end may be written to
        made = made.copy(order="K")
    made.flags.writeable = False
    return made


for _named in (read_only, loading_namespace, make_class, make_enum, set_class_state, set_gradient):
    _named.__module__ = _HERE


def _add_repeated(cls: type, attributes: dict[str, Any]) -> None:
    """A class may have what a base has, too: cloudpickle leaves that out."""
    if isinstance(cls, EnumMeta):
        return
    for name, value in vars(cls).items():
        if (
            name not in attributes
            and not name.startswith("__")
            and not isinstance(value, MemberDescriptorType)
        ):
            attributes[name] = value


class TooBig(Exception):  # noqa: N818 - not a failure
    """There is more in an object than is wanted."""


class Digest:
    """A pickler's file and judge of its buffers: hashes what comes.

    Args:
        most_bytes: beyond which it is given up.

    Attributes:
        size: bytes so far, memory included.
        memory: what was left out of the pickle.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        self._hash = hashlib.sha256()
        self._most = most_bytes
        self.size = 0
        self.memory: list[memoryview] = []

    def write(self, data: Any) -> None:
        """Take a piece of the pickle."""
        self._count(len(data))
        self._hash.update(data)

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Take memory; return whether it is to be a part of the pickle, since it is small."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < pickling.OUT_OF_BAND_BYTES:
            return True
        self._count(view.nbytes)
        self.memory.append(view)
        return False

    def _count(self, size: int) -> None:
        self.size += size
        if self._most is not None and self.size > self._most:
            raise TooBig

    def finish(self) -> tuple[bytes, dict[tuple[int, int], tuple[bytes, ...]]]:
        """Return the digest of all, and those of each memory's pieces, by where it lies and how long it is."""
        found: dict[tuple[int, int], tuple[bytes, ...]] = {}
        for view in self.memory:
            place = address_of(view)
            if place not in found:
                found[place] = digests_of(view)
            for digest in found[place]:
                self._hash.update(digest)
        self.memory.clear()
        return self._hash.digest(), found


class Look(NamedTuple):
    """What one look at an object found.

    Attributes:
        digest: of all that it holds.
        size: bytes of it.
        memo: identity -> (place in the pickle, object), of what can be referred to in it.
        functions: of the namespace, that it holds.
        modules: names of modules that it needs.
        by_value: identities of functions and classes that went by value.
        memory: where large memory lies and how long it is -> the digests of its pieces.
        arrays: of NumPy and PyTorch, in it.
        blocks: of pandas, in it.
        pickler: that has looked: what it made is no other object's double while it lives.
    """

    digest: bytes
    size: int
    memo: dict[int, tuple[int, Any]]
    functions: list[FunctionType]
    modules: set[str]
    by_value: set[int]
    memory: dict[tuple[int, int], tuple[bytes, ...]]
    arrays: list[Any]
    blocks: list[Any]
    pickler: Any


def pickler_of(
    kind: Callable[..., Any], file: Any, namespace: dict[str, Any], stands_for: Mapping[int, Any]
) -> Any:
    """Return a pickler of a `ValuePickler` class, ready; its file says which memory becomes part of the pickle."""
    pickler = kind(file, 5, True, file)
    pickler.namespace = namespace
    pickler.stands_for = stands_for
    pickler.functions = []
    pickler.by_value_ids = set()
    pickler.arrays = []
    pickler.blocks = []
    pickler.parts = {}
    pickler.storage_parts = {}
    pickler.named = pickling.Named()
    return pickler


def look(
    obj: Any,
    namespace: dict[str, Any],
    stands_for: Mapping[int, Any] | None = None,
    most_bytes: int | None = None,
) -> Look:
    """Look at an object.

    Args:
        obj: at which.
        namespace: whose functions and classes are followed.
        stands_for: identities of objects that are not looked into -> what stands for them.
        most_bytes: beyond which looking stops.

    Raises:
        TooBig: there is more than that in it.
        Exception: whatever says that it cannot be pickled.
    """
    file = Digest(most_bytes)
    pickler = pickler_of(ValuePickler, file, namespace, stands_for or {})
    pickler.dump(obj)
    digest, memory = file.finish()
    return Look(
        digest,
        file.size,
        pickler.memo.copy(),
        pickler.functions,
        pickler.named.modules,
        pickler.by_value_ids,
        memory,
        pickler.arrays,
        pickler.blocks,
        pickler,
    )


_WITH_STRIDES = 0x11C  # CPython's PyBUF_FULL_RO


class _Buffer(ctypes.Structure):
    """The beginning of CPython's `Py_buffer`; there is room for the rest."""

    _fields_: ClassVar[Any] = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("rest", ctypes.c_void_p * 16),
    ]


def address_of(view: memoryview) -> tuple[int, int]:
    """Return where contiguous memory lies and how long it is."""
    if not view.readonly:
        return ctypes.addressof(ctypes.c_char.from_buffer(view)), view.nbytes
    return first_of(view), view.nbytes


def first_of(view: memoryview) -> int:
    """Return where the first element lies, also of what does not lie in one piece."""
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), _WITH_STRIDES)
    try:
        return buffer.buf or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def digests_of(view: memoryview) -> tuple[bytes, ...]:
    """Return the digests of memory's pieces; of much of it by two threads: hashing lets go of the interpreter."""
    view = view.cast("B") if view.format != "B" else view
    if view.nbytes < ALONE_BYTES:
        return tuple(map(_digest, _pieces(view)))
    with ThreadPoolExecutor(2) as threads:
        return tuple(threads.map(_digest, _pieces(view)))


def _digest(piece: memoryview) -> bytes:
    return hashlib.sha256(piece).digest()


def _pieces(view: memoryview) -> Iterator[memoryview]:
    return (view[start : start + PIECE_BYTES] for start in range(0, view.nbytes, PIECE_BYTES))
