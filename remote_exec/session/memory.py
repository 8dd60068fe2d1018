"""Memory that several arrays share: which of them do, and how such are told of, so that they share it elsewhere, too.

Of two arrays that both ends know, both ends' share memory in the same way, or neither's do. An array that lies in
another one that is known, or told of at the same time, is told of as a part of that; where none of several contains
the others, all of them are told of as parts of the memory that they cover together.

NumPy's arrays, and `bytearray` and `array.array` beneath them. Nothing is imported for the asking: whoever has an
array has its library.
"""

from __future__ import annotations

import array
import ctypes
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .content import PIECE_BYTES
from .kinds_of_arrays import Pieces, is_array, is_tensor, place_of
from .memory_parts import Array, Reduced, bytes_in, laid_in, steps_in, steps_of, storage_in

FEW = 8  # of so many, each pair is asked whether it has an element in common
_BUFFERS = (bytearray, array.array)
_NUMBERS = "biufcmMSUV"  # kinds of elements that are their bytes; others refer to what lies elsewhere


class Extent(NamedTuple):
    """What lies from one address to another."""

    low: int
    high: int
    holder: Any


def extent_of(held: Any) -> Extent | None:
    """Return where an array's, a tensor's or a buffer's memory lies; None where it has none that can be shared."""
    if is_tensor(held):
        place = place_of(held)
        return Extent(place[0], place[0] + place[1], held) if place is not None and place[1] else None
    if not is_array(held):
        view = memoryview(held)
        low = ctypes.addressof(ctypes.c_char.from_buffer(held)) if view.nbytes else 0
        return Extent(low, low + view.nbytes, held) if view.nbytes else None
    if not held.nbytes or not (
        held.dtype.kind == "O" or (held.dtype.kind in _NUMBERS and not held.dtype.hasobject)
    ):
        return None
    low = int(held.__array_interface__["data"][0])
    if held.flags.c_contiguous or held.flags.f_contiguous:
        return Extent(low, low + held.nbytes, held)
    high = low + held.itemsize
    for length, stride in zip(held.shape, held.strides, strict=True):
        if stride < 0:
            low += (length - 1) * stride
        else:
            high += (length - 1) * stride
    return Extent(low, high, held)


def buffer_of(held: Array) -> Any:
    """Return the `bytearray` or `array.array` in which an array lies; None for other memory."""
    if held.flags.owndata:
        return None
    base = held.base
    while is_array(base):
        base = base.base
    if type(base) is memoryview:
        base = base.obj
    return base if type(base) in _BUFFERS else None


def together(extents: Iterable[Extent]) -> Iterator[list[Extent]]:
    """Divide memory into what overlaps; what lies alone is left out."""
    group: list[Extent] = []
    end = 0
    for extent in sorted(extents, key=lambda extent: (extent.low, -extent.high)):
        if group and extent.low >= end:
            if len(group) > 1:
                yield group
            group = []
        end = max(end, extent.high) if group else extent.high
        group.append(extent)
    if len(group) > 1:
        yield group


def covered(arrays: Iterable[Array]) -> set[int]:
    """Return the identities of the arrays that have all their memory in common with another one, that is wider."""
    found: set[int] = set()
    for group in together(extent for one in arrays if (extent := extent_of(one)) is not None):
        widest = min(group, key=_widest_first)
        if widest.holder.flags.forc and widest.holder.flags.writeable:
            found.update(id(one.holder) for one in group[1:] if one.high <= widest.high)
            found.discard(id(widest.holder))
    return found


def ranges_of(held: Array, contents: Any) -> list[Extent]:
    """Return where contents lie that are told of an array or a tensor."""
    extent = extent_of(held)
    if extent is None:
        return []
    data: Any = contents[0]
    if data is None:
        return []
    if type(data) is not Pieces or not held.flags.forc:
        return [extent]
    return [
        Extent(extent.low + begin, extent.low + begin + memoryview(part).nbytes, held)
        for begin, part in data.pieces
    ]


