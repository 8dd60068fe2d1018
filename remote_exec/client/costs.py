"""What a call has cost, asked of the agent that keeps its record."""

from __future__ import annotations

import time
from typing import Any

from ..model.cost import Cost, bill_of
from ..model.errors import JobNotFound
from .calls import Call
from .connections import connections


def cost_of_call(call: Call, *, done: bool) -> Cost | None:
    """Return what a call has cost until now; None where its worker has no price, or nothing is kept of it.

    Args:
        call: that has been sent.
        done: whether it has ended: else its agent may not have heard of it yet.

    Raises:
        HostUnavailable: its agent cannot be reached.
    """
    channel = call.channel
    if channel is None or channel.price is None:
        return None
    question = {"name": call.name}
    try:
        told: dict[str, Any] = connections.with_agent(
            channel.session.host, lambda session: session.ask("job", question)
        )
    except JobNotFound:
        return None if done else Cost(0.0, channel.price.currency)
    job = told["job"]
    bill = bill_of(job)
    if bill is None:
        return None
    cost = bill.cost(time.time())
    together = int(job["count"]) if job["name"] != call.name else 1
    return Cost(cost.amount / together, cost.currency)
