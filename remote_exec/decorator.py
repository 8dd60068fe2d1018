"""`@remote`: what it makes of a function, and of a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from .function import RemoteFunction
from .model.errors import ConfigurationError
from .options import Options
from .options.option_set import Origin

if TYPE_CHECKING:
    from typing import Unpack

    from .options import OptionKeywords
    from .remote_class import RemoteClass

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@overload
def remote(target: type[T], /) -> RemoteClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(target: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(target: None = None, /, **keywords: Unpack[OptionKeywords]) -> _Decorator: ...
def remote(target: Any = None, /, **keywords: Any) -> Any:
    """Decorate a function so that its calls run in a worker, or a class so that its instances live in one.

    Bare, or with options. Every option is described in the reference; the commonest are `instance_type`,
    `dependencies`, `keep_alive_period_in_seconds`, `max_runtime_in_seconds` and `environment_variables`.

    Raises:
        ConfigurationError: there is no such option, or its value is wrong.

    Example:
        >>> @remote(keep_alive_period_in_seconds=600)
        ... def square(x: int) -> int:
        ...     return x * x
        >>> square(3)
        9
    """
    try:
        decorate = _Decorator(Options.from_keywords(Origin.DECORATOR, **keywords))
    except ConfigurationError as error:
        raise error.with_traceback(None)  # noqa: B904 - it is the very one, without our frames
    return decorate if target is None else decorate(cast("Callable[..., Any]", target))


class _Decorator:
    """What `remote` with options returns."""

    def __init__(self, options: Options) -> None:
        self._options = options

    @overload
    def __call__(self, target: type[T], /) -> RemoteClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, target: Callable[P, R], /) -> RemoteFunction[P, R]: ...
    def __call__(self, target: Any, /) -> Any:
        if isinstance(target, type):
            from .remote_class import RemoteClass

            cls: type[Any] = target
            return RemoteClass(cls, self._options)
        function: Any = target
        if not (callable(target) or isinstance(target, classmethod)):
            raise ConfigurationError(
                f"remote decorates a function or a class, not {type(target).__name__}",
                hint="write @remote, or @remote(option=value)",
            )
        made: RemoteFunction[..., Any] = RemoteFunction(function, self._options)
        return made


def _restore_function(  # pyright: ignore[reportUnusedFunction]  # by its name, from pickles
    function: Callable[..., Any], keywords: dict[str, Any]
) -> RemoteFunction[..., Any]:
    return RemoteFunction(function, Options.from_keywords(Origin.DECORATOR, **keywords))