def without(
    digests: tuple[bytes, ...], extent: Extent | None, changed: Sequence[Extent]
) -> tuple[bytes, ...]:
    """Return the digests of the pieces of an array's memory, those left empty that have changed."""
    if extent is None:
        return ()
    left = list(digests)
    for one in changed:
        first, last = (one.low - extent.low) // PIECE_BYTES, (one.high - 1 - extent.low) // PIECE_BYTES
        for place in range(max(first, 0), min(last + 1, len(left))):
            left[place] = b""
    return tuple(left)


class Plan(NamedTuple):
    """How arrays are told of that share memory.

    Attributes:
        parts: arrays that lie in others, and how these, or tensors' storages, are taken apart.
        again: known arrays that are to be known no longer: each is told of as another one.
    """

    parts: list[tuple[Extent, Reduced]]
    again: list[Array]


def plan(
    new: Sequence[Any], known: Sequence[Any], met: Container[int], apart: Container[int], *, leads: bool
) -> Plan:
    """Plan how new arrays are told of.

    Args:
        new: that the other end does not know yet.
        known: that it knows.
        met: identities of the known ones that can be told of anew.
        apart: identities of arrays that share memory here, and only seem not to: such never do there.
        leads: whether known ones may be told of as others; else the other end's are the very ones.
    """
    made = Plan([], [])
    fresh = {id(one) for one in new}
    extents = [extent for one in (*new, *known) if (extent := extent_of(one)) is not None]
    for group in together(extents):
        if sum(id(extent.holder) in apart for extent in group) > 1:
            groups = list(together(extent for extent in group if id(extent.holder) not in apart))
        else:
            groups = [group]
        for one in groups:
            if any(id(extent.holder) in fresh for extent in one):
                _plan_group(one, fresh, met, made, leads=leads)
    alone = fresh - {id(extent.holder) for extent, _ in made.parts}
    for extent in extents:  # what does not lie in one piece here is not to do so there
        if id(extent.holder) in alone and _lies_in_pieces(extent):
            _plan_cover([extent], made)
    return made


def _lies_in_pieces(extent: Extent) -> bool:
    held, size = extent.holder, extent.high - extent.low
    return is_array(held) and not held.flags.forc and (size <= PIECE_BYTES or size <= 2 * held.nbytes)


def _plan_group(
    group: list[Extent], fresh: set[int], met: Container[int], made: Plan, *, leads: bool
) -> None:
    placed = sorted((one for one in group if id(one.holder) not in fresh), key=_widest_first)
    parts: list[tuple[Extent, Reduced]] = []
    storages: set[tuple[int, int]] = set()
    waiting = [extent for extent in group if id(extent.holder) in fresh]
    for extent in sorted(waiting, key=_widest_first):
        if is_tensor(extent.holder) and extent[:2] in storages:  # PyTorch sees to that
            placed.append(extent)
            continue
        part = _part_of_any(extent, placed) or (None if leads else _where_it_lies(extent, placed))
        if is_tensor(extent.holder):
            storages.add(extent[:2])
        if part is not None:
            parts.append((extent, part))
        elif any(_have_common(extent, other, len(group)) for other in placed):
            break
        placed.append(extent)
    else:
        made.parts.extend(parts)
        return
    made.again.extend(extent.holder for extent in group if id(extent.holder) not in fresh)
    anew = [one for one in group if id(one.holder) in fresh or id(one.holder) in met]
    for covered in together(anew):
        _plan_cover(covered, made)


def _plan_cover(group: list[Extent], made: Plan) -> None:
    """All of a group as parts of what they cover together; of what cannot be, each by itself."""
    buffers = [extent for extent in group if isinstance(extent.holder, _BUFFERS)]
    arrays = [extent for extent in group if not isinstance(extent.holder, _BUFFERS)]
    widest = min(group, key=_widest_first)
    anchors = [widest, *buffers] if len(group) > 1 else []
    root = extent_of(widest.holder.base) if is_array(widest.holder) and is_array(widest.holder.base) else None
    if not buffers and not any(is_array(one.holder) and one.holder.dtype.kind == "O" for one in arrays):
        low, high = min(extent.low for extent in group), max(extent.high for extent in group)
        anchors.append(Extent(low, high, _bytes_at(low, high, arrays)))
    elif root is not None:
        anchors.append(root)
    for anchor in anchors:
        others = [one for one in arrays if one.holder is not anchor.holder and not _same_storage(one, anchor)]
        parts = [(extent, part) for extent in others if (part := part_of(extent, anchor)) is not None]
        if len(parts) == len(others):
            made.parts.extend(parts)
            return


