"""Benchmarks beside what people use today: ratios from one run, never a timed test. See `__main__`."""
