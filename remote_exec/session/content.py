"""What objects hold, as a digest: two looks at an object tell whether anything in it has changed in between.

The digest is over the object's pickle, functions and classes of the namespace by value, and over the memory that it
refers to. It compares looks of one process at one object; it says nothing across processes.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType, ModuleType
from typing import Any, ClassVar, NamedTuple

from ..serial import pickling, rebuild, reducers
from ..serial.cloudpickle_copy import RUNTIME, cloudpickle

PIECE_BYTES = 4 << 20
ALONE_BYTES = 8 << 20  # memory beyond this is looked at by two threads
ADDRESS_BYTES = 64 << 10


class Space:
    """Stands for the namespace itself, in pickles: each end has its own."""

    def __reduce__(self) -> Any:
        return loading_namespace, ()


SPACE = Space()


class Loading:
    """One end, while something is loaded there.

    Args:
        namespace: into which.
        kept: what stays at this end -> by which number the other end names it.
    """

    _running: ClassVar[list[Loading]] = []

    def __init__(self, namespace: dict[str, Any], kept: Mapping[int, Any]) -> None:
        self.namespace = namespace
        self.kept = kept

    def __enter__(self) -> None:
        self._running.append(self)

    def __exit__(self, *_: object) -> None:
        self._running.pop()

    @classmethod
    def current(cls) -> Loading:
        """Return the innermost."""
        return cls._running[-1]


def loading_namespace() -> dict[str, Any]:
    """Return the namespace into which is being loaded."""
    return Loading.current().namespace


loading_namespace.__module__ = f"{RUNTIME}.session.content"


class ValuePickler(pickling.Pickler):
    """Functions and classes of one namespace by value, but for what they find in it.

    Attributes:
        namespace: whose functions keep it as their globals.
        functions: of the namespace, that were met.
        by_value: identities of the functions and classes that went by value.
    """

    namespace: dict[str, Any]
    functions: list[FunctionType]
    by_value_ids: set[int]

    def reducer_override(self, obj: object) -> Any:
        """As everywhere, and what belongs to the namespace stays bound to it."""
        reduced = self._reduce_module(obj) if type(obj) is ModuleType else super().reducer_override(obj)
        if isinstance(obj, type) and type(reduced) is tuple and reduced[0] in _CLASS_MAKERS:
            self.by_value_ids.add(id(obj))
        return reduced

    def _reduce_function(self, function: FunctionType) -> Any:
        if (function.__module__ or "").startswith(RUNTIME) or self.goes_by_reference(function):
            return super()._reduce_function(function)
        self.by_value_ids.add(id(function))
        self.functions.append(function)
        if function.__globals__ is not self.namespace:
            return super()._reduce_function(function)
        if function.__code__ is reducers._SINGLE_DISPATCH_CODE:
            return reducers._reduce_single_dispatch(function)
        state = {
            "globals": {},
            "hints": {},
            "dict": vars(function),
            "attributes": reducers._attributes(function),
        }
        args = (function.__code__, SPACE, function.__name__, function.__closure__)
        return rebuild.make_function, args, state, None, None, rebuild.set_function_state

    def _reduce_module(self, module: ModuleType) -> Any:
        if vars(module) is self.namespace:
            return cloudpickle.subimport, ("__main__",)
        return reducers.reduce_module(self, module)


_CLASS_MAKERS = (rebuild.make_class, rebuild.make_enum)


class Look(NamedTuple):
    """What one look at an object found.

    Attributes:
        digest: of all that it holds.
        size: bytes of it.
        objects: identity -> object, of what can be referred to in it.
        functions: of the namespace, that it holds.
        modules: names of modules that it needs.
        by_value: identities of functions and classes that went by value.
        memory: where large memory lies and how long it is -> its digest.
    """

    digest: bytes
    size: int
    objects: dict[int, Any]
    functions: list[FunctionType]
    modules: set[str]
    by_value: set[int]
    memory: dict[tuple[int, int], bytes]
    keeper: Any = None


def pickler_of(kind: Callable[..., Any], file: Any, buffers: Any, namespace: dict[str, Any]) -> Any:
    """Return a pickler of a `ValuePickler` class, ready."""
    pickler = kind(file, 5, True, buffers)
    pickler.namespace = namespace
    pickler.functions = []
    pickler.by_value_ids = set()
    pickler.named = pickling.Named()
    return pickler


def look(obj: Any, namespace: dict[str, Any]) -> Look:
    """Look at an object.

    Raises:
        Exception: whatever says that it cannot be pickled.
    """
    parts = pickling._Chunks()
    pickler = pickler_of(ValuePickler, parts, parts, namespace)
    pickler.dump(obj)
    buffers = [part for part in parts if type(part) is pickle.PickleBuffer]
    chunks = [part for part in parts if type(part) is not pickle.PickleBuffer]
    whole = hashlib.sha256()
    for chunk in chunks:
        whole.update(chunk)
    memory: dict[tuple[int, int], bytes] = {}
    size = sum(map(len, chunks))
    for buffer in buffers:
        view = buffer.raw()
        digest = digest_of(view)
        whole.update(digest)
        memory[address_of(view)] = digest
        size += view.nbytes
    objects = {key: held for key, (_, held) in pickler.memo.copy().items()}
    return Look(
        whole.digest(),
        size,
        objects,
        pickler.functions,
        pickler.named.modules,
        pickler.by_value_ids,
        memory,
        pickler,
    )


def address_of(view: memoryview) -> tuple[int, int]:
    """Return where memory lies and how long it is; (0, 0) where that cannot be told."""
    import ctypes

    if view.readonly:
        return 0, 0
    return ctypes.addressof(ctypes.c_char.from_buffer(view)), view.nbytes


def digest_of(view: memoryview) -> bytes:
    """Return the digest of memory; of much of it by two threads, since hashing lets go of the interpreter."""
    view = view.cast("B") if view.format != "B" else view
    if view.nbytes < ALONE_BYTES:
        return hashlib.sha256(view).digest()
    with ThreadPoolExecutor(2) as threads:
        digests = threads.map(lambda piece: hashlib.sha256(piece).digest(), _pieces(view))
    return hashlib.sha256(b"".join(digests)).digest()


def _pieces(view: memoryview) -> Iterator[memoryview]:
    return (view[start : start + PIECE_BYTES] for start in range(0, view.nbytes, PIECE_BYTES))
