"""What jobs and calls cost where their instance type has a price, told the same by whoever looks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs_work as work
import pytest
from commands import command
from waiting import until

from remote_exec import Cost, get_future, remote
from remote_exec.backends.host import Host
from remote_exec.client.connections import connections
from remote_exec.errors import WorkerDied

SECONDS = 30.0
EACH_SECOND = 3600.0
CONFIGURATION = Path("remote_exec", "config.toml")


class Priced:
    """The instance type of the tests, with a price; see `set`."""

    def __init__(self, file: Path, table: str) -> None:
        self.name = "local" if table == "" else "conforming"
        self.since = time.time()
        self._file, self._table = file, table

    def set(self, per_hour: float | None, currency: str = "EUR") -> None:
        """Write the configuration; None takes the price out of it."""
        price = "" if per_hour is None else f"cost_per_hour = {per_hour}\ncurrency = {currency!r}\n"
        head = f"[instances.{self.name}]\n"
        table = self._table.replace(head, head + price) if self._table else head + price
        self._file.write_text(table)

    def rows(self, prefix: str) -> list[Any]:
        """Return what is listed of this test's jobs and calls."""
        found: list[Any] = json.loads(command("jobs", "--json", "--all", "--prefix", prefix))
        return [row for row in found if row["created_at"] > self.since]

    def ended(self, prefix: str, count: int) -> list[Any]:
        """Wait until so many of them have ended, and are listed so."""
        found: list[Any] = until(
            lambda: (
                [row for row in self.rows(prefix) if row["ended_at"] is not None][count - 1 :]
                and self.rows(prefix)
            )
        )
        assert len(found) == count
        return found


