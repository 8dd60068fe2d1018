"""Arrays of NumPy and tensors of PyTorch: their contents, where those lie, and which pieces of them have changed.

Nothing is imported for the asking: whoever has such an object has its library.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import sys
from collections.abc import Callable
from typing import Any

from .content import PIECE_BYTES
from .kind import Kind, Object, attributes_of, put_attributes

LARGE_BYTES = 64 << 20


def is_array(obj: Object) -> bool:
    """Whether it is a NumPy array, and of no subclass."""
    return type(obj).__name__ == "ndarray" and type(obj).__module__ == "numpy"


def is_tensor(obj: Object) -> bool:
    """Whether it is a tensor of PyTorch."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(obj, torch.Tensor)


def place_of(obj: Object) -> tuple[int, int] | None:
    """Return where an array's or a tensor's memory lies, and how long it is."""
    if is_array(obj):
        return obj.__array_interface__["data"][0], obj.nbytes
    if is_tensor(obj) and obj.device.type == "cpu" and str(obj.layout) == "torch.strided":
        storage = obj.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    return None


def is_large(held: Object, contents: Object) -> bool:
    """Whether so much is to be put into it that a way back would cost too much memory."""
    if is_array(held):
        data: Any = contents[0]
        return data is not None and type(data) is not Pieces and held.nbytes > LARGE_BYTES
    return is_tensor(held) and contents[0] is not None and held.numel() * held.element_size() > LARGE_BYTES


def only_changes(obj: Object, contents: Any, before: tuple[bytes, ...], now: tuple[bytes, ...]) -> Any:
    """Return what has changed in an array or a tensor.

    Args:
        obj: the array or tensor.
        contents: all of its contents.
        before: digests of the pieces of its memory as the other end has it.
        now: as it is.
    """
    if before == now:
        return None, *contents[1:]
    changed = [place for place, digest in enumerate(now) if before[place : place + 1] != (digest,)]
    if is_array(obj) and len(before) == len(now) and 2 * len(changed) < len(now):
        pieces = Pieces.of(obj, [place * PIECE_BYTES for place in changed], PIECE_BYTES)
        return contents if pieces is None else (pieces, *contents[1:])
    return contents


def way_back(held: Object, contents: Object) -> Callable[[], None]:
    """As `kinds.way_back`, for arrays and tensors."""
    if is_array(held):
        data: Any = contents[0]
        before = data if data is None else data.taken_from(held) if type(data) is Pieces else held.copy()
        return functools.partial(_put_array, held, (before, held.flags.writeable))
    if not is_tensor(held):
        _, *own = _take_derived(held)
        return functools.partial(_put_derived, held, (held.view(sys.modules["numpy"].ndarray).copy(), *own))
    data, *rest = _take_tensor(held)
    return functools.partial(_put_tensor, held, (data.clone() if contents[0] is not None else None, *rest))


class Pieces:
    """What has changed in an array's memory.

    Args:
        order: in which its elements lie there, ``C`` or ``F``.
        pieces: where each begins, and its bytes.
    """

    def __init__(self, order: str, pieces: list[tuple[int, Any]]) -> None:
        self.order = order
        self.pieces = pieces

    def __reduce__(self) -> Any:
        return Pieces, (self.order, self.pieces)

    @classmethod
    def of(cls, array: Any, begins: list[int], size: int) -> Pieces | None:
        """Return pieces of an array's memory; None where it is not in one piece."""
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            return None
        memory = pickle.PickleBuffer(array).raw()
        pieces = [(begin, pickle.PickleBuffer(memory[begin : begin + size])) for begin in begins]
        return cls("C" if array.flags.c_contiguous else "F", pieces)

    def taken_from(self, array: Any) -> Pieces:
        """Return the same pieces of another array, copied."""
        memory = pickle.PickleBuffer(array.copy(self.order)).raw()
        return Pieces(
            self.order,
            [(begin, bytes(memory[begin : begin + memoryview(part).nbytes])) for begin, part in self.pieces],
        )

    def put(self, array: Any) -> None:
        """Write them into an array."""
        lies = array.flags.c_contiguous if self.order == "C" else array.flags.f_contiguous
        target = array if lies else array.copy(self.order)
        memory = pickle.PickleBuffer(target).raw()
        for begin, part in self.pieces:
            view = memoryview(part).cast("B")
            memory[begin : begin + view.nbytes] = view
        if target is not array:
            array[...] = target


def _take_array(array: Any) -> Any:
    return array.view(), array.flags.writeable


def _put_array(array: Any, contents: Any) -> None:
    data, writeable = contents
    with contextlib.suppress(ValueError):  # in memory that is read-only: then nobody has changed it
        if data is not None:
            if not array.flags.writeable:
                array.flags.writeable = True
            _write(array, data)
        if array.flags.writeable != writeable:
            array.flags.writeable = writeable


def _write(array: Any, data: Any) -> None:
    if type(data) is Pieces:
        data.put(array)
    else:
        array[...] = data


def _array_form(array: Any) -> Any:
    return array.shape, array.strides, array.dtype


def _take_tensor(tensor: Any) -> Any:
    return tensor.detach(), tensor.grad, tensor.requires_grad


def apart_from(contents: Any) -> Any:
    """Return a tensor's contents in memory of their own."""
    data, *rest = contents
    return (data if data is None else data.clone(), *rest)


def _put_tensor(tensor: Any, contents: Any) -> None:
    data, grad, requires_grad = contents
    if data is not None:
        _put_numbers(tensor, data)
    if tensor.grad is not grad:
        tensor.grad = grad
    if tensor.is_leaf and tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)


def _put_numbers(tensor: Any, data: Any) -> None:
    """Into the memory that is there, where it fits: other tensors and arrays may share it."""
    own = tensor.data
    if own.shape == data.shape and own.layout == data.layout:
        with contextlib.suppress(RuntimeError):  # it is spread over one number, say
            own.copy_(data)
            return
    tensor.data = data


def _tensor_form(tensor: Any) -> Any:
    return type(tensor), tensor.is_leaf, str(tensor.device), tensor.dtype, str(tensor.layout)


def _take_derived(array: Any) -> Any:
    numpy: Any = sys.modules["numpy"]
    return array.view(numpy.ndarray), array.flags.writeable, attributes_of(array)


def _put_derived(array: Any, contents: Any) -> None:
    *own, attributes = contents
    _put_array(array.view(sys.modules["numpy"].ndarray), own)
    put_attributes(array, attributes or {})


def _derived_form(array: Any) -> Any:
    return type(array), _array_form(array)


ARRAY = Kind(_take_array, _put_array, _array_form)
DERIVED = Kind(_take_derived, _put_derived, _derived_form)
TENSOR = Kind(_take_tensor, _put_tensor, _tensor_form)
