"""A script with a package of its own: edit the package between two calls, and the next call sees it.

Run it: ``python examples/ide_project/main.py``, change `shop/discount.py` in your editor, press Enter.
"""

from __future__ import annotations

from shop import catalogue
from shop.discount import discounted

from remote_exec import remote


@remote
def total(basket: dict[str, int]) -> float:
    """Return what a basket costs, by the package's prices and discounts."""
    prices = catalogue.prices()
    return round(sum(discounted(prices[item], count) for item, count in basket.items()), 2)


def main() -> None:
    """Call again after each Enter, until the input ends."""
    basket = {"apple": 10, "bread": 1}
    while True:
        print(f"The basket costs {total(basket):.2f}.", flush=True)
        try:
            input("Edit shop/discount.py, then press Enter (Ctrl-D ends): ")
        except EOFError:
            print()
            return


if __name__ == "__main__":
    main()
