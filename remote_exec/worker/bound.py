"""A remote function of an object: what `obj.method` is where `method` was decorated. The same on both sides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class BoundFunction:
    """A remote function whose calls get an object first, which travels with each. Users get it, they do not build it.

    Example:
        >>> from remote_exec import remote
        >>> class Scale:
        ...     factor = 3
        ...
        ...     @remote
        ...     def apply(self, x: int) -> int:
        ...         return self.factor * x
        >>> Scale().apply(2), Scale().apply.submit(3).result(), list(Scale().apply.map([4, 5]))
        (6, 9, [12, 15])
    """

    def __init__(self, function: Any, instance: object) -> None:
        self.__func__ = function
        self.__self__ = instance
        self.__doc__ = function.__doc__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it, as the function is called."""
        return self.__func__(self.__self__, *args, **kwargs)

    def submit(self, /, *args: Any, **kwargs: Any) -> Any:
        """Start the call and return its future."""
        return self.__func__.submit(self.__self__, *args, **kwargs)

    def map(self, *iterables: Iterable[Any], **keywords: Any) -> Any:
        """Call it with items of the iterables taken together."""
        return self.starmap(zip(*iterables), **keywords)  # noqa: B905 - as the built-in map

    def starmap(self, arguments: Iterable[tuple[Any, ...]], **keywords: Any) -> Any:
        """`map` over tuples of arguments."""
        return self.__func__.starmap(((self.__self__, *args) for args in arguments), **keywords)

    def aio(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it from a coroutine."""
        return self.__func__.aio(self.__self__, *args, **kwargs)

    def local(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it right here."""
        return self.__func__.local(self.__self__, *args, **kwargs)

    def options(self, **keywords: Any) -> BoundFunction:
        """Return it with other options."""
        return BoundFunction(self.__func__.options(**keywords), self.__self__)

    def preflight(self, /, *args: Any, **kwargs: Any) -> Any:
        """Say what would travel and what cannot work."""
        return self.__func__.preflight(self.__self__, *args, **kwargs)

    def __reduce__(self) -> Any:
        return self.__func__.__get__, (self.__self__,)

    def __repr__(self) -> str:
        return f"<bound {self.__func__!r}>"
