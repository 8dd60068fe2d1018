"""Arrays and views of memory that lie in other ones: where in these, and how they are made of these again."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, cast

from ..serial.cloudpickle_copy import RUNTIME
from .content import Loading, first_of
from .kinds_of_arrays import is_array, is_tensor

Array = Any
Reduced = tuple[Any, tuple[Any, ...]]


def steps_along(
    at: int, shape: Sequence[int], strides: Sequence[int], within: Sequence[int], by: Sequence[int]
) -> tuple[list[int], list[list[int]]] | None:
    """Return where a part begins and how it goes on, as steps along a whole's axes; None where it goes otherwise.

    Args:
        at: where it begins, in bytes from the whole's first element.
        shape: of the part.
        strides: of the part.
        within: the whole's shape.
        by: the whole's strides.
    """
    axes = sorted(
        (axis for axis in range(len(by)) if within[axis] > 1 and by[axis]), key=lambda axis: -abs(by[axis])
    )
    low = at + sum(-by[axis] * (within[axis] - 1) for axis in axes if by[axis] < 0)
    begins = [0] * len(by)
    for axis in axes:  # from the lowest address on, as if all went upwards
        steps = min(low // abs(by[axis]), within[axis] - 1)
        low -= steps * abs(by[axis])
        begins[axis] = steps if by[axis] > 0 else within[axis] - 1 - steps
    if low:
        return None
    goes: list[list[int]] = []
    ends = list(begins)
    for length, stride in zip(shape, strides, strict=True):
        rest = stride if length > 1 else 0
        step = [0] * len(by)
        for axis in axes:
            steps, left = divmod(abs(rest), abs(by[axis]))
            steps = steps if (rest > 0) == (by[axis] > 0) else -steps
            if 0 <= (end := ends[axis] + steps * (length - 1)) < within[axis]:
                step[axis], ends[axis] = steps, end
                rest = left if rest > 0 else -left
        if rest:
            return None
        goes.append(step)
    return begins, goes


def steps_of(
    at: int, shape: Sequence[int], strides: Sequence[int], dtype: Any, whole: Array, by: Sequence[int]
) -> tuple[list[int], list[list[int]]] | None:
    """As `steps_along`, the bytes of an element as the last axis."""
    return steps_along(
        at, (*shape, dtype.itemsize), (*strides, 1), (*whole.shape, whole.dtype.itemsize), (*by, 1)
    )


def bytes_in(whole: Any, at: int, shape: Any, strides: Any, dtype: Any, writeable: bool) -> Array:
    """Return a part of an array that lies in one piece, or of a buffer, by its place in bytes."""
    numpy: Any = importlib.import_module("numpy")
    memory = storage_bytes(whole) if is_tensor(whole) else whole
    if is_array(whole) and not whole.flags.forc:  # in one piece at the other end only
        steps = steps_of(at, shape, strides, dtype, whole, numpy.ndarray(whole.shape, whole.dtype).strides)
        if steps is not None:
            return steps_in(whole, *steps, shape, dtype, writeable)
        memory = numpy.ascontiguousarray(whole)  # as NumPy itself, which has no such part of it either
    elif is_array(whole) and not whole.flags.c_contiguous:
        memory = whole.T
    if writeable and is_array(memory) and not memory.flags.writeable:  # it alone is not, what it lies in is
        address = memory.__array_interface__["data"][0] + at
        return numpy.asarray(_At(memory, address, shape, strides, dtype.itemsize)).view(dtype)
    made = numpy.ndarray(shape, dtype, memory, at, strides)
    if not writeable:
        made.flags.writeable = False
    return made


def steps_in(
    whole: Array,
    begins: Sequence[int],
    steps: Sequence[Sequence[int]],
    shape: Any,
    dtype: Any,
    writeable: bool,
) -> Array:
    """Return a part of an array by where it begins in that, and its steps along the array's axes."""
    numpy: Any = importlib.import_module("numpy")
    by = (*whole.strides, 1)
    strides = tuple(sum(map(int.__mul__, step, by)) for step in steps[:-1])
    if dtype.kind == "O":
        first = whole[tuple(slice(begin, None) for begin in begins[:-1])] if whole.ndim else whole
        return numpy.lib.stride_tricks.as_strided(first, shape, strides, writeable=writeable)
    address = whole.__array_interface__["data"][0] + sum(map(int.__mul__, begins, by))
    made: Array = numpy.asarray(_At(whole, address, shape, strides, dtype.itemsize)).view(dtype)
    if not writeable:
        made.flags.writeable = False
    return made


