"""A function with its world, captured once and again only when something of it has changed."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.digests import hasher_of
from ..model.layout import Layout
from ..model.record import record
from ..options import Options
from ..serial import pickling
from ..serial.pickling import Pickled

if TYPE_CHECKING:
    from .freshness import Snapshot
    from .local_code import Capture
    from .modules import Reach


Watch = Callable[[str, str], AbstractContextManager[object]]


@record
class Captured:
    """What travels for a function."""

    name: str
    pickled: Pickled
    digest: str  # of the pickle: equal bytes need not be sent again
    reach: Reach
    local_code: Capture
    seconds: float = 0.0  # how long capturing it took
    requires: tuple[str, ...] = ()  # installed modules that its environment has whatever the user asked for

    @property
    def preload(self) -> tuple[str, ...]:
        """The third-party modules that a fork server should have imported."""
        return tuple(sorted({name for names in self.reach.third_party.values() for name in names}))


class FunctionCapture:
    """Captures one function again and again; cheap while nothing changes.

    Args:
        function: what is to run.
        name: what its calls are called.
        options: `include_local_workdir`, `custom_file_filter` and `bundle_size_limit` are read.
        modules: dotted names of further modules that are needed, such as those of the arguments' classes.
        requires: installed modules that the environment is to have whatever `dependencies` says.
        watch: enters a phase of a function, by both names: capturing may take long.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        options: Options,
        modules: Iterable[str] = (),
        requires: Iterable[str] = (),
        watch: Watch | None = None,
    ) -> None:
        self._watch = watch
        self._requires = tuple(requires)
        self._function = function
        self._modules = frozenset(modules)
        self._wants_more = False
        self._name = name
        self._options = options
        self._last: Captured | None = None
        self._snapshot: Snapshot | None = None

    def need(self, modules: frozenset[str]) -> None:
        """Have further modules travel too, or be there; harmless when they do already."""
        if not modules <= self._modules:
            self._modules |= modules
            self._wants_more |= self._last is None or not modules <= self._last.reach.names

    def current(self) -> Captured:
        """Return the function as it is now; the very same object while nothing has changed.

        Raises:
            SerializationError: it cannot be pickled.
            SizeLimitExceeded: its local code is too large.
        """
        last, snapshot = self._last, self._snapshot
        if (
            last is not None
            and snapshot is not None
            and not snapshot.mutable
            and not self._wants_more
            and snapshot.is_current()
            and last.local_code.is_current()
        ):
            return last
        if self._watch is None:
            return self._capture()
        with self._watch("capture", self._name):
            return self._capture()

    def _capture(self) -> Captured:
        from .freshness import Snapshot
        from .modules import reach
        from .named import needed_modules

        started = time.monotonic()
        snapshot = Snapshot.of(self._function)
        last = self._last
        named = pickling.Named()
        pickled = pickling.dump(self._function, name=self._name, named=named)
        digest = _digest(pickled)
        fresh = last is None or self._snapshot is None or self._wants_more or not self._snapshot.is_current()
        self._snapshot, self._wants_more = snapshot, False
        if last is not None and not fresh and last.local_code.is_current():
            if digest == last.digest:
                return last
            took = time.monotonic() - started
            self._last = Captured(
                self._name, pickled, digest, last.reach, last.local_code, took, self._requires
            )
            return self._last
        found = reach(self._function, modules=self._modules | needed_modules(named))
        code = self._bundle(found)
        if last is not None and digest == last.digest and code.bundle.digest == last.local_code.bundle.digest:
            pickled = last.pickled
        took = time.monotonic() - started
        self._last = Captured(self._name, pickled, digest, found, code, took, self._requires)
        return self._last

    def _bundle(self, found: Reach) -> Capture:
        options = self._options
        if not (found.local or options.include_local_workdir):
            from .local_code import NOTHING

            return NOTHING
        from .bundle import bundle_modules, bundle_workdir

        cache = Layout.of(os.environ).home / "cache" / "index-v1"
        if options.include_local_workdir:
            return bundle_workdir(
                reach=found,
                file_filter=options.custom_file_filter,
                cache_dir=cache,
                limit_bytes=options.bundle_size_limit,
            )
        return bundle_modules(found, cache_dir=cache, limit_bytes=options.bundle_size_limit)


def log_levels() -> dict[str, int]:
    """Return the levels at which this process's loggers stand, where they have one of their own; "" is the root."""
    root = logging.getLogger()
    levels = {"": root.level}
    for name, logger in list(root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = logger.level
    return levels


def source_paths(sources: Mapping[str, str]) -> dict[str, Path]:
    """Return a bundle's sources as paths."""
    return {digest: Path(path) for digest, path in sources.items()}


def python_version() -> str:
    """Return this interpreter's minor version, as "3.11"."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _digest(pickled: Pickled) -> str:
    whole = hasher_of(pickled.size_bytes)
    for part in pickled.stream:
        whole.update(part)
    for buffer in pickled.buffers:
        whole.update(buffer.raw())
    return whole.hexdigest()
