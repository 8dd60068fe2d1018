"""Objects to bytes and back: functions, arguments and results, on both sides.

Code of scripts, notebooks and function bodies goes by value; code of importable modules by name. Big
buffers stay out of band, big bytes are not copied. A pickler lives for one pickle, so nothing here is
shared between threads.

Not for untrusted bytes: whoever opened the stream has authenticated its peer.
"""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from . import arrays, reducers
from .cloudpickle_copy import RUNTIME, cloudpickle, user_modules_by_value

if TYPE_CHECKING:
    from ..model.errors import DeserializationError

# Below this a buffer costs less in the stream than as a part of its own.
OUT_OF_BAND_BYTES = 64 * 1024
BYTES_OUT_OF_BAND = 256 * 1024  # of bytes, which are copied anyway where the message is small

# Values that mean the same everywhere and hold nothing else: no need to look at them from Python.
_PLAIN = frozenset({int, float, bool, str, complex, type(None)})

Bytes = bytes | bytearray | memoryview
Buffer = pickle.PickleBuffer | Bytes


class Pickled(NamedTuple):
    """A pickle in parts that refer to the objects' own memory where they are big.

    Send it, or join it, before the objects change.

    Attributes:
        stream: the pickle itself, in chunks; usually one.
        buffers: contiguous memory that the pickle refers to by position, each `OUT_OF_BAND_BYTES` or more.
    """

    stream: list[bytes | bytearray]
    buffers: list[pickle.PickleBuffer]

    @property
    def size_bytes(self) -> int:
        """Bytes in all parts together."""
        if len(self.stream) == 1 and not self.buffers:
            return len(self.stream[0])
        return sum(map(len, self.stream)) + sum(buffer.raw().nbytes for buffer in self.buffers)

    @property
    def trees(self) -> Mapping[str, Any]:
        """What the client knows of the folders that travel with it, by their digests."""
        return getattr(self.buffers, "trees", _NO_TREES)

    def hold(self, held: object) -> None:
        """Keep what keeps its trees where they were brought, for as long as the pickle lives."""
        if isinstance(self.buffers, _Buffers):
            self.buffers.held = held


_NO_TREES: Mapping[str, Any] = {}

# As Pickled(*fields), without the call of its Python-level __new__.
_new = cast("Callable[[type[Pickled], tuple[Any, ...]], Pickled]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]


class Named:
    """What a pickle names that must be importable where it is loaded.

    Attributes:
        modules: where the classes and functions are that went by reference; more than is needed, at times.
        functions: those that went by value: what they import when they run is for others to find out.
        trees: what the client knows of the folders that travel with it, by their digests.
    """

    __slots__ = ("functions", "modules", "trees")

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.functions: list[FunctionType] = []
        self.trees: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.modules or self.functions)


class _Buffers(list[pickle.PickleBuffer]):
    """The buffers that left the stream.

    Attributes:
        trees: of the pickle; see `Named`.
        held: what keeps them where they were brought, for as long as the pickle lives.
    """

    trees: Mapping[str, Any] = _NO_TREES
    held: object = None


class _Chunks(list[Any]):
    """A file for the pickler that keeps what is written instead of copying it, and what decides which buffers leave.

    Those stand between the chunks, for `_divide`.
    """

    write: Any = vars(list)["append"]

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            in_band = buffer.raw().nbytes < OUT_OF_BAND_BYTES
        except BufferError:  # not contiguous
            return True
        if not in_band:
            self.append(buffer)
        return in_band


def _divide(chunks: _Chunks, buffers: _Buffers) -> list[bytes | bytearray]:
    """Return the stream, and fill `buffers`. Big bytes are buffers, too, and the stream has `bytes(buffer)` for them.

    So they are loaded without a copy where they have come as bytes. The pickler asks nobody about them, but writes
    them as they are, right behind the opcode that tells their length.
    """
    stream: list[bytes | bytearray] = []
    for chunk in chunks:
        if type(chunk) is pickle.PickleBuffer:
            buffers.append(chunk)
            continue
        size = len(chunk)
        if size >= BYTES_OUT_OF_BAND and stream and type(chunk) is bytes and not _is_frame(chunk):
            told = (
                _SHORT.pack(pickle.BINBYTES, size) if size < 1 << 32 else _LONG.pack(pickle.BINBYTES8, size)
            )
            if stream[-1].endswith(told):
                stream[-1] = stream[-1][: -len(told)] + _BYTES_OF_NEXT_BUFFER
                buffers.append(pickle.PickleBuffer(chunk))
                continue
        stream.append(chunk)
    return stream


_SHORT, _LONG = struct.Struct("<cI"), struct.Struct("<cQ")  # an opcode and a length
_BYTES_OF_NEXT_BUFFER = b"".join(
    (pickle.GLOBAL, b"builtins\nbytes\n", pickle.NEXT_BUFFER, pickle.TUPLE1, pickle.REDUCE)
)