def laid_in(
    whole: Array, at: int, shape: Any, strides: Any, dtype: Any, writeable: bool, by: tuple[int, ...]
) -> Array:
    """Return a part of an array that is laid out as at the other end; an array for its contents where it is not."""
    numpy: Any = importlib.import_module("numpy")
    if whole.strides != by:
        made: Array = numpy.empty(shape, dtype)
    else:
        address = whole.__array_interface__["data"][0] + at
        made = numpy.asarray(_At(whole, address, shape, strides, dtype.itemsize)).view(dtype)
    if not writeable:
        made.flags.writeable = False
    return made


class _At:
    """Memory of an array, for NumPy."""

    def __init__(self, whole: Array, address: int, shape: Any, strides: Any, size: int) -> None:
        self.whole = whole
        self.__array_interface__ = {
            "version": 3, "data": (address, False), "shape": shape, "strides": strides,
            "typestr": f"|V{size}",
        }  # fmt: skip


def storage_in(whole: Any, at: int, size: int) -> Any:
    """Return a tensor's storage that is a part of another tensor's, an array that lies in one piece, or a buffer."""
    torch: Any = importlib.import_module("torch")
    if is_tensor(whole):
        return whole.untyped_storage()
    numpy: Any = importlib.import_module("numpy")
    return torch.from_numpy(bytes_in(whole, at, (size,), (1,), numpy.dtype("u1"), True)).untyped_storage()


def storage_bytes(tensor: Any) -> Array:
    """Return the bytes of a tensor's storage."""
    torch: Any = importlib.import_module("torch")
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()


def filled(part: Reduced, held: Any) -> tuple[Any, ...]:
    """Return how a part is told of with its own contents, which the whole does not have there."""
    contents = storage_bytes(held).copy() if is_tensor(held) else held.copy()
    return (*part, contents, None, None, fill)


def fill(made: Any, contents: Array) -> None:
    """Give an array or a storage that is a part its contents, once all is loaded."""
    if not is_array(made):
        torch: Any = importlib.import_module("torch")
        made = torch.empty(0, dtype=torch.uint8).set_(made).numpy()
    Loading.current().parts.append((made, contents))


# --- views of memory ---


def reduce_memoryview(view: memoryview) -> Reduced:
    """How to take a view of memory apart: what it is a view of, and its place in it.

    Raises:
        TypeError: it has several dimensions, and lies in pieces of what it is a view of.
    """
    whole, shape = memoryview(view.obj), _shape(view)
    if not view.nbytes or (view.shape, view.strides, view.format) == (
        whole.shape,
        whole.strides,
        whole.format,
    ):
        return memory_of, (view.obj, None, view.format, shape, view.readonly)
    at = first_of(view) - first_of(whole)
    if _inner_form(view) == _inner_form(whole):
        start, step = at // _stride(whole), _stride(view) // _stride(whole)
        return memory_of, (view.obj, (start, step), view.format, shape, view.readonly)
    if whole.c_contiguous and (view.c_contiguous or view.ndim == 1):
        step = 1 if view.c_contiguous else _stride(view) // view.itemsize
        start = at if step > 0 else at + _stride(view) * (shape[0] - 1)
        return memory_of, (view.obj, (start, step, view.nbytes), view.format, shape, view.readonly)
    raise TypeError("cannot pickle a memoryview that does not lie in one piece")


def _inner_form(view: memoryview) -> Any:
    return view.ndim, view.format, _shape(view)[1:], _strides(view)[1:]


def _shape(view: memoryview) -> tuple[int, ...]:
    return view.shape or ()


def _strides(view: memoryview) -> tuple[int, ...]:
    return view.strides or (view.itemsize,)


def _stride(view: memoryview) -> int:
    return _strides(view)[0]


def memory_of(buffer: Any, place: Any, form: Any, shape: tuple[int, ...], readonly: bool) -> Any:
    """Return a view of a buffer's memory.

    Args:
        buffer: of what.
        place: of its elements: the first, and how many further the next is, and where the elements are others than
            the buffer's the first byte, that, and the number of bytes; None: all of it.
        form: of its elements.
        shape: of it.
        readonly: whether it cannot be written to.
    """
    view = cast("Any", memoryview(buffer))
    if place is not None and len(place) == 2:
        start, step = place
        stop = start + step * shape[0]
        view = view[slice(start, stop if stop >= 0 else None, step)]
    elif place is not None:
        start, step, size = place
        if step != 1:
            size = ((shape[0] - 1) * abs(step) + 1) * (size // shape[0])
        span = view.cast("B")[start : start + size]
        view = span.cast(form, shape) if step == 1 else span.cast(form)[::step]
    elif not view.nbytes or 0 in shape:
        view = cast("Any", memoryview(b"" if readonly else bytearray())).cast(form)
    return view.toreadonly() if readonly else view


for _named in (bytes_in, laid_in, steps_in, storage_in, fill, memory_of):
    _named.__module__ = f"{RUNTIME}.session.memory_parts"
