"""What became of calls on another machine whose stream has ended: asked of its agent, by the names of the calls.

A worker that has given up its client runs what it has received to the end, as jobs. What it has never received is
sent again: to the same host when that is back, to another where there are several, and so it is with what has not left
this machine whole, even if the host never comes back.
"""

from __future__ import annotations

from ..model.errors import HostUnavailable, JobNotFound, RemoteExecError
from ..serial import directories
from ..wire import frames
from .answers import cancelled
from .calls import Call
from .channel import Channel
from .jobs import load_outcome
from .session import Session
from .settling import EVERY

BEGUN_ONCE = (frames.BATCH, frames.GENERATE)  # what has been taken in of it cannot be told from what has not


def find_out(channel: Channel, calls: list[Call]) -> list[Call]:
    """Give calls their outcomes, waiting for those that go on; return those which have never come there.

    Args:
        channel: whose stream has ended, and whose worker is not known to have died.
        calls: in flight on it, in their order.
    """
    never_came: list[Call] = []
    try:
        session = channel.session_again()
        # else what is not on record may have begun all the same: the host was lost with all that ran on it
        on_record = session is not None and channel.may_be_sent_again(session)
    except RemoteExecError:
        session, on_record = None, False
    for call in calls:
        if call.cancelling and channel.never_went(call):
            cancelled(call.spend())
        elif channel.never_went(call) and (session is not None or call.elsewhere is not None):
            never_came.append(call)
        elif session is None or call.kind in BEGUN_ONCE:
            _fail(channel, call)
        elif not _is_told(session, call):
            if on_record:
                never_came.append(call)
            else:
                _fail(channel, call)
    for call in never_came:
        call.channel, call.number = None, 0
    if session is not None:
        return never_came
    for call in never_came:
        assert call.elsewhere is not None  # noqa: S101
        call.elsewhere(call, HostUnavailable(f"{channel.session.host.name} is out of reach"))
    return []


def _is_told(session: Session, call: Call) -> bool:
    """Wait for the job that a call has become, and complete the call; False when there is no such job."""
    try:
        told, body = session.start("result", {"name": call.name, "wait": True}).result()
    except JobNotFound:
        return False
    except HostUnavailable as error:
        call.spend().set_exception(error)
        return True
    if told["state"] == "cancelled":
        cancelled(call.spend())
        return True
    try:
        directories.noted.take()
        value = load_outcome(call.name, told, body)
        if trees := directories.noted.take():
            from .trees import fetch

            fetch(trees, lambda: session, call.captured.name)
    except BaseException as error:  # the function's own
        call.spend().set_exception(error)
    else:
        call.spend().set_result(value)
    return True


def _fail(channel: Channel, call: Call) -> None:
    error = channel.why_ended(call)
    if call.on_values is not None and call.kind == frames.BATCH:
        call.on_values(-1, (error, EVERY))
    else:
        call.spend().set_exception(error)