def _is_frame(data: bytes) -> bool:
    """Whether what the pickler writes may be a frame of opcodes, and not somebody's bytes."""
    opcode, size = cast("tuple[bytes, int]", _LONG.unpack_from(data))
    return opcode == pickle.FRAME and size <= len(data) - _LONG.size


class Pickler(pickle.Pickler):
    """The pickler of one pickle; use `dump`."""

    by_value: frozenset[str] = frozenset()
    named: Named | None = None
    _all_by_value: frozenset[str] | None = None
    _namespaces: dict[int, dict[str, Any]] | None = None
    _sources: dict[str, reducers.Source | str] | None = None
    _storages: dict[int, Any] | None = None

    def reducer_override(self, obj: object) -> Any:
        """Called by pickle for all but the plainest types."""
        kind = type(obj)
        if type(obj) is FunctionType:
            return self._reduce_function(obj)
        if issubclass(kind, type):
            return reducers.reduce_class(self, obj)
        reduce = reducers.REDUCERS.get(kind)
        if reduce is not None:
            return reduce(self, obj)
        if issubclass(kind, BaseException):
            return reducers.reduce_exception(obj)
        module = kind.__module__
        if module == "__main__" and kind.__reduce__ is not object.__reduce__:
            return reducers.reduce_own(self, obj)
        if self.named is not None and type(module) is str:
            self.named.modules.add(module)  # of an object that pickles as a name in it
        return arrays.reduce(self, obj) if module in arrays.MODULES else NotImplemented

    def _reduce_function(self, function: FunctionType) -> Any:
        if (function.__module__ or "").startswith(RUNTIME):
            return NotImplemented
        if self.goes_by_reference(function):
            return reducers.carried_name(function)
        if self.named is not None:
            self.named.functions.append(function)
        return reducers.reduce_function(self, function)

    def goes_by_reference(self, obj: Any, name: str | None = None) -> bool:
        """Whether importing its module over there gives `obj` again."""
        module_name = getattr(obj, "__module__", None)
        name = name or getattr(obj, "__qualname__", None)
        if not (isinstance(module_name, str) and name) or "." in name:
            found = cloudpickle._lookup_module_and_qualname(obj, name=name)
            return found is not None and self.module_goes_by_reference(found[0].__name__)
        if module_name == "__main__" or getattr(sys.modules.get(module_name), name, None) is not obj:
            return False
        return self.module_goes_by_reference(module_name)

    def module_goes_by_reference(self, name: str) -> bool:
        """Whether the module `name` can be imported over there, and is not wanted by value."""
        if self._all_by_value is None:
            self._all_by_value = self.by_value.union(user_modules_by_value())
        module = sys.modules.get(name)
        if module is None or name == "__mp_main__" or (self._all_by_value and self._is_by_value(name)):
            return False
        # A module put together by hand has neither file nor spec; what lies in a real package is importable.
        root = sys.modules.get(name.partition(".")[0], module)
        importable = (
            getattr(root, "__spec__", None) is not None
            or hasattr(root, "__file__")
            or hasattr(root, "__path__")
            or name == "__main__"
        )
        if importable and self.named is not None:
            self.named.modules.add(name)
        return importable

    def _is_by_value(self, name: str) -> bool:
        parts = name.split(".")
        return any(".".join(parts[:end]) in (self._all_by_value or ()) for end in range(1, len(parts) + 1))

    def namespace_of(self, function: FunctionType) -> dict[str, Any]:
        """The globals that `function` gets: one dict for all functions of one module in this pickle."""
        if self._namespaces is None:
            self._namespaces = {}
        own = function.__globals__
        namespace = self._namespaces.get(id(own))
        if namespace is None:
            kept = ("__package__", "__name__", "__path__", "__file__")
            namespace = self._namespaces[id(own)] = {name: own[name] for name in kept if name in own}
        return namespace

    @property
    def storages(self) -> dict[int, Any]:
        """The storages of PyTorch in this pickle, by their addresses."""
        if self._storages is None:
            self._storages = {}
        return self._storages

    @property
    def sources(self) -> dict[str, reducers.Source | str]:
        """What stands for each file name of code in this pickle."""
        if self._sources is None:
            self._sources = {}
        return self._sources


def dump(
    obj: Any, *, by_value: frozenset[str] = frozenset(), name: str = "", named: Named | None = None
) -> Pickled:
    """Pickle any object, functions and classes included.

    Args:
        obj: what to pickle.
        by_value: names of modules whose functions and classes travel by value although they can be imported
            here (a package's name stands for its submodules too). ``__main__`` always does, and so do modules
            given to the user's own ``cloudpickle.register_pickle_by_value``.
        name: what to call `obj` in an error, such as ``"result of train"``.
        named: learns what the pickle names.

    Raises:
        SerializationError: something in `obj` cannot be pickled; `path` leads to it.

    Example:
        >>> load(*dump({"square": lambda x: x * x}))["square"](3)
        9
    """
    if type(obj) in _PLAIN:
        return _new(Pickled, ([pickle.dumps(obj, 5)], []))
    try:
        return _dump(obj, by_value, named)
    except MemoryError:
        raise
    except Exception as error:
        from .explain import explain, is_told

        if is_told(error):
            raise
        raise explain(obj, error, name=name, by_value=by_value) from _without_own_frames(error)


