"""The blocks of memory of pandas' frames and series, where several share one until one of them is written to.

That is pandas' own affair (copy-on-write): it counts who refers to a block. So blocks share no memory at the other
end, and one that is changed by what the other end tells gets memory of its own first, as if it were written to.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..serial.cloudpickle_copy import RUNTIME
from .content import Loading

Block = Any
Blocks = weakref.WeakSet[Block]

_ARRAYS = ("_ndarray", "_data", "_mask")  # of the arrays that pandas makes of NumPy's


def reduce(obj: Any, met: list[Block]) -> Any:
    """How to take apart a block, which is noted, or a series' manager of one, whose own way makes another block."""
    if type(obj).__name__ == "SingleBlockManager":
        return series_of, (type(obj), obj.blocks[0], obj.axes[0])
    if not hasattr(obj, "mgr_locs"):
        return None
    met.append(obj)
    make, args = obj.__reduce__()
    return block_of, (make, args)


def series_of(kind: Callable[..., Any], block: Block, axis: Any) -> Any:
    """Make a series' manager."""
    return kind(block, axis)


def block_of(make: Callable[..., Block], args: tuple[Any, ...]) -> Block:
    """Make a block, and note it; one that has the very values of another shares them as pandas does."""
    made = make(*args)
    blocks = Loading.current().blocks
    if copies_on_write():
        for other in blocks:
            if other.values is made.values:
                made.refs = other.refs
                made.refs.add_reference(made)
                break
    blocks.add(made)
    return made


for _named in (block_of, series_of):
    _named.__module__ = f"{RUNTIME}.session.frames"


def copies_on_write() -> bool:
    """Whether frames that share memory seem not to."""
    pandas: Any = sys.modules.get("pandas")
    if pandas is None:
        return False
    return int(pandas.__version__.split(".")[0]) >= 3 or pandas.options.mode.copy_on_write is True


def arrays_of(blocks: Iterable[Block]) -> Iterator[tuple[int, Block]]:
    """Return the identities of the arrays in which blocks hold their values, each with its block."""
    for block in blocks:
        for part in _parts(block.values):
            yield id(part), block


def _parts(values: Any) -> list[Any]:
    return [values, *(getattr(values, name) for name in _ARRAYS if hasattr(values, name))]


def set_apart(block: Block) -> list[tuple[Any, Any]]:
    """Give a block that shares memory with others memory of its own; return what has taken the place of what."""
    if not block.refs.has_reference():
        return []
    before = block.values
    after = before.copy(order="K") if type(before).__name__ == "ndarray" else before.copy()
    block.values = after
    block.refs.referenced_blocks = [held for held in block.refs.referenced_blocks if held() is not block]
    block.refs = importlib.import_module("pandas._libs.internals").BlockValuesRefs(block)
    return list(zip(_parts(before), _parts(after), strict=True))
