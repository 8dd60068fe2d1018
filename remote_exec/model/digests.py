"""SHA-256 of short texts. `hashlib` loads OpenSSL, which takes each start milliseconds; for long ones it is faster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

LONG_BYTES = 1 << 18


class Hasher(Protocol):
    """One of `hashlib`'s."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in more."""

    def hexdigest(self) -> str:
        """Return the digest of all that was taken in."""
        ...


if TYPE_CHECKING:
    _sha256: Callable[[], Hasher]
else:
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256 as _sha256
        else:
            from _sha256 import sha256 as _sha256
    except ImportError:  # this Python was built without
        from hashlib import sha256 as _sha256


def digest_of(text: str | bytes) -> str:
    """Return the 64 hexadecimal digits of a text's SHA-256.

    Example:
        >>> digest_of("pool")[:8]
        '27cac550'
    """
    data = text.encode() if isinstance(text, str) else text
    hasher = hasher_of(len(data))
    hasher.update(data)
    return hasher.hexdigest()


def hasher_of(size_bytes: int) -> Hasher:
    """Return a SHA-256 that is to take in about so many bytes."""
    if size_bytes < LONG_BYTES:
        return _sha256()
    from hashlib import sha256

    return sha256()