def plain_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Pickled | None:
    """As `dump_arguments`, of numbers and texts alone, which name nothing; None for all others."""
    if not kwargs and _PLAIN.issuperset(map(type, args)):
        return _new(Pickled, ([pickle.dumps((args, kwargs), 5)], []))
    return None


def dump_arguments(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    by_value: frozenset[str] = frozenset(),
    named: Named | None = None,
) -> Pickled:
    """Pickle the arguments of one call, as the pair ``(args, kwargs)``. The hot path: see `dump`.

    Raises:
        SerializationError: an argument cannot be pickled; `path` begins with its position or name.

    Example:
        >>> load(*dump_arguments((1, 2), {"lr": 0.1}))
        ((1, 2), {'lr': 0.1})
    """
    plain = plain_arguments(args, kwargs)
    if plain is not None:
        return plain
    try:
        return _dump((args, kwargs), by_value, named)
    except MemoryError:
        raise
    except Exception as error:
        from .explain import explain_arguments, is_told

        if is_told(error):
            raise
        raise explain_arguments(args, kwargs, error, by_value=by_value) from _without_own_frames(error)


def _without_own_frames(error: Exception) -> Exception:
    """Leave in an error's traceback what the user's own reducers did."""
    entry = error.__traceback__
    while entry is not None and entry.tb_frame.f_code.co_filename == __file__:
        entry = entry.tb_next
    return error.with_traceback(entry)


def _dump(obj: Any, by_value: frozenset[str], named: Named | None) -> Pickled:
    chunks, buffers = _Chunks(), _Buffers()
    pickler = Pickler(chunks, 5, True, chunks)  # positional: protocol, fix_imports, buffer_callback
    if by_value:
        pickler.by_value = by_value
    if named is not None:
        pickler.named = named
    pickler.dump(obj)
    if named is not None and named.trees:
        buffers.trees = named.trees
    return Pickled(chunks if len(chunks) == 1 else _divide(chunks, buffers), buffers)


def dump_bytes(obj: Any, *, by_value: frozenset[str] = frozenset()) -> bytes:
    """`dump` in one piece, everything in band: for what is stored or small. ``load(data)`` reads it.

    Raises:
        SerializationError: as `dump`.
    """
    pickled = dump(obj, by_value=by_value)
    return join(pickled.stream, pickled.buffers)


def join(stream: Bytes | list[bytes | bytearray], buffers: Sequence[Buffer] = ()) -> bytes:
    """One piece out of the parts of a pickle, which ``load(data)`` reads alone."""
    data = bytes(stream) if isinstance(stream, Bytes) else b"".join(stream)
    if not buffers:
        return data
    return pickle.dumps(reducers.Joined(data, [pickle.PickleBuffer(buffer) for buffer in buffers]), 5)


_loads: Callable[..., Any] = pickle.loads


def load(
    stream: Bytes | list[Bytes] | list[bytes | bytearray] | tuple[Bytes, ...],
    buffers: Sequence[Buffer] = (),
) -> Any:
    """Rebuild what `dump` took apart.

    Args:
        stream: `Pickled.stream`, in chunks or joined.
        buffers: what `Pickled.buffers` held, in order. Arrays lie in this memory without a copy: give
            writable buffers, and do not use them again while the result lives.

    Raises:
        DeserializationError: a module or class is missing here, or an object's own rebuilding failed.
    """
    if isinstance(stream, (list, tuple)):
        stream = stream[0] if len(stream) == 1 else b"".join(stream)
    try:
        return _loads(stream, buffers=buffers)
    except MemoryError:
        raise
    except Exception as error:
        raise _cannot_load(error) from error


def _cannot_load(error: Exception) -> DeserializationError:
    from ..model.errors import DeserializationError

    if isinstance(error, ModuleNotFoundError) and error.name:
        return DeserializationError(
            f"the module {error.name!r} is missing here",
            hint=f"add what provides {error.name!r} to the environment's `dependencies`, "
            "or import it inside the function that needs it",
        )
    if isinstance(error, ImportError):
        return DeserializationError(
            f"an import failed here: {error}", hint="install the same version of the package on both sides"
        )
    if isinstance(error, AttributeError) and "get attribute" in str(error):
        return DeserializationError(
            f"a class or function is missing here: {error}",
            hint="use the same version of its module on both sides, "
            "or define it in the script that makes the call",
        )
    return DeserializationError(f"an object could not be rebuilt here: {type(error).__name__}: {error}")
