"""What runs in the worker of a remote instance: it makes the one instance, and calls its methods."""

from __future__ import annotations

from typing import Any


class Instance:
    """An instance to come, of a class that travels with it. Stays for as long as its lease lasts."""

    def __init__(self, cls: type) -> None:
        self.__wrapped__ = cls
        self._made: list[Any] = []

    def __call__(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make the instance (``__init__``), call a method of it, or return an attribute."""
        if method == "__init__":
            self._made.append(self.__wrapped__(*args, **kwargs))
            return None
        found = getattr(self._made[0], method)
        return found(*args, **kwargs) if callable(found) else found
