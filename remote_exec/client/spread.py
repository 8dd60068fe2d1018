"""Calls spread over several hosts: each goes to the least busy one, and what waits is moved where there is room.

It takes calls as a `Dispatcher` does, and has one of those for each host, opened when there is something for it to do.
Only calls that have not been sent are moved: one that may have begun stays where it is. While calls are pending, a
thread looks now and then which hosts are out of reach and where workers are idle.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ..backends.host import Host
from ..model.errors import HostUnavailable, RemoteExecError
from ..model.record import record
from .connections import connections
from .dispatcher import IDLE_SECONDS, Dispatcher
from .loads import loads

if TYPE_CHECKING:
    from ..future import RemoteFuture
    from ..serial.pickling import Pickled
    from .calls import Call
    from .target import Place

LOOK_SECONDS = 0.3
QUIET_SECONDS = 5.0  # with nothing pending, until the thread ends


@record
class Way:
    """One host's part."""

    place: Place
    dispatcher: Dispatcher

    @property
    def host(self) -> Host:
        """Where it leads."""
        return self.place.host

    @property
    def load(self) -> float:
        """How busy the host is, for each worker that it could have."""
        return (connections.pending(self.host) + loads.others(self.host)) / self.dispatcher.max_workers


class Spread:
    """See the module's docstring.

    Args:
        hosts: all of them.
        first: the one that was found to be the least busy.
        find: says how calls go to another host, after whatever they need was brought there.
        alternatives: whether there are other instance types that would do, where none of these can be reached.
    """

    def __init__(
        self, hosts: Sequence[Host], first: Way, find: Callable[[Host], Way], *, alternatives: bool
    ) -> None:
        self.hosts = hosts
        self._alternatives = alternatives
        self._find = find
        self._lock = threading.Lock()
        self._ways: dict[Host, Way] = {first.host: first}
        self._first = first
        self._unfit: set[Host] = set()  # what this function needs cannot be brought there
        self._opening = False
        self._thread: threading.Thread | None = None

    # --- as a dispatcher --------------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Give a call to the least busy host.

        Raises:
            HostUnavailable: none can be reached.
        """
        self._on_the_least_busy(lambda way: self._give(call, way))
        self._look_after()

    def run(self, call: Call) -> Any:
        """Give a call to the least busy host and wait for its value. Ctrl-C cancels the call.

        Raises:
            BaseException: what the call raised.
        """
        future = call.future
        self.submit(call)
        try:
            self.wait(future, None)
        except KeyboardInterrupt:
            if self.cancel(call):
                with contextlib.suppress(CancelledError):
                    self.wait(future, time.monotonic() + IDLE_SECONDS)
            raise
        return future.result()

    def wait(
        self, future: RemoteFuture[Any], deadline: float | None, *, until: Callable[[], bool] | None = None
    ) -> None:
        """Return when the future is done, or `until()` is true, or the time has come."""
        call, done = future._call, until or future.done
        while call is not None and not done() and (deadline is None or time.monotonic() < deadline):
            there = _dispatcher_of(call)
            there.wait(future, deadline, until=lambda there=there: done() or call.dispatcher is not there)  # type: ignore[misc]

    def cancel(self, call: Call) -> bool:
        """Withdraw a queued call, or have a running one stopped; False when it has ended."""
        there = _dispatcher_of(call)
        return there.cancel(call) or (call.dispatcher is not there and _dispatcher_of(call).cancel(call))

    def why(self, call: Call) -> str:
        """Say in words what a call waits for."""
        there = _dispatcher_of(call)
        names = [way.host.name for way in self._opened() if way.dispatcher is there]
        return f"{there.why(call)} (on {names[0]})" if names else there.why(call)

    def credit(self, call: Call, count: int) -> None:
        """Let a generator call yield more values."""
        _dispatcher_of(call).credit(call, count)

    def answer(self, call: Call, value: Pickled) -> None:
        """Send what a generator call has asked for."""
        _dispatcher_of(call).answer(call, value)

    @property
    def max_workers(self) -> int:
        """How many workers may run its calls at once, on all hosts together that are of use now."""
        return sum(way.dispatcher.max_workers for way in self._opened() if not loads.is_out(way.host)) or 1

    @property
    def closed(self) -> bool:
        """Whether another host should be found to begin with."""
        if self._alternatives and all(loads.is_out(host) for host in self.hosts):
            return True
        return self._first.dispatcher.closed or loads.is_lost(self._first.host)

    def place(self) -> Place:
        """Return the place of the least busy host: for what is no call of a dispatcher's.

        Raises:
            HostUnavailable: none can be reached.
        """
        way = self._on_the_least_busy(lambda way: connections.session(way.host))
        loads.add(way.host)
        return way.place

    def places(self, count: int) -> list[Place]:
        """Return the places of so many of the hosts, the least busy ones, in the order of all: for a group's nodes.

        Raises:
            HostUnavailable: fewer can be reached.
        """
        # which cannot be imported while the interpreter ends
        from concurrent.futures import ThreadPoolExecutor

        for host in self.hosts:
            loads.refresh(host)
        shape = self._first.place.request["pool"].shape
        left = sorted(
            self.hosts,
            key=lambda host: (
                loads.is_out(host),
                (connections.leases(host) + loads.others(host)) / loads.capacity(host, shape),
            ),
        )
        found: dict[Host, Place] = {}
        failures: list[HostUnavailable] = []
        while len(found) < count and left:
            asked, left = left[: count - len(found)], left[count - len(found) :]
            with ThreadPoolExecutor(len(asked), thread_name_prefix="remote_exec-node") as threads:
                for host, place in zip(asked, threads.map(self._reached, asked), strict=True):
                    if isinstance(place, HostUnavailable):
                        failures.append(place)
                    else:
                        found[host] = place
        if len(found) < count:
            raise HostUnavailable(
                f"{count} hosts are needed, and {len(found)} of {len(self.hosts)} can be reached: "
                + "; ".join(error.message for error in failures),
                hint=failures[0].hint,
            )
        for host in found:
            loads.add(host)
        return [found[host] for host in self.hosts if host in found]

    def _reached(self, host: Host) -> Place | HostUnavailable:
        try:
            place = self._ways[host].place if host in self._ways else self._open(host).place
            connections.session(host)
        except HostUnavailable as error:
            loads.take_out(host, error.message)
            return error
        return place

    # --- which host -------------------------------------------------------------------------------------------

    def _opened(self) -> list[Way]:
        with self._lock:
            return list(self._ways.values())

    def _on_the_least_busy(self, use: Callable[[Way], object]) -> Way:
        """Make use of the least busy host that can be reached, and return the way there."""
        tried: list[Host] = []
        while True:
            way = self._choose(tried)
            try:
                use(way)
                return way
            except HostUnavailable as error:
                loads.take_out(way.host, error.message)
                tried.append(way.host)
                if len(tried) == len(self.hosts):
                    raise

    def _choose(self, tried: Collection[Host]) -> Way:
        """Return the least busy of the hosts that are left; those out of reach come last.

        Raises:
            HostUnavailable: the one that is left cannot be reached.
        """
        for host in self.hosts:
            loads.refresh(host)
        left = [way for way in self._opened() if way.host not in tried]
        live = [way for way in left if not loads.is_out(way.host)]
        if live:
            best = min(live, key=lambda way: way.load)
            self._open_more(best)
            return best
        unopened = [host for host in self.hosts if host not in self._ways and host not in tried]
        failure = HostUnavailable("none of the hosts can be reached")
        for host in (*(one for one in unopened if not loads.is_out(one)), *(() if left else unopened)):
            try:
                return self._open(host)
            except HostUnavailable as error:
                failure = error
                loads.take_out(host, error.message)
        if not left:
            raise failure
        return min(left, key=lambda way: way.load)

    def _open(self, host: Host) -> Way:
        way = self._find(host)
        with self._lock:
            return self._ways.setdefault(host, way)

    def _open_more(self, best: Way) -> None:
        """Where a host that is not open yet is less busy than the best of those, open it, for the calls to come."""
        if self._opening or len(self._ways) == len(self.hosts) or not best.dispatcher.pending:
            return
        for host in self.hosts:
            if host in self._ways or host in self._unfit or loads.is_out(host):
                continue
            if loads.others(host) / loads.capacity(host, best.place.request["pool"].shape) < best.load:
                self._opening = True
                threading.Thread(
                    target=self._open_soon, args=(host,), name="remote_exec-open", daemon=True
                ).start()
                return

    def _open_soon(self, host: Host) -> None:
        try:
            self._open(host)
        except HostUnavailable as error:
            loads.take_out(host, error.message)
        except RemoteExecError as error:  # of the function, not of the host
            self._unfit.add(host)
            connections.reporter.note(f"{host.name} is not used: {error.message}")
        finally:
            self._opening = False

    # --- moving calls -----------------------------------------------------------------------------------------

    def _give(self, call: Call, way: Way) -> None:
        if call.pickled.trees:
            from .trees import bring

            bring(call.pickled, way.host, call.captured.name)
        call.dispatcher, call.elsewhere = way.dispatcher, self._again
        way.dispatcher.submit(call)

    def _again(self, call: Call, error: HostUnavailable) -> None:
        """A call was queued for a host that cannot be reached now."""
        for way in self._opened():
            if way.dispatcher is call.dispatcher:
                loads.take_out(way.host, error.message)
        try:
            self.submit(call)
        except RemoteExecError as failure:
            call.spend().set_exception(failure)

    def _look_after(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="remote_exec-spread", daemon=True)
                self._thread.start()

    def _look(self) -> None:
        quiet_since = time.monotonic()
        while self._goes_on(quiet_since):
            time.sleep(LOOK_SECONDS)
            ways = self._opened()
            busy = [way for way in ways if way.dispatcher.pending]
            for host in self.hosts if busy else ():
                loads.refresh(host)
            for way in busy:
                quiet_since = time.monotonic()
                self._relieve(way, [other for other in ways if other is not way])

    def _goes_on(self, quiet_since: float) -> bool:
        with self._lock:
            pending = any(way.dispatcher.pending for way in self._ways.values())
            if pending or time.monotonic() - quiet_since < QUIET_SECONDS:
                return True
            self._thread = None
            return False

    def _relieve(self, way: Way, others: list[Way]) -> None:
        """Move what waits for a host: all of it if that is out of reach, else what others have idle workers for."""
        others = [other for other in others if not loads.is_out(other.host)]
        if loads.is_out(way.host):
            loads.note_out(way.host, "it is out of reach just now")
            if not others and len(self._ways) < len(self.hosts):
                self._open_more(way)
            if others:
                way.dispatcher.hand_over(1 << 30, lambda call: self._again_at(call, others))
            return
        self._open_more(way)
        for other in others:
            idle = other.dispatcher.max_workers - other.dispatcher.pending - int(loads.others(other.host))
            if idle > 0:
                way.dispatcher.hand_over(idle, lambda call, other=other: self._again_at(call, [other]))  # type: ignore[misc]

    def _again_at(self, call: Call, ways: Sequence[Way]) -> None:
        way = min(ways, key=lambda way: way.load)
        try:
            self._give(call, way)
        except HostUnavailable as error:
            self._again(call, error)
        except RemoteExecError as error:
            call.spend().set_exception(error)


def _dispatcher_of(call: Call) -> Dispatcher:
    dispatcher = call.dispatcher
    assert isinstance(dispatcher, Dispatcher)  # noqa: S101
    return dispatcher
