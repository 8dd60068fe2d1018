"""The far end of a mirrored namespace in a process of its own, for tests of the mirror alone: cells are plain `exec`."""

from __future__ import annotations

import sys
import types
from multiprocessing.connection import Connection
from typing import Any

from remote_exec.serial import pickling
from remote_exec.session.mirror import Mirror


def serve(connection: Connection) -> None:
    """Run what comes until nothing does."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    mirror = Mirror(vars(main), first=1, own=lambda name: name.startswith("__"))
    while True:
        try:
            told = connection.recv_bytes()
        except EOFError:
            return
        update, names, source = pickling.load(told)
        failure = ""
        try:
            mirror.apply(update)
            try:
                exec(compile(source, "<cell>", "exec"), vars(main))
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
            reach = mirror.reach([*names, *mirror.rebound()])
            reply: Any = (mirror.update(reach), sorted(reach.cannot), failure)
        except Exception as error:
            import traceback

            reply = (None, [], "".join(traceback.format_exception(error)))
        connection.send_bytes(pickling.dump_bytes(reply))
