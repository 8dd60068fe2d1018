"""What a job costs: sums over attempts and calls, as the journal keeps them, and how an amount reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_exec.agent.journal import Journal
from remote_exec.model.cost import Bill, Cost, Instance, Price
from remote_exec.model.job import AttemptRecord, Cause, JobRecord, JobState, Outcome, OutcomeKind

PRICE = Price(per_hour=3600.0, currency="EUR")  # one a second
OK = Outcome(kind=OutcomeKind.OK)
SECONDS = st.floats(0, 1e6)


def job(name: str, price: Price | None = PRICE) -> JobRecord:
    bill = Bill(price=price) if price is not None else None
    return JobRecord(
        name=name, kind="job", function="f", state=JobState.QUEUED, created_at=0.0, attempts=0, bill=bill
    )


def calls(name: str, count: int, seconds: float) -> JobRecord:
    return JobRecord(
        name=name, kind="array", function="f", state=JobState.SUCCEEDED, created_at=0.0, started_at=0.0,
        ended_at=1.0, count=count, bill=Instance(price=PRICE).bill(seconds=seconds),
    )  # fmt: skip


def run(journal: Journal, name: str, attempts: Sequence[tuple[float, float]]) -> None:
    """Begin and end attempts at these times."""
    for number, (started_at, ended_at) in enumerate(attempts, 1):
        attempt = AttemptRecord(job=name, number=number, state=JobState.RUNNING, started_at=started_at)
        journal.start_attempt(attempt)
        ended = {"state": JobState.FAILED, "cause": Cause.SIGNAL, "ended_at": ended_at}
        journal.end_attempt(AttemptRecord(job=name, number=number, started_at=started_at, **ended))  # type: ignore[arg-type]


def cost(journal: Journal, name: str, now: float) -> Cost | None:
    journal.written().result()
    record = journal.get(name)
    assert record is not None
    return record.bill.cost(now) if record.bill is not None else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_attempts_add_up_and_what_is_waited_for_between_costs_nothing(path: Path) -> None:
    journal = Journal.open(path)
    journal.create_job(job("a"), spec_json="{}")
    assert cost(journal, "a", now=50.0) == Cost(0.0, "EUR"), "it waits for a worker"
    run(journal, "a", [(100.0, 110.0), (200.0, 205.0)])
    assert cost(journal, "a", now=300.0) == Cost(15.0, "EUR"), "it waits for its third"
    journal.start_attempt(AttemptRecord(job="a", number=3, state=JobState.RUNNING, started_at=400.0))
    assert cost(journal, "a", now=402.0) == Cost(17.0, "EUR"), "it runs"
    journal.written().result()
    journal.close()
    journal = Journal.open(path)  # the next agent
    assert cost(journal, "a", now=403.0) == Cost(18.0, "EUR")
    journal.finish("a", state=JobState.SUCCEEDED, ended_at=404.0, outcome=OK).result()
    assert cost(journal, "a", now=9e9) == Cost(19.0, "EUR"), "what it held has been let go, whoever says so"
    journal.close()


def test_what_has_no_price_costs_nothing_whatever_becomes_of_it(path: Path) -> None:
    journal = Journal.open(path)
    journal.create_job(job("a", price=None), spec_json="{}")
    run(journal, "a", [(1.0, 2.0)])
    journal.start_attempt(AttemptRecord(job="a", number=2, state=JobState.RUNNING, started_at=3.0))
    assert cost(journal, "a", now=4.0) is None
    journal.finish("a", state=JobState.SUCCEEDED, ended_at=4.0, outcome=OK).result()
    assert cost(journal, "a", now=5.0) is None
    journal.close()


def test_a_journal_of_before_goes_on_without_prices(path: Path) -> None:
    scripts = sorted(Path(Journal.open.__code__.co_filename).with_name("sql").glob("000[12]_*.sql"))
    with sqlite3.connect(path) as old:
        for script in scripts:
            old.executescript(script.read_text())
        old.execute(f"PRAGMA user_version = {len(scripts)}")
        old.execute(
            "INSERT INTO jobs (name, kind, function, state, created_at, ended_at, cause, summary, instance_type, "
            "attempts, count, failed, tags) "
            "VALUES ('old', 'call', 'f', 'succeeded', 1, 2, 'none', '', 'local', 1, 1, 0, '[]')"
        )
    old.close()
    journal = Journal.open(path)
    assert cost(journal, "old", now=9.0) is None
    journal.create_job(job("new"), spec_json="{}")
    run(journal, "new", [(1.0, 2.0)])
    assert cost(journal, "new", now=9.0) == Cost(1.0, "EUR")
    journal.close()


@given(pieces=st.lists(SECONDS, min_size=1, max_size=8), factor=st.integers(1, 64))
def test_it_costs_the_same_in_whatever_pieces_it_is_counted(pieces: list[float], factor: int) -> None:
    whole = Bill(price=PRICE, seconds=sum(pieces)).cost(0.0)
    counted = sum(Bill(price=PRICE, seconds=piece).cost(0.0).amount for piece in pieces)
    assert counted == pytest.approx(whole.amount)
    running = Bill(price=PRICE, seconds=sum(pieces[1:]), since=7.0).cost(7.0 + pieces[0])
    assert running.amount == pytest.approx(whole.amount)
    many = Bill(price=PRICE.times(factor), seconds=sum(pieces)).cost(0.0)
    assert many.amount == pytest.approx(factor * whole.amount)


def test_calls_of_an_array_add_up_however_they_are_told(path: Path) -> None:
    journal = Journal.open(path)
    for count, seconds in ((2, 0.5), (1, 0.25), (3, 1.0)):
        journal.record_calls([calls("f-0", count, seconds)])
    assert cost(journal, "f-0", now=9.0) == Cost(1.75, "EUR")
    journal.close()


def test_a_clock_that_was_set_back_makes_nothing_negative() -> None:
    assert Bill(price=PRICE, seconds=3.0, since=100.0).cost(50.0) == Cost(3.0, "EUR")


@given(st.floats(0, 1e9))
def test_an_amount_reads_as_itself_rounded_and_never_as_nothing(amount: float) -> None:
    text = str(Cost(amount, "EUR"))
    assert text.endswith(" EUR")
    number = text.removesuffix(" EUR").replace(",", "")
    if number.startswith("<"):
        assert 0 < amount < float(number[1:])
    else:
        rounding = 0.005 if amount >= 0.1 else 0.0005 if amount >= 0.01 else 0.00005
        assert float(number) == pytest.approx(amount, abs=rounding * 1.02)
        assert (float(number) == 0) == (amount == 0)
