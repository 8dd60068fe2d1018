"""Group a table of a few hundred MB in another process: the columns travel as they lie in memory.

Large arrays are not copied into a pickle: they go out of band, on this machine through shared memory.
Run it: ``python examples/dataframe/dataframe.py`` (needs pandas).
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
import pandas as pd

from remote_exec import remote


def trips(rows: int) -> pd.DataFrame:
    """Return made-up taxi trips: 8 columns, 64 bytes a row."""
    random = np.random.default_rng(0)
    distance = random.gamma(2.0, 2.5, rows)
    seconds = distance * random.normal(180, 30, rows).clip(60)
    fare = 3.0 + 1.8 * distance + seconds / 150
    return pd.DataFrame(
        {
            "zone": random.integers(0, 265, rows),
            "hour": random.integers(0, 24, rows),
            "passengers": random.integers(1, 7, rows),
            "distance_km": distance,
            "seconds": seconds,
            "fare": fare,
            "tip": fare * random.beta(2, 9, rows),
            "tolls": random.exponential(0.4, rows),
        }
    )


@remote(keep_alive_period_in_seconds=600)
def by_hour(table: pd.DataFrame) -> pd.DataFrame:
    """Return what a trip is like in each hour of the day."""
    print(f"process {os.getpid()} has {len(table):,} rows")
    table = table.assign(kmh=table.distance_km / table.seconds * 3600, tip_share=table.tip / table.fare)
    grouped = table.groupby("hour")
    return grouped.agg(
        trips=("fare", "size"), fare=("fare", "sum"), kmh=("kmh", "mean"), tip_share=("tip_share", "mean")
    )


def main() -> None:
    """Make the table, send it twice, show the result."""
    parser = argparse.ArgumentParser(description="Group a large table elsewhere.")
    parser.add_argument("--rows", type=int, default=5_000_000)
    arguments = parser.parse_args()

    table = trips(arguments.rows)
    megabytes = table.memory_usage(index=False).sum() / 1e6
    print(f"process {os.getpid()} made {len(table):,} rows, {megabytes:,.0f} MB")
    result = pd.DataFrame()
    for call in ("first", "second"):
        started = time.perf_counter()
        result = by_hour(table)
        print(f"{call} call, there and back: {time.perf_counter() - started:.2f} s")
    started = time.perf_counter()
    expected = by_hour.local(table)
    print(f"right here:                 {time.perf_counter() - started:.2f} s")
    pd.testing.assert_frame_equal(result, expected)
    print(result.round(3).to_string())


if __name__ == "__main__":
    main()
