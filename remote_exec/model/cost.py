"""What workers cost, and what a job has cost: prices, times, amounts. No I/O, and no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .record import record

HOUR_SECONDS = 3600.0


@record(kw_only=True)
class Price:
    """What one worker costs for each hour that a job holds it."""

    per_hour: float
    currency: str = ""

    def times(self, factor: float) -> Price:
        """Return the price of so many, or of a part."""
        return Price(per_hour=self.per_hour * factor, currency=self.currency)


@record
class Cost:
    """An amount of money. As text it is rounded; an amount that is not zero never looks like zero.

    Example:
        >>> str(Cost(0.4213, "EUR")), str(Cost(0.00042)), str(Cost(0.0000001, "EUR"))
        ('0.42 EUR', '0.0004', '<0.0001 EUR')
    """

    amount: float
    currency: str = ""

    def __str__(self) -> str:
        if 0.0 < self.amount < 0.0001:
            text = "<0.0001"
        else:
            decimals = 2 if self.amount >= 0.1 or not self.amount else 3 if self.amount >= 0.01 else 4
            text = f"{self.amount:,.{decimals}f}"
        return f"{text} {self.currency}".rstrip()


@record(kw_only=True)
class Bill:
    """For how long a job has held workers that have a price. What it waited for is not in it."""

    price: Price
    seconds: float = 0.0  # in attempts that have ended; of an array, in all of its calls
    since: float | None = None  # UTC: since when it holds the worker that it has now

    def held(self, now: float) -> float:
        """Return for how many seconds it has held workers until now."""
        return self.seconds + (max(0.0, now - self.since) if self.since is not None else 0.0)

    def cost(self, now: float) -> Cost:
        """Return what it has cost until now."""
        return Cost(self.price.per_hour * self.held(now) / HOUR_SECONDS, self.price.currency)


@record(kw_only=True)
class Instance:
    """As what a worker was asked for: the name of an instance type, and its price at that time."""

    type: str = "local"
    price: Price | None = None

    def bill(self, *, seconds: float = 0.0, since: float | None = None) -> Bill | None:
        """Return the bill of what runs, or ran, on its worker; None where that has no price."""
        return Bill(price=self.price, seconds=seconds, since=since) if self.price is not None else None


def bill_of(job: Mapping[str, Any]) -> Bill | None:
    """Return the bill of a job or call as agents tell of it; None where there is none."""
    told: Mapping[str, Any] | None = job.get("bill")
    if told is None:
        return None
    return Bill(price=Price(**told["price"]), seconds=told["seconds"], since=told["since"])


def total(costs: Iterable[Cost]) -> Cost | None:
    """Return the sum of costs in one currency; None of none."""
    found = list(costs)
    return Cost(sum(cost.amount for cost in found), found[0].currency) if found else None
