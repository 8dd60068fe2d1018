"""Widgets at the far end of a session: what they tell the front end goes home, and what that says comes here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

OPEN, MESSAGE, CLOSE = "comm_open", "comm_msg", "comm_close"


class CommMessage(NamedTuple):
    """What one side of a comm tells the other.

    Attributes:
        kind: `OPEN`, `MESSAGE` or `CLOSE`.
        comm: its id, the same at all ends.
        target: who is to open it in the front end.
        data: what is told.
        metadata: beside it.
        buffers: memory beside it.
    """

    kind: str
    comm: str
    target: str = ""
    data: dict[str, Any] = {}  # noqa: RUF012 - never changed
    metadata: dict[str, Any] = {}  # noqa: RUF012
    buffers: tuple[bytes, ...] = ()


class _Parent:
    """What widgets that capture output ask of a kernel: whose output it is."""

    def __init__(self, parent: Callable[[], str]) -> None:
        self._parent = parent

    def get_parent(self) -> dict[str, Any]:
        return {"header": {"msg_id": self._parent()}}


def install(tell: Callable[[CommMessage], None], parent: Callable[[], str]) -> None:
    """Have widgets' comms opened through the notebook, where the library for comms is here.

    Args:
        tell: tells home.
        parent: the id of the front end's message that has led to what runs now.
    """
    if importlib.util.find_spec("comm") is None:
        return
    library: Any = importlib.import_module("comm")
    base: Any = importlib.import_module("comm.base_comm")

    class FarComm(base.BaseComm):  # type: ignore[misc]
        kernel = _Parent(parent)

        def publish_msg(
            self,
            msg_type: str,
            data: Any = None,
            metadata: Any = None,
            buffers: Any = None,
            **keys: Any,
        ) -> None:
            held = tuple(bytes(buffer) for buffer in buffers or ())
            target = str(keys.get("target_name") or "")
            tell(CommMessage(msg_type, self.comm_id, target, data or {}, metadata or {}, held))

        def __reduce_ex__(self, _protocol: Any) -> Any:
            raise TypeError("a widget stays where it was made: the page shows that one")

    library.create_comm = FarComm


def hear(message: CommMessage) -> None:
    """Give what the front end says to the widget that it is for."""
    library: Any = importlib.import_module("comm")
    found = library.get_comm_manager().get_comm(message.comm)
    if found is None:
        return
    content = {"comm_id": message.comm, "data": message.data}
    told = {"content": content, "metadata": message.metadata, "buffers": list(message.buffers)}
    if message.kind == CLOSE:
        found.handle_close(told)
    else:
        found.handle_msg(told)