def _same_storage(one: Extent, other: Extent) -> bool:
    return is_tensor(one.holder) and is_tensor(other.holder) and one[:2] == other[:2]


def _bytes_at(low: int, high: int, arrays: list[Extent]) -> Array:
    numpy: Any = sys.modules["numpy"]
    memory: Any = (ctypes.c_char * (high - low)).from_address(low)
    memory.held = [extent.holder for extent in arrays]
    return numpy.frombuffer(memory, numpy.uint8)


def _widest_first(extent: Extent) -> tuple[int, bool, bool, bool]:
    holder = extent.holder
    if not is_array(holder):
        return extent.low - extent.high, is_tensor(holder), False, False
    return extent.low - extent.high, True, not holder.flags.forc, not holder.flags.writeable


def _have_common(one: Extent, other: Extent, among: int) -> bool:
    """Whether two arrays share an element; where that is too much to find out, they do."""
    if one.low >= other.high or other.low >= one.high:
        return False
    if among > FEW or not (is_array(one.holder) and is_array(other.holder)):
        return True
    numpy: Any = sys.modules["numpy"]
    try:
        return bool(numpy.shares_memory(one.holder, other.holder, max_work=10_000))
    except RuntimeError:  # too hard
        return True


def _part_of_any(extent: Extent, placed: list[Extent]) -> Reduced | None:
    for whole in placed:
        if whole.low <= extent.low and extent.high <= whole.high:
            found = part_of(extent, whole)
            if found is not None:
                return found
    return None


def _where_it_lies(extent: Extent, placed: list[Extent]) -> Reduced | None:
    """As `part_of`, for arrays that are laid out at the other end as here."""
    part = extent.holder
    for low, high, holder in placed:
        if low <= extent.low and extent.high <= high and is_array(part) and is_array(holder):
            if "O" in (part.dtype.kind, holder.dtype.kind):
                continue
            at = part.__array_interface__["data"][0] - holder.__array_interface__["data"][0]
            told = (at, part.shape, part.strides, part.dtype, part.flags.writeable)
            return laid_in, (holder, *told, holder.strides)
    return None


def part_of(extent: Extent, whole: Extent) -> Reduced | None:
    """Return how an array is told of as a part of another one, or of a buffer; None where that cannot be."""
    part, holder = extent.holder, whole.holder
    if isinstance(part, _BUFFERS) or whole.low > extent.low or extent.high > whole.high:
        return None
    if is_tensor(part):
        return _storage_in(extent, whole)
    if not is_array(holder):
        at = part.__array_interface__["data"][0] - whole.low
        told = (at, part.shape, part.strides, part.dtype, part.flags.writeable)
        return (bytes_in, (holder, *told)) if part.dtype.kind != "O" else None
    if part.flags.writeable and not holder.flags.writeable and part.dtype.kind == "O":
        return None
    at = part.__array_interface__["data"][0] - holder.__array_interface__["data"][0]
    if holder.flags.forc and holder.dtype.kind != "O" != part.dtype.kind:
        return bytes_in, (holder, at, part.shape, part.strides, part.dtype, part.flags.writeable)
    if part.dtype != holder.dtype and "O" in (part.dtype.kind, holder.dtype.kind):
        return None
    steps = steps_of(at, part.shape, part.strides, part.dtype, holder, holder.strides)
    if steps is None:
        return None
    return steps_in, (holder, *steps, part.shape, part.dtype, part.flags.writeable)


def _storage_in(extent: Extent, whole: Extent) -> Reduced | None:
    """How the storage of a tensor is taken apart that lies in another tensor's, in an array or a buffer."""
    holder = whole.holder
    if is_tensor(holder) and extent[:2] != whole[:2]:
        return None
    if is_array(holder) and not (holder.flags.forc and holder.flags.writeable and holder.dtype.kind != "O"):
        return None
    return storage_in, (holder, extent.low - whole.low, extent.high - extent.low)
