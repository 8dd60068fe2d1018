"""What a cell costs while it runs, as far as what it runs on has a price. What is kept is the agents' own account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_exec.model.cost import HOUR_SECONDS, Bill, Cost, Price

if TYPE_CHECKING:
    from remote_exec.client.channel import Channel


class Spending:
    """Adds up what workers cost that are at work for one cell, from look to look."""

    def __init__(self) -> None:
        self._amounts: dict[str, float] = {}  # by currency
        self._working: Sequence[Channel] = ()
        self._looked_at = 0.0
        self._bills: dict[str, Bill] = {}  # of durable jobs, by name

    def look(self, working: Sequence[Channel], now: float) -> None:
        """Take note of which workers are at work now, each with its price.

        One that was so at the last look has been all the time; another since its call began, or until it answered.
        """
        for channel in working:
            begun = max(channel.running_since, channel.granted_at) if channel not in self._working else 0.0
            self._add(channel.price, now - max(begun, self._looked_at))
        for channel in self._working:
            if channel not in working:
                self._add(channel.price, min(now, channel.last_result) - self._looked_at)
        self._working, self._looked_at = working, now

    def job(self, name: str, bill: Bill | None) -> None:
        """Take note of what a durable job's agent has told."""
        if bill is not None:
            self._bills[name] = bill

    def stop(self, epoch: float) -> None:
        """Count the jobs no further: nobody waits for them."""
        for name, bill in self._bills.items():
            self._bills[name] = Bill(price=bill.price, seconds=bill.held(epoch))

    def text(self, epoch: float) -> str:
        """Return what it has been until now; empty where nothing had a price."""
        amounts = dict(self._amounts)
        for bill in self._bills.values():
            cost = bill.cost(epoch)
            amounts[cost.currency] = amounts.get(cost.currency, 0.0) + cost.amount
        return " + ".join(str(Cost(amount, currency)) for currency, amount in amounts.items() if amount)

    def _add(self, price: Price | None, seconds: float) -> None:
        if price is not None and seconds > 0:
            amount = price.per_hour * seconds / HOUR_SECONDS
            self._amounts[price.currency] = self._amounts.get(price.currency, 0.0) + amount
