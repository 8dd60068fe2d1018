"""Where the files of bundles lie at home, so that tracebacks name the user's own files and not copies of them.

A host unpacks a bundle into a folder called by its digest; what this process captured under that digest tells the
rest. Owns a bounded number of captures.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict

from ..capture.local_code import Capture

MOST_CAPTURES = 64

_unpacked = re.compile(r".*/([0-9a-f]{64})-[^/]*/(.+)", re.DOTALL)
_captures: OrderedDict[str, Capture] = OrderedDict()
_lock = threading.Lock()


def remember(capture: Capture) -> None:
    """Know a capture's files from now on."""
    digest = capture.bundle.digest.removeprefix("sha256:")
    with _lock:
        _captures[digest] = capture
        _captures.move_to_end(digest)
        while len(_captures) > MOST_CAPTURES:
            _captures.popitem(last=False)


def locate(filename: str) -> str:
    """Return the name that a remote file has at home; its own name where that is not known."""
    unpacked = _unpacked.fullmatch(filename)
    capture = _captures.get(unpacked[1]) if unpacked else None
    return (capture.home_of(unpacked[2]) if capture and unpacked else None) or filename