@pytest.fixture
def priced(host: Host, session_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Priced:
    """The host of the test costs one euro a second."""
    before = session_home / "config" / CONFIGURATION
    file = tmp_path / "config" / CONFIGURATION
    file.parent.mkdir(parents=True)
    made = Priced(file, "" if host.here else before.read_text())
    made.set(EACH_SECOND)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return made


def assert_is(cost: Cost | None, euros: float, least: float = 0.0) -> None:
    assert cost is not None
    assert (cost.amount, cost.currency) == (pytest.approx(euros), "EUR")
    assert cost.amount >= least


def held(told: Any) -> float:
    """For how long a job's attempts had workers, as they tell themselves."""
    return sum(attempt["ended_at"] - attempt["started_at"] for attempt in told["attempts"])


def test_a_job_costs_what_its_worker_was_held_whatever_the_price_is_later(
    priced: Priced, tmp_path: Path
) -> None:
    future = (
        remote(work.hold)
        .options(name=f"job-{os.urandom(4).hex()}", detach=True)
        .submit(str(tmp_path / "n"), 0.5)
    )
    assert future.result(SECONDS) == "held"
    cost = future.cost
    assert cost is not None
    priced.set(7.0, "USD")
    told = json.loads(command("jobs", future.job, "--json"))
    assert cost == get_future(future.job).cost
    assert_is(cost, held(told))
    assert cost.amount >= 0.5
    assert told["job"]["instance_type"] == priced.name
    assert told["job"]["cost"] == {
        "amount": cost.amount,
        "currency": "EUR",
        "per_hour": EACH_SECOND,
        "held_seconds": pytest.approx(held(told)),
    }
    header, line = command("jobs", "--prefix", future.job).splitlines()
    assert header.split()[-2:] == ["COST", "SUMMARY"]
    assert line.rstrip().endswith(f"  {cost}")
    assert f"{cost}, " in command("jobs", future.job)
    assert "at 3,600.00 EUR an hour" in command("jobs", future.job)


def test_attempts_of_a_job_add_up_without_the_pause_between(priced: Priced, tmp_path: Path) -> None:
    file = tmp_path / "noted"
    future = remote(work.die_at_first).options(max_retry_attempts=2).submit(str(file))
    assert future.result(SECONDS) == 2
    told = json.loads(command("jobs", future.job, "--json"))
    assert len(told["attempts"]) == 2
    assert_is(future.cost, held(told))
    first, second = told["attempts"]
    assert second["started_at"] > first["ended_at"]
    assert told["job"]["cost"]["held_seconds"] < second["ended_at"] - first["started_at"]


def test_a_call_costs_while_it_runs_and_others_see_the_same(priced: Priced, tmp_path: Path) -> None:
    future = remote(work.hold).submit(str(tmp_path / "noted"), 1.5)
    first = until(lambda: future.cost is not None and future.cost.amount and future.cost)
    (row,) = [row for row in priced.rows("hold-") if row["name"] == future.job]
    assert (row["state"], row["instance_type"]) == ("running", priced.name)
    assert row["cost"]["currency"] == "EUR"
    second = future.cost
    assert second is not None
    assert first.amount < row["cost"]["amount"] < second.amount
    assert future.result(SECONDS) == "held"
    ended = until(
        lambda: [row for row in priced.rows("hold-") if row["name"] == future.job and row["ended_at"]]
    )[0]
    assert future.cost == Cost(ended["cost"]["amount"], "EUR")
    assert ended["cost"]["amount"] == pytest.approx(ended["ended_at"] - ended["started_at"])


def test_a_call_whose_worker_dies_costs_what_it_was_held_until_then(priced: Priced) -> None:
    @remote
    def dies() -> None:
        time.sleep(0.4)
        os._exit(3)

    future = dies.submit()
    assert isinstance(future.exception(SECONDS), WorkerDied)
    told = json.loads(command("jobs", future.job, "--json"))
    assert told["job"]["instance_type"] == priced.name
    assert_is(future.cost, held(told), least=0.4)


def test_a_call_whose_client_is_killed_goes_on_with_its_bill(priced: Priced, tmp_path: Path) -> None:
    code = "import sys; import jobs_work as work; from remote_exec import remote; remote(work.hold)(sys.argv[1], 1.5)"
    environ = {
        **os.environ,
        "PYTHONPATH": os.path.dirname(work.__file__),
        "REMOTE_EXEC_CONNECTION_TIMEOUT": "1",
    }
    noted = tmp_path / "noted"
    with subprocess.Popen([sys.executable, "-c", code, str(noted)], env=environ) as process:
        until(lambda: noted.exists() and noted.read_text())
        process.kill()
    (row,) = until(lambda: priced.rows("hold-"))
    assert get_future(row["name"]).result(SECONDS) == "held"
    told = json.loads(command("jobs", row["name"], "--json"))
    assert_is(get_future(row["name"]).cost, held(told))
    assert held(told) >= 1.5


def test_the_calls_of_a_map_are_summed_up(priced: Priced) -> None:
    @remote
    def mapped(item: int) -> int:
        time.sleep(0.03)
        return item

    before = time.monotonic()
    assert list(mapped.map(range(20))) == list(range(20))
    most = (time.monotonic() - before) * 20
    alone = mapped.submit(1)
    assert alone.result(SECONDS) == 1
    found = until(
        lambda: (told := priced.rows("mapped-")) and sum(row["count"] for row in told) == 21 and told
    )
    assert 21 * 0.03 <= sum(row["cost"]["amount"] for row in found) < most
    assert alone.cost is not None
    assert alone.cost.amount >= 0.03


def test_the_ranks_of_a_group_share_the_price_of_their_machine(priced: Priced, tmp_path: Path) -> None:
    @remote(nproc_per_node=2, return_all_ranks=True)
    def ranked() -> int:
        time.sleep(0.5)
        return 1

    future = ranked.submit()
    assert future.result(SECONDS) == [1, 1]
    found = priced.ended("ranked.rank", 2)
    assert [row["cost"]["per_hour"] for row in found] == [EACH_SECOND / 2, EACH_SECOND / 2]
    assert_is(future.cost, sum(row["cost"]["amount"] for row in found), least=0.5)


@pytest.mark.here("elsewhere each node has a host of its own")
@pytest.mark.parametrize("durable", [False, True])
def test_each_machine_of_a_group_has_its_price(priced: Priced, durable: bool) -> None:
    @remote(instance_count=3, nproc_per_node=2)
    def spread() -> None:
        time.sleep(0.2)

    future = spread.options(detach=True).submit() if durable else spread.submit()
    future.result(SECONDS)
    prefix = future.job if durable else "spread.rank"
    found = priced.ended(prefix, 1 if durable else 6)
    assert sum(row["cost"]["per_hour"] for row in found) == pytest.approx(3 * EACH_SECOND)
    assert_is(future.cost, sum(row["cost"]["amount"] for row in found), least=3 * 0.2)


@pytest.mark.here("an agent of its own ends")
def test_without_an_agent_and_by_the_next_the_same_is_told(
    priced: Priced, own_host: Callable[..., Any], tmp_path: Path
) -> None:
    ask = own_host()
    future = remote(work.hold).options(name="kept", detach=True).submit(str(tmp_path / "noted"), 0.2)
    future.result(SECONDS)
    cost = future.cost
    assert cost is not None
    session = connections.session()
    ask("stop")
    until(lambda: session.lost)
    assert json.loads(command("jobs", "kept", "--json"))["job"]["cost"]["amount"] == cost.amount
    assert get_future("kept").cost == cost


def test_without_a_price_nothing_is_told(priced: Priced, tmp_path: Path) -> None:
    priced.set(None)
    future = remote(work.hold).submit(str(tmp_path / "noted"), 0.3)
    assert future.result(SECONDS) == "held"
    job = remote(work.hold).options(name=f"free-{os.urandom(4).hex()}").submit(str(tmp_path / "noted"), 0.1)
    assert job.result(SECONDS) == "held"
    assert (future.cost, job.cost) == (None, None)
    assert "COST" not in command("jobs", "--prefix", job.job)
    assert "cost" not in command("jobs", job.job)
    (row,) = priced.rows(job.job)
    assert row["cost"] is None
