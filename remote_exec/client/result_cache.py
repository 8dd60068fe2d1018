"""Results of earlier calls, for functions with `cache=True`: found before a call is sent, kept after it.

A call's key is made of the function's source and all that it reaches (`capture.identity`), its local modules (the
bundle's digest), its environment and variables, the Python minor, and its arguments. Results lie at the agent, where
every process finds them, and go when they were not used for long. Of several hosts all that are connected are asked.
What raised is not kept, and neither is a result while its call's arguments have no identity: that is an error, since
whoever asks for a cache wants to know.

Generators and durable jobs are not cached. `map` looks up and keeps each item by itself.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ..capture.function import Captured as Found
from ..capture.function import python_version
from ..capture.identity import digest_of
from ..future import RemoteFuture
from ..model.environment import EnvironmentKind
from ..model.errors import RemoteExecError
from ..model.record import record
from ..serial import pickling
from ..serial.pickling import Pickled
from .calls import Call, Captured
from .connections import connections
from .one_by_one import map_calls
from .trees import fetch, load

if TYPE_CHECKING:
    from ..backends.host import Host
    from .session import Session
    from .target import Place, Target

VERSION = 1  # of what keys are made of
INLINE_BYTES = 64 << 10
AHEAD = 4  # results of `map` that wait to be taken, for each worker


class CachedFuture(RemoteFuture[Any]):
    """The future of a call whose result is kept before anyone sees it: later it may have been changed."""

    keep: Callable[[Any], None] | None = None

    def set_result(self, result: Any) -> None:
        """Keep the result, then hand it on."""
        if self.keep is not None:
            self.keep(result)
        super().set_result(result)


@record(frozen=False)
class ResultCache:
    """The results of one captured function at one place. Use `result_cache`.

    Attributes:
        function: the function itself.
        target: where its calls go.
        sent: the function as calls carry it.
        digest: of all that the results depend on but the arguments.
    """

    function: Callable[..., Any]
    target: Target
    sent: Captured
    digest: str

    def run(self, arguments: Pickled, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the stored result of this call, or run it and store its result.

        Args:
            arguments: what is sent of the arguments.
            args: the arguments themselves.
            kwargs: likewise.

        Raises:
            ConfigurationError: an argument has no identity; the message leads to it.
            BaseException: what the call raised.
        """
        future, call = self._begin(arguments, args, kwargs)
        return self.target.dispatcher.run(call) if call is not None else future.result()

    def submit(self, arguments: Pickled, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RemoteFuture[Any]:
        """Return the call's future: done already when there is a stored result. Raises as `run` does."""
        future, call = self._begin(arguments, args, kwargs)
        if call is not None:
            self.target.dispatcher.submit(call)
        return future

    def map(
        self,
        arguments: Iterable[tuple[Any, ...]],
        *,
        submit: Callable[..., RemoteFuture[Any]],
        ordered: bool,
        return_exceptions: bool,
        timeout: float | None,
    ) -> Iterator[Any]:
        """Yield the results of many calls, stored or not, some of them ahead of being taken; `submit` starts each."""
        return map_calls(
            arguments,
            submit=submit,
            window=AHEAD * self.target.dispatcher.max_workers,
            ordered=ordered,
            return_exceptions=return_exceptions,
            timeout=timeout,
        )

    def _begin(
        self, arguments: Pickled, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[RemoteFuture[Any], Call | None]:
        key = self._key(args, kwargs)
        future = CachedFuture()
        if self._find(key, future):
            return future, None
        future.keep = functools.partial(self._keep, key)
        call = Call(self.sent, arguments, future)
        future._call, future._dispatcher = call, self.target.dispatcher  # pyright: ignore[reportPrivateUsage]
        return future, call

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        whole = hashlib.sha256(self.digest.encode())
        for name, value in _named(self.function, args, kwargs):
            whole.update(f"{name}={digest_of(value, name=f'argument {name!r}')};".encode())
        return whole.hexdigest()

    def _find(self, key: str, future: CachedFuture) -> bool:
        asked: list[tuple[Session, Future[tuple[Any, bytes]]]] = []
        for host in self._hosts():
            session = connections.session(host)
            asked.append((session, session.start("cached", {"key": key})))
        for session, reply in asked:
            told, body = reply.result()
            if told["found"]:
                return self._give(session, told, body, future)
        return False

    def _hosts(self) -> list[Host]:
        """Where a result may lie: the host that keeps those of now comes first."""
        own, spread = self.target.place.host, self.target.spread
        if spread is None:
            return [own]
        others = [host for host in spread.hosts if host != own and connections.is_there(host)]
        return [own, *others] if connections.is_there(own) or not others else others

    def _give(self, session: Session, told: dict[str, Any], body: bytes, future: CachedFuture) -> bool:
        try:
            value, trees = load(bytearray(body))
            fetch(trees, lambda: session, self.sent.name)
        except RemoteExecError as error:
            connections.reporter.note(f"a cached result of {self.sent.name} is of no use: {error.message}")
            return False
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told["created_at"]))
        connections.reporter.note(f"cached result of {self.sent.name} from {when}")
        future.cached = True
        future.set_running_or_notify_cancel()
        future.set_result(value)
        return True

    def _keep(self, key: str, value: Any) -> None:
        """Store a result; that this fails is said, and spoils nothing."""
        try:
            pickled = pickling.dump(value, named=pickling.Named())
            data = pickling.join(pickled.stream, pickled.buffers)
            size, digest = len(data), ""
            session = connections.session(self._hosts()[0])
            if size > INLINE_BYTES:
                digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
                session.upload_file(digest, io.BytesIO(data), size=size)
                data = b""
            facts = {"key": key, "function": self.sent.name, "size": size, "digest": digest}
            session.ask("remember", facts, body=data)
        except RemoteExecError as error:
            connections.reporter.note(f"the result of {self.sent.name} was not cached: {error.message}")


def result_cache(function: Callable[..., Any], found: Found, target: Target, sent: Captured) -> ResultCache:
    """Return the cache of a function's results, as it is captured now.

    Raises:
        ConfigurationError: something that the function reaches has no identity; the message leads to it.
    """
    code = digest_of(function, name=sent.name)
    return ResultCache(
        function, target, sent, digest_of((code, *_surroundings(found, target.place)), name="place")
    )


def _surroundings(found: Found, place: Place) -> tuple[object, ...]:
    """What a result depends on beside the function and its arguments."""
    environment = place.request["pool"].environment
    own = environment.kind is EnvironmentKind.INTERPRETER
    return (
        VERSION,
        python_version(),
        found.local_code.bundle.digest,
        environment.digest,
        _installed() if own else (),
        sorted(place.options.environment_variables.items()),
        place.options.pre_execution_commands,
        place.options.pre_execution_script and _text(place.options.pre_execution_script),
    )


def _installed() -> tuple[str, ...]:
    """What is installed here, by the names of the folders that say so: ``numpy-2.1.0.dist-info``."""
    found: set[str] = set()
    for folder in sys.path:
        try:
            found.update(
                name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info"))
            )
        except OSError:
            continue
    return tuple(sorted(found))


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _named(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Any]]:
    """The arguments under their names: ``f(1)`` and ``f(x=1)`` are the same call. A default left out is no argument."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):  # the call itself will say what is wrong with it
        return [*((str(index), value) for index, value in enumerate(args)), *kwargs.items()]
    return list(bound.arguments.items())
