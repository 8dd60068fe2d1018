"""What becomes of the calls of a worker that has died: each ends by that, or goes to another worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.job import Cause
from ..wire import frames
from .answers import Answers, cancelled
from .calls import Call

if TYPE_CHECKING:
    from .channel import Channel
    from .reporter import Reporter

DEATHS_BEFORE_BEGUN = 3  # workers that may die before they begin a call, until it is given up
EVERY = 1 << 62  # the number of a call, or an item, beyond all others


def settle(
    channel: Channel, calls: list[Call], error: Exception, *, answers: Answers, reporter: Reporter
) -> list[Call]:
    """Give calls their ends, with no lock held; return those that have not begun and are to be sent again.

    Args:
        channel: whose worker is gone.
        calls: in flight on it, in their order; at least one.
        error: how the first of them ends, if it does by this.
        answers: shows what the worker has printed last.
        reporter: hears of the ends.
    """
    lost = channel.lost
    begun = lost.begun if lost is not None else 0 if channel.never_granted else EVERY
    again: list[Call] = []
    if lost is not None:
        answers.show_rest(calls[0], lost.rest)
    withdrawn = not begun and lost is not None and lost.certificate.cause is Cause.CANCELLED
    for call in calls:
        if call.cancelling and call.number > begun:
            cancelled(call.spend())
            reporter.ended(call)
            continue
        if not begun and not withdrawn:
            call.deaths += 1  # no worker has lived to begin anything: not for ever
        if call.number > begun and call.pickled.stream and call.deaths < DEATHS_BEFORE_BEGUN:
            call.channel, call.number = None, 0
            again.append(call)
        elif lost is not None and lost.certificate.cause is Cause.CANCELLED:
            cancelled(call.spend())
        elif call.on_values is not None and call.kind == frames.BATCH:
            # Where it is not known which item was the last, each may have run, and none may run again.
            call.on_values(-1, (error, lost.item if lost is not None and begun == call.number else EVERY))
        else:
            call.spend().set_exception(error if call is calls[0] else channel.why_ended(call))
        if call not in again:
            reporter.ended(call)
    return again
