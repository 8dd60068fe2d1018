"""Discounts. Change `SHARE` while `main.py` waits, and call again."""

SHARE = 0.10
FROM_COUNT = 10


def discounted(price: float, count: int) -> float:
    """Return the price of `count` pieces."""
    full = price * count
    return full * (1 - SHARE) if count >= FROM_COUNT else full
