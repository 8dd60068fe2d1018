"""A function's arguments as they are typed in a shell: texts, made what its annotations ask for."""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, Union

from ..model.errors import ConfigurationError

SEQUENCES: tuple[type[Any], ...] = (list, tuple, set, frozenset)
YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class _Refused(Exception):  # noqa: N818 - says what is wanted
    pass


def parse_arguments(function: Callable[..., Any], words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and keyword arguments for a call of the function.

    A parameter's annotation says what its text becomes; without one, or with one that says nothing of texts, it is
    a Python literal where it reads as one, else the text. ``NAME=VALUE`` goes by keyword.

    Raises:
        ConfigurationError: a text is not what its parameter takes, or the call does not fit the function.

    Example:
        >>> def fit(rate: float, name: str, layers=(), *, epochs: int = 1): ...
        >>> parse_arguments(fit, ["1", "7", "[64, 64]", "epochs=3"])
        ([1.0, '7', [64, 64]], {'epochs': 3})
    """
    signature = _signature(function)
    parameters = dict(signature.parameters) if signature else {}
    hints = _hints(function)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.isidentifier() and not value.startswith("="):
            kwargs[name] = _value(name, value, hints)
        else:
            _refuse_flag(word, parameters)
            args.append(_value(_positional(parameters, len(args)), word, hints))
    if signature is not None:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            name = getattr(function, "__name__", "the function")
            shown = str(signature).replace(f"{function.__module__}.", "")
            raise ConfigurationError(f"{name}: {error}", hint=f"it is {name}{shown}") from None
    return args, kwargs


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    for evaluated in (True, False):  # an annotation may name what is only there for a type checker
        try:
            return inspect.signature(function, eval_str=evaluated)
        except (NameError, AttributeError):
            continue
        except (TypeError, ValueError):  # a builtin that does not tell
            break
    return None


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    target = getattr(function, "__init__", function) if isinstance(function, type) else function
    try:
        return typing.get_type_hints(target)
    except Exception:  # as above; whatever evaluating an annotation raises
        return {}


def _positional(parameters: Mapping[str, inspect.Parameter], index: int) -> str:
    """Return the name of the parameter that takes the positional argument, or an empty text."""
    free = [one for one in parameters.values() if one.kind not in (one.KEYWORD_ONLY, one.VAR_KEYWORD)]
    if index < len(free) and free[index].kind is not inspect.Parameter.VAR_POSITIONAL:
        return free[index].name
    return next((one.name for one in free if one.kind is inspect.Parameter.VAR_POSITIONAL), "")


def _refuse_flag(word: str, parameters: Mapping[str, inspect.Parameter]) -> None:
    name, _, value = word.removeprefix("--").partition("=")
    name = name.replace("-", "_")
    if word.startswith("--") and name in parameters:
        raise ConfigurationError(
            f"{word!r} is no argument of a function: its arguments go by place, or by name",
            hint=f"{name}={value or 'VALUE'}",
        )


def _value(name: str, text: str, hints: Mapping[str, Any]) -> Any:
    try:
        return convert(text, hints.get(name, Any))
    except _Refused as refused:
        raise ConfigurationError(f"argument {name!r} must be {refused}, not {text!r}") from None


def convert(text: str, wanted: Any) -> Any:
    """Return a text as the annotation wants it.

    >>> convert("3", float), convert("3", str), convert("no", bool), convert("None", int | None)
    (3.0, '3', False, None)
    """
    origin = typing.get_origin(wanted)
    container: object = origin or wanted
    if origin is typing.Annotated:
        return convert(text, typing.get_args(wanted)[0])
    if origin in (Union, types.UnionType):
        return _first(text, typing.get_args(wanted))
    if origin is Literal:
        choices = typing.get_args(wanted)
        return _chosen(text, {str(choice): choice for choice in choices})
    if wanted is bool:
        return _chosen(
            text.lower(), {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}, "true or false"
        )
    if wanted in (int, float, complex):
        try:
            return wanted(text)
        except ValueError:
            raise _Refused("a whole number" if wanted is int else "a number") from None
    if wanted is type(None):
        return _chosen(text, {"None": None})
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return _chosen(text, {str(one.value): one for one in wanted} | dict(wanted.__members__))
    if wanted is str or (isinstance(wanted, type) and issubclass(wanted, PurePath)):
        return wanted(text)
    value = _literal(text)
    if container is dict and not _is_one_of(value, (dict,)):
        raise _Refused("a dict such as {'a': 1}")
    for sequence in SEQUENCES:
        if container is sequence:
            if not _is_one_of(value, SEQUENCES):
                raise _Refused(f"a {sequence.__name__} such as '[1, 2]'")
            return sequence(value)
    return value


def _is_one_of(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds)


def _first(text: str, members: Sequence[Any]) -> Any:
    """Return the text as the first of a union's members that takes it; a plain text comes last."""
    wanted: list[str] = []
    for member in sorted(members, key=lambda member: (member is str, member is not type(None))):
        try:
            return convert(text, member)
        except _Refused as refused:
            wanted.append(str(refused))
    raise _Refused(" or ".join(wanted))


def _chosen(text: str, choices: Mapping[str, Any], said: str = "") -> Any:
    try:
        return choices[text]
    except KeyError:
        raise _Refused(
            said or "one of " + ", ".join(choices) if len(choices) > 1 else next(iter(choices))
        ) from None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
