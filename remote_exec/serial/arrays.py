"""Arrays out of band whose own reduction puts their memory into the pickle: PyTorch's, and NumPy's of times.

A tensor's reduction is kept: it knows strides, gradients, parameters, subclasses and sparse layouts, and names its
storage; only the storage goes as a buffer instead of through `torch.save`. So tensors that share a storage share one
over there, too, within one pickle, and of a view the whole storage travels, as ever with PyTorch. Storages on a GPU
stay PyTorch's own matter. PyTorch's reductions for multiprocessing are no choice: they move the caller's tensor into
shared memory, where the worker's writes show.

Nothing is imported for the asking: whoever pickles or loads such an array has its library.
"""

from __future__ import annotations

import importlib
import pickle
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pickling import Pickler

ALIGNMENT = 16  # what the largest of the element types wants
COPIED_BYTES = 64 * 1024  # what is no larger gets memory of its own, that can be resized


MODULES = frozenset({"torch.storage", "numpy"})


def reduce(pickler: Pickler, obj: Any) -> Any:
    """How to take apart an object of a class that one of the `MODULES` defines."""
    if type(obj).__module__ == "torch.storage":
        return reduce_storage(pickler, obj)
    return reduce_array(obj) if type(obj).__name__ == "ndarray" else NotImplemented


def reduce_storage(pickler: Pickler, storage: Any) -> Any:
    """How to take a storage apart: an untyped one is its bytes; one with a type holds an untyped one."""
    untyped = getattr(storage, "_untyped_storage", storage)
    if untyped.device.type != "cpu":
        return NotImplemented
    if untyped is not storage:
        # older releases make another object for the same storage each time it is asked for
        return typed_storage, (pickler.storages.setdefault(untyped._cdata, untyped), storage.dtype)
    return untyped_storage, (_memory_of(storage),)


def _memory_of(storage: Any) -> pickle.PickleBuffer | bytes:
    size: int = storage.nbytes()
    if not size:
        return b""
    import ctypes  # takes milliseconds; PyTorch has it

    memory = (ctypes.c_char * size).from_address(storage.data_ptr())
    weakref.finalize(memory, _let_go, storage).atexit = False
    return pickle.PickleBuffer(memory)


def _let_go(storage: Any) -> None:
    """Called when nobody refers to a storage's memory any more: until then the storage lives."""


def untyped_storage(buffer: Any) -> Any:
    """A storage that lies in a received buffer, or in a copy of it where that is small or cannot be worked on."""
    torch: Any = importlib.import_module("torch")
    view = memoryview(buffer)
    if not view.nbytes:
        return torch.UntypedStorage(0)
    received = torch.frombuffer(
        bytearray(view) if view.readonly else buffer, dtype=torch.uint8
    ).untyped_storage()
    own = view.nbytes <= COPIED_BYTES or received.data_ptr() % ALIGNMENT
    return received.clone() if own else received


def typed_storage(untyped: Any, dtype: Any) -> Any:
    """A storage of one element type."""
    return importlib.import_module("torch.storage").TypedStorage(
        wrap_storage=untyped, dtype=dtype, _internal=True
    )


def reduce_array(array: Any) -> Any:
    """How to take a NumPy array apart: times have no buffer, the numbers that they are do."""
    if array.dtype.kind in "mM" and array.nbytes > COPIED_BYTES:
        return times, (array.view("i8"), array.dtype)
    return NotImplemented


def times(numbers: Any, dtype: Any) -> Any:
    """Numbers seen as dates, or as time spans."""
    return numbers.view(dtype)
