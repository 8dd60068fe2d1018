"""Pools as lists of instructions: no process is started, and the clock is what the events say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remote_exec.agent.deadlines import Deadlines
from remote_exec.agent.devices import Gpu
from remote_exec.agent.findings import Finding
from remote_exec.agent.pool_events import (
    EVERY_CALL,
    NO_QUOTAS,
    AttachWorker,
    ClientLeft,
    EnvironmentFailed,
    EnvironmentReady,
    Event,
    ForkServerLost,
    ForkServerStarted,
    ForkWorker,
    GpusTaken,
    ImportStarted,
    Instruction,
    KillForkServer,
    KillWorker,
    LeaseRequested,
    LeaseReturned,
    LeaseWithdrawn,
    MemoryRanLow,
    ModulesPreloaded,
    NoteFinding,
    PreloadModules,
    PrepareEnvironment,
    Quotas,
    QuotasSet,
    RecallLease,
    RefuseLease,
    ReleaseAsked,
    Resources,
    StartForkServer,
    StopForkServer,
    StopWorker,
    TellLost,
    TellWaits,
    TimePassed,
    WorkerBecameReady,
    WorkerDeparted,
    WorkerForked,
)
from remote_exec.agent.pools import (
    FORK_SERVER_KEEP_SECONDS,
    FORK_SERVER_STOP_SECONDS,
    IMPORT_GRACE_SECONDS,
    IMPORT_TOLD_SECONDS,
    Pools,
)
from remote_exec.model.environment import EnvironmentKind, EnvironmentSpec
from remote_exec.model.job import Cause, DeathCertificate
from remote_exec.model.pool import Asked, PoolSpec, Shape, WorkerState

DEADLINES = Deadlines()
ENVIRONMENT = EnvironmentSpec(kind=EnvironmentKind.UV, python="3.11", requirements=("numpy",))
DIED = DeathCertificate(cause=Cause.SIGNAL, message="killed by SIGSEGV", last_lines=("last", "words"))


def spec(name: str = "", **shape: Any) -> PoolSpec:
    return PoolSpec(environment=ENVIRONMENT, variables={"NAME": name}, shape=Shape(**shape))


def gpus_of(*names: str) -> tuple[Gpu, ...]:
    return tuple(
        Gpu(index=index, uuid=f"GPU-{index}", name=name, memory_total_bytes=0)
        for index, name in enumerate(names)
    )


class Story:
    """A state machine and its clock, and short words for events."""

    def __init__(self, cpus: float = 8, memory_bytes: int = 1 << 30, gpus: tuple[str, ...] = ()) -> None:
        self.pools = Pools(Resources(cpus, memory_bytes, gpus_of(*gpus)), DEADLINES)
        self.now = 100.0

    def happen(self, event: Callable[..., Event], *args: Any, **kwargs: Any) -> list[Instruction]:
        self.now += 1
        return self.pools.handle(event(self.now, *args, **kwargs))

    def request(self, lease: str, of: PoolSpec, **more: Any) -> list[Instruction]:
        asked = {
            "client": 1,
            "bundle": "",
            "preload": (),
            "keep_alive_seconds": 300.0,
            "max_workers": 1,
            **more,
        }
        return self.happen(LeaseRequested, lease, spec=of, **asked)

    def ready_pool(self, of: PoolSpec) -> None:
        self.happen(EnvironmentReady, of.key, "/python")
        self.happen(ForkServerStarted, of.key)

    def granted(self, lease: str, of: PoolSpec, **more: Any) -> int:
        """Ask for a lease and see it through; return its worker."""
        told = self.request(lease, of, **more)
        if PrepareEnvironment(of.key, of) in told:
            told += self.happen(EnvironmentReady, of.key, "/python")
            told += self.happen(ForkServerStarted, of.key)
        for one in [one for one in told if isinstance(one, ForkWorker)]:
            told += self.happen(WorkerBecameReady, of.key, one.worker)
        attached = only(AttachWorker, told)
        assert attached.lease == lease
        return attached.worker

    def give_back(self, worker: int, lease: str, of: PoolSpec) -> list[Instruction]:
        return self.happen(LeaseReturned, of.key, worker, lease)


def only(kind: type[Any], told: list[Instruction]) -> Any:
    (found,) = [one for one in told if isinstance(one, kind)]
    return found


def words(told: list[Instruction]) -> list[tuple[str, str, str]]:
    return [(one.lease, one.phase, one.why) for one in told if isinstance(one, TellWaits)]


def without_words(told: list[Instruction]) -> list[Instruction]:
    return [one for one in told if not isinstance(one, TellWaits)]


# --- one lease --------------------------------------------------------------------------------------------------


def test_a_cold_request_goes_through_every_phase() -> None:
    story, asked = Story(), spec()
    key = asked.key
    assert story.request("a", asked, preload=("numpy", "pandas"), bundle="sha256:1") == [
        PrepareEnvironment(key, asked),
        TellWaits("a", "environment", "its environment is being prepared"),
    ]
    assert story.happen(EnvironmentReady, key, "/python") == [
        StartForkServer(key, asked, "/python"),
        TellWaits("a", "start", "its environment's Python is starting"),
    ]
    assert story.happen(ForkServerStarted, key) == [
        PreloadModules(key, ("numpy", "pandas"), DEADLINES.import_seconds),
        TellWaits("a", "imports", "its imports are being loaded"),
    ]
    assert story.happen(ModulesPreloaded, key, {"pandas": "ModuleNotFoundError"}) == [
        ForkWorker(key, 1, (), fresh=False),
        TellWaits("a", "start", "a worker is starting"),
    ]
    assert story.happen(WorkerForked, key, 1, 4711) == []
    (attach,) = story.happen(WorkerBecameReady, key, 1)
    assert isinstance(attach, AttachWorker)
    assert (attach.worker, attach.lease, attach.bundle, attach.warm) == (1, "a", "sha256:1", False)
    assert {phase.name: phase.seconds for phase in attach.phases} == {
        "environment": 1.0,
        "start": pytest.approx(3.0),  # the fork server, the fork, the worker's first word
        "imports": 1.0,
    }
    (info,) = story.pools.infos(story.now)
    assert (info.key, info.python, info.queued, info.workers[0].pid) == (key, "/python", 0, 4711)
    assert info.workers[0].state is WorkerState.IN_USE


def test_a_warm_request_is_granted_at_once() -> None:
    story, asked = Story(), spec()
    worker = story.granted("a", asked)
    assert story.give_back(worker, "a", asked) == []
    (attach,) = story.request("b", asked)
    assert isinstance(attach, AttachWorker)
    assert (attach.worker, attach.lease, attach.warm) == (worker, "b", True)
    (info,) = story.pools.infos(story.now)
    assert info.workers[0].reuses == 1


def test_the_pools_key_is_environment_variables_and_shape() -> None:
    story = Story()
    story.granted("a", spec("x"))
    for other in (spec("y"), spec("x", cpus=1.0), replace(spec("x"), private="setup.sh")):
        assert PrepareEnvironment(other.key, other) in story.request(f"b{other.key}", other)


def test_local_code_is_never_mixed() -> None:
    story, asked = Story(), spec()
    one = story.granted("a", asked, bundle="one", max_workers=3)
    story.give_back(one, "a", asked)
    two = story.granted("b", asked, bundle="two", max_workers=3)
    none = story.granted("c", asked, max_workers=3)
    assert len({one, two, none}) == 3
    for worker, lease in ((none, "c"), (two, "b")):
        story.give_back(worker, lease, asked)
    assert story.granted("d", asked, bundle="two") == two
    assert story.granted("e", asked, bundle="one") == one
    assert story.granted("f", asked, bundle="three") == none, "it has none loaded yet"


def test_a_full_pool_gives_up_a_worker_with_stale_code() -> None:
    story, asked = Story(), spec()
    worker = story.granted("a", asked, bundle="old")
    story.give_back(worker, "a", asked)
    assert without_words(story.request("b", asked, bundle="new")) == [StopWorker(asked.key, worker)]
    assert without_words(story.request("c", asked, bundle="new")) == [], "one at a time"
    fork = only(ForkWorker, story.happen(WorkerDeparted, asked.key, worker, DIED))
    assert only(AttachWorker, story.happen(WorkerBecameReady, asked.key, fork.worker)).lease == "b"


def test_all_stale_workers_that_are_needed_are_given_up_longest_idle_first() -> None:
    story, asked = Story(), spec()
    workers = [story.granted(f"a{index}", asked, bundle="old", max_workers=3) for index in range(3)]
    for index in (1, 0, 2):
        story.give_back(workers[index], f"a{index}", asked)
    first = without_words(story.request("b", asked, bundle="new"))
    second = without_words(story.request("c", asked, bundle="new"))
    assert [*first, *second] == [StopWorker(asked.key, workers[1]), StopWorker(asked.key, workers[0])]


def test_a_lease_that_is_returned_twice_or_by_another_is_passed_over() -> None:
    story, asked = Story(), spec()
    worker = story.granted("a", asked)
    assert story.give_back(worker, "b", asked) == []
    story.request("b", asked)
    assert only(AttachWorker, story.give_back(worker, "a", asked)).lease == "b"
    assert story.give_back(worker, "a", asked) == []


# --- the queue ------------------------------------------------------------------------------------------------


def test_no_more_workers_than_the_maximum_and_the_queue_says_why() -> None:
    story, asked = Story(), spec()
    story.granted("a", asked, max_workers=2)
    story.granted("b", asked, max_workers=2)
    told = story.request("c", asked, max_workers=2) + story.request("d", asked, max_workers=2)
    assert not [one for one in told if isinstance(one, ForkWorker)]
    full = "all 2 workers of its pool are in use"
    assert words(told) == [("c", "queue", f"{full}; position 1"), ("d", "queue", f"{full}; position 2")]
    told = story.give_back(1, "a", asked)
    assert only(AttachWorker, told).lease == "c"
    assert words(told) == [("d", "queue", f"{full}; position 1")]


def test_those_who_wait_for_a_starting_worker_are_told_so_even_when_the_pool_is_full() -> None:
    story, asked = Story(), spec()
    story.request("a", asked)
    story.ready_pool(asked)
    told = story.request("b", asked)
    assert words(told) == [("b", "queue", "all 1 workers of its pool are in use; position 2")]


def test_the_far_end_of_a_long_queue_is_not_told_of_every_grant() -> None:
    story, asked = Story(), spec()
    story.granted("a", asked)
    told = [one for index in range(400) for one in words(story.request(f"w{index}", asked))]
    assert told[0][2].endswith("position 1")
    assert told[-1][2].endswith("position over 300")
    assert len(words(story.give_back(1, "a", asked))) < 50


def test_a_client_that_leaves_waits_no_longer() -> None:
    story, asked = Story(), spec()
    worker = story.granted("a", asked, client=1)
    story.request("b", asked, client=2)
    story.request("c", asked, client=3)
    story.request("d", asked, client=3)
    told = story.happen(ClientLeft, 2)
    assert [lease for lease, _, _ in words(told)] == ["c", "d"]
    assert words(story.happen(LeaseWithdrawn, "c"))[0][0] == "d"
    assert story.happen(LeaseWithdrawn, "nobody") == []
    assert only(AttachWorker, story.give_back(worker, "a", asked)).lease == "d"


def test_a_worker_whose_client_left_while_it_started_is_there_for_the_next() -> None:
    story, asked = Story(), spec()
    story.request("a", asked, client=1)
    story.ready_pool(asked)
    story.happen(ClientLeft, 1)
    assert story.happen(WorkerBecameReady, asked.key, 1) == []
    assert only(AttachWorker, story.request("b", asked)).worker == 1


# --- time -------------------------------------------------------------------------------------------------------


def test_a_worker_lives_for_its_keep_alive_and_its_fork_server_a_while_longer() -> None:
    story, asked = Story(), spec()
    worker = story.granted("a", asked, keep_alive_seconds=50.0)
    assert story.pools.next_due() is None
    story.give_back(worker, "a", asked)
    assert story.pools.next_due() == story.now + 50
    assert story.pools.handle(TimePassed(story.now + 49)) == []
    story.now += 49
    assert story.happen(TimePassed) == [StopWorker(asked.key, worker)]
    assert story.happen(TimePassed) == []
    story.happen(WorkerDeparted, asked.key, worker, DIED)
    assert story.pools.next_due() == story.now + FORK_SERVER_KEEP_SECONDS
    story.now += FORK_SERVER_KEEP_SECONDS
    assert story.happen(TimePassed) == [StopForkServer(asked.key)]
    assert story.happen(ForkServerLost, asked.key, "exit status 0") == []
    assert story.pools.infos(story.now) == ()
    assert story.pools.next_due() is None


def stopping(story: Story, asked: PoolSpec) -> None:
    worker = story.granted("a", asked, keep_alive_seconds=0.0)
    assert StopWorker(asked.key, worker) in story.give_back(worker, "a", asked)
    story.happen(WorkerDeparted, asked.key, worker, DIED)
    story.now += FORK_SERVER_KEEP_SECONDS
    assert story.happen(TimePassed) == [StopForkServer(asked.key)]


def test_who_asks_while_the_fork_server_ends_waits_for_its_end_and_gets_a_new_one() -> None:
    """Two fork servers of one pool would share a socket path, and the first one's end would be taken for both's."""
    story, asked = Story(), spec()
    stopping(story, asked)
    assert story.request("b", asked) == [TellWaits("b", "start", "its environment's former Python is ending")]
    assert PrepareEnvironment(asked.key, asked) in story.happen(ForkServerLost, asked.key, "end of stream")
    story.ready_pool(asked)
    assert only(AttachWorker, story.happen(WorkerBecameReady, asked.key, 2)).lease == "b"


def test_a_fork_server_that_does_not_end_is_forgotten() -> None:
    story, asked = Story(), spec()
    stopping(story, asked)
    story.request("b", asked)
    assert story.pools.next_due() is not None
    story.now += FORK_SERVER_STOP_SECONDS
    assert PrepareEnvironment(asked.key, asked) in story.happen(TimePassed)


def test_a_worker_that_does_not_speak_is_killed_once() -> None:
    story, asked = Story(), spec()
    story.request("a", asked)
    story.ready_pool(asked)
    assert story.pools.next_due() == story.now + DEADLINES.ready_seconds
    story.happen(WorkerForked, asked.key, 1, 4711)
    story.now += DEADLINES.ready_seconds
    finding, kill = story.happen(TimePassed)
    assert isinstance(finding, NoteFinding)
    assert finding.lasting
    assert kill == KillWorker(asked.key, 1)
    assert story.happen(TimePassed) == []
    assert story.pools.next_due() is None
    assert story.happen(WorkerBecameReady, asked.key, 1) == [], "too late"
    assert only(ForkWorker, story.happen(WorkerDeparted, asked.key, 1, DIED)).fresh
    other = spec("another pool of the same environment")
    story.request("b", other)
    story.ready_pool(other)
    (info,) = [info for info in story.pools.infos(story.now) if info.key == other.key]
    assert "not ready within" in info.note, "it is known already"


def test_a_fork_server_that_hangs_in_a_fork_is_ended_and_the_next_forks_no_more() -> None:
    story, asked = Story(), spec()
    story.request("a", asked)
    story.ready_pool(asked)
    story.now += DEADLINES.ready_seconds
    assert only(KillForkServer, story.happen(TimePassed)).pool == asked.key
    assert PrepareEnvironment(asked.key, asked) in story.happen(ForkServerLost, asked.key, "killed")
    story.happen(EnvironmentReady, asked.key, "/python")
    fork = only(ForkWorker, story.happen(ForkServerStarted, asked.key))
    assert fork.fresh
    story.now += DEADLINES.start_seconds
    refused, _ = story.happen(TimePassed)
    assert isinstance(refused, RefuseLease)
    assert "starts no workers" in refused.text
    assert story.happen(ForkServerLost, asked.key, "killed") == []
    assert story.pools.infos(story.now) == ()


def test_a_fork_server_that_does_not_speak_is_ended_and_those_who_wait_are_refused() -> None:
    story, asked = Story(), spec()
    story.request("a", asked)
    story.happen(EnvironmentReady, asked.key, "/python")
    assert story.pools.next_due() == story.now + DEADLINES.start_seconds
    story.now += DEADLINES.start_seconds
    refused, killed = story.happen(TimePassed)
    assert isinstance(refused, RefuseLease)
    assert "has not started within 60 s" in refused.text
    assert isinstance(killed, KillForkServer)
    assert story.happen(ForkServerStarted, asked.key) == [], "too late"
    assert story.happen(ForkServerLost, asked.key, "killed") == []


# --- imports ----------------------------------------------------------------------------------------------------


def importing(story: Story, asked: PoolSpec, *modules: str) -> None:
    story.request("a", asked, preload=modules)
    story.ready_pool(asked)
    story.happen(ImportStarted, asked.key, modules[0])


def test_an_import_that_lasts_is_named_to_those_who_wait() -> None:
    story, asked = Story(), spec()
    importing(story, asked, "torch", "quick")
    assert story.pools.next_due() == story.now + IMPORT_TOLD_SECONDS
    assert story.happen(TimePassed) == [TellWaits("a", "imports", "torch is being imported")]
    told = story.happen(ImportStarted, asked.key, "quick")
    assert told == [TellWaits("a", "imports", "its imports are being loaded")]
    assert only(ForkWorker, story.happen(ModulesPreloaded, asked.key, {})).pool == asked.key


def test_an_import_that_was_given_up_is_left_out_by_the_next_fork_server() -> None:
    story, asked = Story(), spec()
    importing(story, asked, "hangs", "numpy")
    told = story.happen(ModulesPreloaded, asked.key, {"hangs": "given up"}, ("hangs",))
    finding = only(NoteFinding, told).finding
    assert (finding.modules, finding.forks) == (("hangs",), True)
    assert not only(ForkWorker, told).fresh
    for again in (story, Story()):
        again.pools = (
            Pools(Resources(8, 1 << 30), DEADLINES, [finding]) if again is not story else story.pools
        )
        other = spec("other")
        again.request("b", other, preload=("hangs", "numpy"))
        again.happen(EnvironmentReady, other.key, "/python")
        assert only(PreloadModules, again.happen(ForkServerStarted, other.key)).modules == ("numpy",)


def test_a_fork_server_that_hangs_in_an_import_is_replaced_by_one_that_leaves_it_out() -> None:
    story, asked = Story(), spec()
    importing(story, asked, "hangs", "numpy")
    story.now += DEADLINES.import_seconds + IMPORT_GRACE_SECONDS
    finding, killed = story.happen(TimePassed)
    assert isinstance(finding, NoteFinding)
    assert killed == KillForkServer(asked.key, "the import of hangs hangs")
    assert PrepareEnvironment(asked.key, asked) in story.happen(ForkServerLost, asked.key, "killed")
    story.happen(EnvironmentReady, asked.key, "/python")
    assert only(PreloadModules, story.happen(ForkServerStarted, asked.key)).modules == ("numpy",)
    assert not only(ForkWorker, story.happen(ModulesPreloaded, asked.key, {})).fresh


def test_calls_that_run_are_not_ended_because_an_import_hangs() -> None:
    story, asked = Story(), spec()
    worker = story.granted("a", asked, max_workers=2)
    story.request("b", asked, preload=("hangs",))
    story.happen(ImportStarted, asked.key, "hangs")
    story.now += DEADLINES.import_seconds + IMPORT_GRACE_SECONDS
    (refused,) = story.happen(TimePassed)
    assert isinstance(refused, RefuseLease)
    assert refused.text == "the import of hangs hangs in the fork server of this environment"
    assert story.pools.next_due() is None, "there is nothing to do as long as the call runs"
    story.give_back(worker, "a", asked)
    assert KillForkServer(asked.key, "the import of hangs hangs") in story.happen(TimePassed)


def test_a_crash_in_an_import_costs_that_module_only() -> None:
    story, asked = Story(), spec()
    importing(story, asked, "crashes", "numpy")
    told = story.happen(ForkServerLost, asked.key, "killed by SIGSEGV")
    assert not only(NoteFinding, told).lasting, "somebody may have killed it"
    story.happen(EnvironmentReady, asked.key, "/python")
    assert only(PreloadModules, story.happen(ForkServerStarted, asked.key)).modules == ("numpy",)


def test_imports_that_start_threads_make_their_pools_start_fresh_interpreters() -> None:
    story, asked = Story(), spec()
    importing(story, asked, "threads")
    told = story.happen(ModulesPreloaded, asked.key, {}, (), ("'monitor' of threads",))
    finding = only(NoteFinding, told)
    assert finding.lasting
    assert only(ForkWorker, told).fresh
    later = Story()
    later.pools = Pools(Resources(8, 1 << 30), DEADLINES, [finding.finding])
    for name, modules, fresh in (("same", ("json", "threads"), True), ("other", (), False)):
        of = spec(name)
        later.request(name, of, preload=modules)
        later.happen(EnvironmentReady, of.key, "/python")
        assert only(ForkWorker, later.happen(ForkServerStarted, of.key)).fresh is fresh, name


# --- failures -------------------------------------------------------------------------------------------------


def test_an_environment_that_fails_refuses_all_who_wait() -> None:
    story, asked = Story(), spec()
    story.request("a", asked)
    story.request("b", asked)
    told = story.happen(
        EnvironmentFailed, asked.key, "RuntimeEnvironmentError", "no such package", "output", "hint"
    )
    assert told == [
        RefuseLease(lease, "RuntimeEnvironmentError", "no such package", "output", "hint") for lease in "ab"
    ]
    assert PrepareEnvironment(asked.key, asked) in story.request("c", asked), "the next one may try again"


def test_a_fork_server_that_does_not_start_refuses_all_who_wait() -> None:
    story, asked = Story(), spec()
    story.request("a", asked)
    story.happen(EnvironmentReady, asked.key, "/python")
    refused = only(RefuseLease, story.happen(ForkServerLost, asked.key, "no such file"))
    assert "could not start a fork server: no such file" in refused.text


def test_a_lost_fork_server_is_replaced_for_those_who_wait() -> None:
    story, asked = Story(), spec()
    worker = story.granted("a", asked)
    story.request("b", asked)
    told = story.happen(ForkServerLost, asked.key, "exit status 9")
    lost = only(TellLost, told)
    assert (lost.lease, lost.begun, lost.certificate.cause) == ("a", EVERY_CALL, Cause.HOST_LOST)
    assert PrepareEnvironment(asked.key, asked) in told
    assert story.give_back(worker, "a", asked) == [], "of the fork server that is gone"
    assert story.happen(WorkerDeparted, asked.key, worker, DIED) == []
    story.ready_pool(asked)
    assert only(AttachWorker, story.happen(WorkerBecameReady, asked.key, worker + 1)).lease == "b"


def test_a_fork_server_that_dies_of_an_import_is_replaced_by_one_without_and_that_ends_too() -> None:
    story, asked = Story(), spec()
    story.request("a", asked, preload=("crashes",))
    story.ready_pool(asked)
    story.happen(ForkServerLost, asked.key, "killed by SIGSEGV")
    story.happen(EnvironmentReady, asked.key, "/python")
    fork = only(ForkWorker, story.happen(ForkServerStarted, asked.key))
    assert fork.fresh
    (info,) = story.pools.infos(story.now)
    assert "died importing" in info.note
    refused = only(RefuseLease, story.happen(ForkServerLost, asked.key, "again"))
    assert "die before a worker is ready" in refused.text
    assert story.pools.infos(story.now) == ()


def test_a_worker_that_dies_before_it_is_ready_makes_its_pool_start_fresh_ones_and_then_refuse() -> None:
    story, asked = Story(), spec()
    story.request("a", asked)
    story.ready_pool(asked)
    fork = only(ForkWorker, story.happen(WorkerDeparted, asked.key, 1, DIED))
    assert fork == ForkWorker(asked.key, 2, (), fresh=True)
    (info,) = story.pools.infos(story.now)
    assert "started afresh" in info.note
    assert "SIGSEGV" in info.note
    refused = only(RefuseLease, story.happen(WorkerDeparted, asked.key, 2, DIED))
    assert (refused.error, refused.output) == ("RuntimeEnvironmentError", "last\nwords")


def test_several_forked_workers_that_die_at_once_are_one_failure() -> None:
    story, asked = Story(), spec()
    for lease in "abc":
        story.request(lease, asked, max_workers=3)
    story.ready_pool(asked)
    told = [one for worker in (1, 2, 3) for one in story.happen(WorkerDeparted, asked.key, worker, DIED)]
    assert not [one for one in told if isinstance(one, RefuseLease)]
    assert [one.fresh for one in told if isinstance(one, ForkWorker)] == [True] * 3


def test_a_worker_that_dies_at_work_is_told_to_its_lease_and_replaced() -> None:
    story, asked = Story(), spec()
    worker = story.granted("a", asked)
    story.request("b", asked)
    told = story.happen(WorkerDeparted, asked.key, worker, DIED, begun=5, item=2)
    assert told[0] == TellLost("a", DIED, 5, 2)
    assert only(ForkWorker, told) == ForkWorker(asked.key, worker + 1, (), fresh=False)
    assert story.happen(WorkerDeparted, asked.key, worker, DIED) == []


def test_events_about_what_is_gone_are_passed_over() -> None:
    story = Story()
    for event in (
        EnvironmentReady(1.0, "gone", "/python"),
        EnvironmentFailed(1.0, "gone", "E", "text"),
        ForkServerStarted(1.0, "gone"),
        ForkServerLost(1.0, "gone", "reason"),
        ModulesPreloaded(1.0, "gone", {}),
        WorkerForked(1.0, "gone", 1, 2),
        WorkerBecameReady(1.0, "gone", 1),
        LeaseReturned(1.0, "gone", 1, "a"),
        WorkerDeparted(1.0, "gone", 1, DIED),
        MemoryRanLow(1.0),
        ReleaseAsked(1.0, "gone"),
        TimePassed(1.0),
    ):
        assert story.pools.handle(event) == []


# --- resources --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ({"cpus": 9}, "cpus=9 was asked for; this host has 8"),
        ({"memory_bytes": 2 << 30}, "memory=2,147,483,648 bytes was asked for; this host has 1,073,741,824"),
        ({"gpus": 3}, "gpus=3 was asked for; this host has 2"),
        ({"gpus": 0.5, "gpu_type": "h100"}, "gpus=0.5 of type 'h100' was asked for; this host has 0"),
        ({"gpus": 2, "gpu_type": "t4"}, "gpus=2 of type 't4' was asked for; this host has 1"),
    ],
)
def test_what_the_host_can_never_give_is_refused_at_once(shape: dict[str, Any], text: str) -> None:
    story = Story(gpus=("NVIDIA A100", "Tesla T4"))
    (refused,) = story.request("a", spec(**shape))
    assert isinstance(refused, RefuseLease)
    assert (refused.error, refused.text) == ("ResourceLimitExceeded", text)
    assert "instance_type" in refused.hint
    assert story.pools.infos(story.now) == ()


def test_gpus_are_given_out_once_by_type_and_come_back() -> None:
    story = Story(gpus=("Tesla T4", "NVIDIA A100", "NVIDIA A100"))
    asked = spec(gpus=1, gpu_type="a100")
    forks: list[ForkWorker] = []
    for lease in "abc":
        forks += [one for one in story.request(lease, asked, max_workers=9) if isinstance(one, ForkWorker)]
    story.happen(EnvironmentReady, asked.key, "/python")
    forks += [one for one in story.happen(ForkServerStarted, asked.key) if isinstance(one, ForkWorker)]
    assert [fork.gpus for fork in forks] == [("GPU-1",), ("GPU-2",)]
    fork = only(ForkWorker, story.happen(WorkerDeparted, asked.key, forks[0].worker, DIED))
    assert fork.gpus == ("GPU-1",)


def test_shares_fill_one_gpu_before_the_next_so_that_whole_ones_are_left() -> None:
    story, half, third, whole = Story(gpus=("A100", "A100")), spec(gpus=0.5), spec(gpus=1 / 3), spec(gpus=1)
    workers = [story.granted(str(asked.shape.gpus), asked, max_workers=9) for asked in (half, third, whole)]
    held = [one.gpus for pool in story.pools.pools.values() for one in pool.workers.values()]
    assert held == [("GPU-0",), ("GPU-0",), ("GPU-1",)]
    told = story.request("b", half, max_workers=9)
    assert words(told) == [("b", "queue", "the host's gpus are in use; position 1")]
    fork = only(ForkWorker, story.happen(WorkerDeparted, third.key, workers[1], DIED))
    assert (fork.pool, fork.gpus) == (half.key, ("GPU-0",))
    (refused,) = story.request("c", spec(gpus=0.7), group="g", group_size=3)
    assert isinstance(refused, RefuseLease)
    assert refused.text == "gpus=0.7 for each of 3 workers was asked for; this host has 2"


def test_quotas_count_shares_of_gpus() -> None:
    story, half = Story(gpus=("A100", "A100")), spec(gpus=0.5)
    story.happen(QuotasSet, Quotas(gpus=1.0))
    for lease in "ab":
        story.granted(lease, half, max_workers=9)
    told = story.request("c", half, max_workers=9)
    assert words(told) == [("c", "queue", "the host's gpus are in use; position 1")]
    assert only(ForkWorker, story.happen(QuotasSet, NO_QUOTAS)).gpus == ("GPU-1",)


def test_who_may_see_some_gpus_only_gets_one_of_them() -> None:
    story = Story(gpus=("A100", "A100", "A100"))
    limited = replace(spec(gpus=1), variables={"CUDA_VISIBLE_DEVICES": "2,0"})
    story.request("a", limited)
    story.happen(EnvironmentReady, limited.key, "/python")
    assert only(ForkWorker, story.happen(ForkServerStarted, limited.key)).gpus == ("GPU-2",)
    refused = only(RefuseLease, story.request("b", replace(limited, shape=Shape(gpus=3))))
    assert refused.text.endswith("this host has 2 of those that CUDA_VISIBLE_DEVICES names")


def test_gpus_that_others_hold_are_tried_again_after_a_while_and_others_at_once() -> None:
    story, asked, why = Story(gpus=("A100", "A100")), spec(gpus=1), "GPUs are taken by user eve (process 7)"
    story.request("a", asked)
    story.ready_pool(asked)
    told = story.happen(GpusTaken, asked.key, 1, ("GPU-0",), why)
    assert told[0] == ForkWorker(asked.key, 2, ("GPU-1",), fresh=False), "the other one may do"
    assert words(told) == [("a", "queue", f"{why}; position 1")]
    assert without_words(story.happen(GpusTaken, asked.key, 2, ("GPU-1",), why)) == []
    due = story.pools.next_due()
    assert due is not None
    story.now = due - 1
    (again,) = story.happen(TimePassed)
    assert again == ForkWorker(asked.key, 3, ("GPU-0",), fresh=False), "not told of again before it has it"
    assert words(story.happen(WorkerForked, asked.key, 3, 4711)) == [("a", "start", "a worker is starting")]
    assert only(AttachWorker, story.happen(WorkerBecameReady, asked.key, 3)).lease == "a"


def test_cpus_and_memory_are_counted_over_all_pools() -> None:
    story, half, tenth = Story(cpus=1), spec("half", cpus=0.5), spec("tenth", cpus=0.1)
    story.granted("a", half)
    workers = [story.granted(f"t{index}", tenth, max_workers=99) for index in range(5)]
    told = story.request("t5", tenth, max_workers=99)
    assert words(told) == [("t5", "queue", "the host's cpus are in use; position 1")]
    story.happen(WorkerDeparted, half.key, 1, DIED)
    assert len(workers) == 5
    assert sum(len(info.workers) for info in story.pools.infos(story.now)) == 6


def test_idle_workers_of_other_pools_make_room_longest_idle_first_and_no_more_than_needed() -> None:
    story, small, big = Story(cpus=4), spec("small", cpus=1), spec("big", cpus=2)
    workers = [story.granted(f"a{index}", small, max_workers=4) for index in range(4)]
    for index in (2, 0, 3):
        story.give_back(workers[index], f"a{index}", small)
    story.request("b", big)
    story.happen(EnvironmentReady, big.key, "/python")
    told = without_words(story.happen(ForkServerStarted, big.key))
    assert told == [StopWorker(small.key, workers[2]), StopWorker(small.key, workers[0])]
    assert without_words(story.happen(MemoryRanLow)) == [StopWorker(small.key, workers[3])]
    assert without_words(story.happen(WorkerDeparted, small.key, workers[2], DIED)) == []
    assert only(ForkWorker, story.happen(WorkerDeparted, small.key, workers[0], DIED)).pool == big.key


def test_what_a_lost_fork_server_held_goes_to_other_pools() -> None:
    story, one, other = Story(cpus=1), spec("one", cpus=1), spec("other", cpus=1)
    story.granted("a", one)
    story.request("b", other)
    story.ready_pool(other)
    assert only(ForkWorker, story.happen(ForkServerLost, one.key, "gone")).pool == other.key


def test_quotas_bound_what_the_host_would_give() -> None:
    story, asked = Story(cpus=8), spec(cpus=2)
    story.granted("a", asked, max_workers=9)
    assert story.happen(QuotasSet, Quotas(cpus=2)) == []
    assert without_words(story.request("b", asked, max_workers=9)) in ([], [RecallLease("a")])
    assert only(ForkWorker, story.happen(QuotasSet, NO_QUOTAS)).pool == asked.key
    story.request("c", asked)
    refused = [one for one in story.happen(QuotasSet, Quotas(cpus=1)) if isinstance(one, RefuseLease)]
    assert [one.lease for one in refused] == ["b", "c"]
    assert refused[0].text == "cpus=2 was asked for; the option quotas allows 1 on this host"


def test_memory_pressure_gives_up_the_longest_idle_worker_of_all() -> None:
    story, one, other = Story(), spec("one"), spec("other")
    first, second = story.granted("a", one), story.granted("b", other)
    assert story.happen(MemoryRanLow) == [], "nobody at work is given up"
    story.give_back(second, "b", other)
    story.give_back(first, "a", one)
    assert story.happen(MemoryRanLow) == [StopWorker(other.key, second)]
    assert story.happen(MemoryRanLow) == [StopWorker(one.key, first)]
    assert story.happen(MemoryRanLow) == []


def test_released_pools_keep_no_idle_worker_and_no_promise() -> None:
    story, one, other = Story(), spec("one"), spec("other")
    first, second = story.granted("a", one), story.granted("b", other)
    story.give_back(first, "a", one)
    story.give_back(second, "b", other)
    assert story.happen(ReleaseAsked, one.key) == [StopWorker(one.key, first)]
    assert story.happen(ReleaseAsked, "") == [StopWorker(other.key, second)]
    assert [info.keep_alive_seconds for info in story.pools.infos(story.now)] == [0.0, 0.0]


def test_a_worker_at_work_goes_when_it_is_done_where_its_pool_was_released() -> None:
    story, one = Story(), spec("one")
    worker = story.granted("a", one)
    assert story.happen(ReleaseAsked, one.key) == []
    assert story.give_back(worker, "a", one) == [StopWorker(one.key, worker)]


def test_who_waits_when_a_pool_is_released_gets_a_worker_that_is_not_kept_either() -> None:
    story, one = Story(), spec("one")
    first = story.granted("a", one)
    story.request("b", one)
    story.happen(ReleaseAsked, one.key)
    story.give_back(first, "a", one)
    assert story.give_back(first, "b", one) == [StopWorker(one.key, first)]


# --- adoption -----------------------------------------------------------------------------------------------------


def adopted(story: Story, of: PoolSpec) -> None:
    bare = replace(of, variables={})
    asked = Asked(by=("fit",))
    story.pools.adopt(of.key, bare, python="/python", keep_alive_seconds=60.0, now=story.now, asked=asked)


def test_an_adopted_pool_is_used_again_and_its_busy_workers_go_on() -> None:
    story, asked = Story(), spec("secret")
    adopted(story, asked)
    by = Asked(by=("evaluate",), instance_type="gpu")
    assert words(story.request("new", asked, max_workers=2, asked=by))[0][1] == "start"
    (told_of,) = story.pools.infos(story.now)
    assert (told_of.asked_by, told_of.instance_type) == (("evaluate", "fit"), "gpu")
    told = story.happen(ForkServerStarted, asked.key, ((7, 70, ()),))
    fork = only(ForkWorker, told)
    assert fork.worker == 8, "numbers are not used again"
    assert story.happen(WorkerBecameReady, asked.key, 7, "old") == []
    assert only(AttachWorker, story.happen(WorkerBecameReady, asked.key, 8)).lease == "new"
    assert story.give_back(7, "old", asked) == [StopWorker(asked.key, 7)], (
        "its code is unknown: of no use to anyone"
    )


def test_an_adopted_worker_may_be_silent_for_as_long_as_its_call_holds_it() -> None:
    story, asked = Story(), spec()
    adopted(story, asked)
    story.happen(ForkServerStarted, asked.key, ((7, 70, ()),))
    assert story.pools.next_due() is None
    story.now += 10 * DEADLINES.ready_seconds
    assert story.happen(TimePassed) == []
    story.happen(WorkerDeparted, asked.key, 7, DIED)
    story.request("a", asked)
    (info,) = story.pools.infos(story.now)
    assert info.note == "", "it tells nothing about forking here"


def test_an_adopted_fork_server_that_is_gone_is_replaced() -> None:
    story, asked = Story(), spec()
    adopted(story, asked)
    story.request("a", asked)
    assert PrepareEnvironment(asked.key, asked) in story.happen(ForkServerLost, asked.key, "end of stream")


def test_gpus_that_adopted_workers_hold_are_not_given_out() -> None:
    story, asked = Story(gpus=("A100", "A100")), spec(gpus=1)
    adopted(story, asked)
    story.happen(ForkServerStarted, asked.key, ((7, 70, ("GPU-0",)),))
    story.happen(WorkerBecameReady, asked.key, 7, "old")
    assert only(ForkWorker, story.request("a", asked, max_workers=3)).gpus == ("GPU-1",)
    assert words(story.request("b", asked))[-1] == ("b", "queue", "the host's gpus are in use; position 2")
    story.give_back(7, "old", asked)
    assert only(ForkWorker, story.happen(WorkerDeparted, asked.key, 7, DIED)).gpus == ("GPU-0",)


# --- anything may happen ------------------------------------------------------------------------------------------

RESOURCES = Resources(4, 1000, gpus_of("A100", "A100", "T4"))
NAMES = {gpu.uuid: gpu.name for gpu in RESOURCES.gpus}
SPECS = [
    spec("plain"),
    spec("cpus", cpus=2.0),
    spec("memory", memory_bytes=600, cpus=0.5),
    spec("gpu", gpus=1),
    spec("gpus", gpus=2, gpu_type="a100"),
    spec("half", gpus=0.5),
    spec("most", gpus=0.7, gpu_type="a100"),
    spec("never", gpus=2, gpu_type="t4"),
]
BUNDLES = ["", "one", "two"]
MOSTLY = st.sampled_from([True, True, True, True, False])  # else few stories get far


class AnythingHappens(RuleBasedStateMachine):
    """A host in miniature carries instructions out, in any order, with any failure; the tests are its own beliefs."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = Pools(RESOURCES, DEADLINES)
        self.now = 0.0
        self.log: list[tuple[Event, list[Instruction]]] = []
        self.specs: dict[str, PoolSpec] = {}
        self.most: dict[str, int] = {}
        self.building: set[str] = set()
        self.starting: set[str] = set()
        self.servers: set[str] = set()
        self.preloading: set[str] = set()
        self.stopping: set[str] = set()
        self.born: dict[int, str] = {}  # to be forked, or forked and silent: worker -> pool
        self.forked: set[int] = set()
        self.imported: dict[str, set[str]] = {}
        self.idle: dict[int, str] = {}
        self.leased: dict[int, tuple[str, str]] = {}  # worker -> pool, lease
        self.ending: dict[int, str] = {}
        self.gpus: dict[int, set[str]] = {}
        self.code: dict[int, str] = {}
        self.waiting: dict[str, tuple[int, str]] = {}  # lease -> client, bundle
        self.recalled: set[str] = set()
        self.quotas = NO_QUOTAS
        self.unsound: list[set[str]] = []
        self.groups: dict[str, str] = {}  # lease -> group
        self.next_lease = 1
        self.used: set[int] = set()

    # what is true of the miniature

    def workers(self) -> dict[int, str]:
        return {**self.born, **self.idle, **{w: p for w, (p, _) in self.leased.items()}, **self.ending}

    def happen(self, event: Event) -> None:
        told = self.pools.handle(event)
        self.log.append((event, told))
        granted = {one.lease for one in told if isinstance(one, AttachWorker)}
        for group in {self.groups[lease] for lease in granted if lease in self.groups}:
            assert {lease for lease in self.groups if self.groups[lease] == group} <= granted, "all or none"
        for one in told:
            getattr(self, f"do_{type(one).__name__}")(one)

    def gone(self, worker: int) -> None:
        for table in (self.born, self.idle, self.leased, self.ending, self.gpus, self.code):
            table.pop(worker, None)  # type: ignore[attr-defined]

    def server_gone(self, pool: str) -> None:
        for worker, owner in self.workers().items():
            if owner == pool:
                self.gone_with_server.append(self.leased.get(worker, ("", ""))[1])
                self.gone(worker)
        for group in (self.servers, self.stopping, self.preloading, self.starting):
            group.discard(pool)

    gone_with_server: list[str]

    # instructions

    def do_PrepareEnvironment(self, one: PrepareEnvironment) -> None:  # noqa: N802
        assert one.pool not in self.building | self.starting | self.servers
        assert one.spec == self.specs[one.pool]
        self.building.add(one.pool)

    def do_StartForkServer(self, one: StartForkServer) -> None:  # noqa: N802
        assert one.pool not in self.starting | self.servers | self.stopping
        self.starting.add(one.pool)

    def do_PreloadModules(self, one: PreloadModules) -> None:  # noqa: N802
        assert one.pool in self.servers - self.preloading - self.stopping
        assert len(set(one.modules)) == len(one.modules) > 0
        assert not self.imported[one.pool] & set(one.modules), "imported twice"
        self.imported[one.pool] |= set(one.modules)
        self.preloading.add(one.pool)

    def do_ForkWorker(self, one: ForkWorker) -> None:  # noqa: N802
        assert one.pool in self.servers - self.preloading - self.stopping
        assert one.worker not in self.used, "numbers are never used again"
        self.used.add(one.worker)
        if not one.fresh:
            assert not any(known <= self.imported[one.pool] for known in self.unsound), "known to be unsound"
        self.born[one.worker] = one.pool
        shape = self.specs[one.pool].shape
        gpus = set(one.gpus)
        assert len(gpus) == len(one.gpus) == math.ceil(shape.gpus)
        assert all(shape.gpu_type.upper() in NAMES[uuid] for uuid in gpus)
        for uuid in gpus:
            others = [
                self.specs[self.workers()[w]].shape.gpus for w, held in self.gpus.items() if uuid in held
            ]
            assert sum(min(1.0, part) for part in (shape.gpus, *others)) <= 1.0, "a GPU is given out twice"
        self.gpus[one.worker] = gpus
        assert list(self.workers().values()).count(one.pool) <= self.most[one.pool]
        shapes = [self.specs[pool].shape for pool in self.workers().values()]
        assert not shape.cpus or sum(each.cpus for each in shapes) <= RESOURCES.cpus
        assert not shape.memory_bytes or sum(each.memory_bytes for each in shapes) <= RESOURCES.memory_bytes

    def do_AttachWorker(self, one: AttachWorker) -> None:  # noqa: N802
        _, bundle = self.waiting.pop(one.lease)
        assert self.idle.pop(one.worker) == one.pool
        assert one.bundle == bundle
        assert self.code.get(one.worker, "") in ("", bundle), "local code is mixed"
        if bundle:
            self.code[one.worker] = bundle
        assert one.lease not in {lease for _, lease in self.leased.values()}
        self.leased[one.worker] = (one.pool, one.lease)

    def do_StopWorker(self, one: StopWorker) -> None:  # noqa: N802
        assert self.idle.pop(one.worker) == one.pool
        self.ending[one.worker] = one.pool

    def do_KillWorker(self, one: KillWorker) -> None:  # noqa: N802
        assert self.born.pop(one.worker) == one.pool
        self.ending[one.worker] = one.pool

    def do_StopForkServer(self, one: StopForkServer) -> None:  # noqa: N802
        assert one.pool in self.servers - self.stopping
        assert one.pool not in self.workers().values()
        self.stopping.add(one.pool)

    def do_KillForkServer(self, one: KillForkServer) -> None:  # noqa: N802
        assert one.pool in self.servers | self.starting
        self.starting.discard(one.pool)
        self.preloading.discard(one.pool)
        self.servers.add(one.pool)
        self.stopping.add(one.pool)

    def do_NoteFinding(self, one: NoteFinding) -> None:  # noqa: N802
        finding: Finding = one.finding
        assert finding.reason
        if one.lasting and not finding.forks:
            self.unsound.append(set(finding.modules))

    def do_TellWaits(self, one: TellWaits) -> None:  # noqa: N802
        assert one.lease in self.waiting
        assert one.phase in ("environment", "start", "imports", "queue")

    def do_RecallLease(self, one: RecallLease) -> None:  # noqa: N802
        assert one.lease in {lease for _, lease in self.leased.values()}
        assert one.lease not in self.recalled
        self.recalled.add(one.lease)

    def do_RefuseLease(self, one: RefuseLease) -> None:  # noqa: N802
        del self.waiting[one.lease]

    def do_TellLost(self, one: TellLost) -> None:  # noqa: N802
        self.told_lost.append(one.lease)

    told_lost: list[str]

    # events

    @rule(
        of=st.sampled_from(SPECS),
        client=st.integers(0, 3),
        bundle=st.sampled_from(BUNDLES),
        preload=st.sampled_from([(), ("a",), ("a", "b")]),
        most=st.integers(1, 3),
        keep=st.sampled_from([0.0, 5.0, 1000.0]),
    )
    def request(
        self, of: PoolSpec, client: int, bundle: str, preload: tuple[str, ...], most: int, keep: float
    ) -> None:
        lease = f"l{self.next_lease}"
        self.next_lease += 1
        self.specs[of.key] = of
        self.most[of.key] = max(self.most.get(of.key, 1), most)
        self.waiting[lease] = (client, bundle)
        self.happen(LeaseRequested(self.now, lease, client, of, bundle, preload, keep, most))

    @rule(
        of=st.sampled_from(SPECS),
        client=st.integers(0, 3),
        bundle=st.sampled_from(BUNDLES),
        size=st.integers(2, 3),
        keep=st.sampled_from([0.0, 1000.0]),
    )
    def request_group(self, of: PoolSpec, client: int, bundle: str, size: int, keep: float) -> None:
        leases = [f"l{self.next_lease + number}" for number in range(size)]
        self.next_lease += size
        self.specs[of.key] = of
        self.most[of.key] = max(self.most.get(of.key, 1), size)
        for lease in leases:
            self.waiting[lease] = (client, bundle)
            self.groups[lease] = leases[0]
        for lease in leases:
            self.happen(LeaseRequested(self.now, lease, client, of, bundle, (), keep, size, leases[0], size))

    @precondition(lambda self: self.building)
    @rule(data=st.data(), ok=MOSTLY)
    def environment(self, data: st.DataObject, ok: bool) -> None:
        self.end_building(data.draw(st.sampled_from(sorted(self.building))), ok=ok)

    def end_building(self, pool: str, *, ok: bool) -> None:
        self.building.discard(pool)
        if ok:
            self.happen(EnvironmentReady(self.now, pool, "/python"))
        else:
            self.happen(EnvironmentFailed(self.now, pool, "RuntimeEnvironmentError", "no"))

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), ok=MOSTLY)
    def fork_server(self, data: st.DataObject, ok: bool) -> None:
        self.end_starting(data.draw(st.sampled_from(sorted(self.starting))), ok=ok)

    def end_starting(self, pool: str, *, ok: bool) -> None:
        self.starting.discard(pool)
        if ok:
            self.servers.add(pool)
            self.imported[pool] = set()
            self.happen(ForkServerStarted(self.now, pool))
        else:
            self.lose(pool)

    @precondition(lambda self: self.servers)
    @rule(data=st.data())
    def fork_server_dies(self, data: st.DataObject) -> None:
        self.lose(data.draw(st.sampled_from(sorted(self.servers))))

    def lose(self, pool: str) -> None:
        self.gone_with_server, self.told_lost = [], []
        self.server_gone(pool)
        self.happen(ForkServerLost(self.now, pool, "it died"))
        assert sorted(self.told_lost) == sorted(lease for lease in self.gone_with_server if lease)

    @precondition(lambda self: self.preloading)
    @rule(data=st.data(), module=st.sampled_from("ab"))
    def import_starts(self, data: st.DataObject, module: str) -> None:
        self.happen(ImportStarted(self.now, data.draw(st.sampled_from(sorted(self.preloading))), module))

    @precondition(lambda self: self.preloading)
    @rule(data=st.data(), hung=st.sampled_from([(), (), ("a",)]), threads=st.sampled_from([(), (), ("'t'",)]))
    def preloaded(self, data: st.DataObject, hung: tuple[str, ...], threads: tuple[str, ...]) -> None:
        pool = data.draw(st.sampled_from(sorted(self.preloading)))
        self.preloading.discard(pool)
        self.happen(ModulesPreloaded(self.now, pool, dict.fromkeys(hung, "it hung"), hung, threads))

    @precondition(lambda self: set(self.born) - self.forked)
    @rule(data=st.data())
    def worker_forked(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(set(self.born) - self.forked)))
        self.forked.add(worker)
        self.happen(WorkerForked(self.now, self.born[worker], worker, 1000 + worker))

    @precondition(lambda self: any(self.gpus[worker] for worker in set(self.born) - self.forked))
    @rule(data=st.data())
    def gpus_are_taken(self, data: st.DataObject) -> None:
        asking = sorted(worker for worker in set(self.born) - self.forked if self.gpus[worker])
        worker = data.draw(st.sampled_from(asking))
        pool, gpus = self.born[worker], sorted(self.gpus[worker])
        taken = tuple(data.draw(st.lists(st.sampled_from(gpus), min_size=1, unique=True)))
        self.gone(worker)
        self.happen(GpusTaken(self.now, pool, worker, taken, "GPUs are taken"))

    @precondition(lambda self: self.born)
    @rule(data=st.data())
    def worker_ready(self, data: st.DataObject) -> None:
        self.speak(data.draw(st.sampled_from(sorted(self.born))))

    def speak(self, worker: int) -> None:
        pool = self.idle[worker] = self.born.pop(worker)
        if worker not in self.forked:
            self.forked.add(worker)
            self.happen(WorkerForked(self.now, pool, worker, 1000 + worker))
        self.happen(WorkerBecameReady(self.now, pool, worker))

    @precondition(lambda self: self.workers())
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        self.die(data.draw(st.sampled_from(sorted(self.workers()))))

    def die(self, worker: int) -> None:
        pool, lease = self.workers()[worker], self.leased.get(worker, ("", ""))[1]
        self.gone(worker)
        self.told_lost = []
        self.happen(WorkerDeparted(self.now, pool, worker, DIED))
        assert self.told_lost == ([lease] if lease else [])

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def lease_ends(self, data: st.DataObject) -> None:
        self.end_lease(data.draw(st.sampled_from(sorted(self.leased))))

    def end_lease(self, worker: int) -> None:
        pool, lease = self.leased.pop(worker)
        self.idle[worker] = pool
        self.happen(LeaseReturned(self.now, pool, worker, lease))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), whole_client=st.booleans())
    def who_waits_leaves(self, data: st.DataObject, whole_client: bool) -> None:
        lease = data.draw(st.sampled_from(sorted(self.waiting)))
        client = self.waiting[lease][0]
        if whole_client:
            self.waiting = {name: row for name, row in self.waiting.items() if row[0] != client}
            self.happen(ClientLeft(self.now, client))
        else:
            group = self.groups.get(lease)
            for other in sorted(self.waiting):
                if other == lease or (group is not None and self.groups.get(other) == group):
                    del self.waiting[other]
                    self.happen(LeaseWithdrawn(self.now, other))

    @rule(seconds=st.sampled_from([0.5, 6.0, DEADLINES.ready_seconds, 61.0, 140.0, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        if self.stopping:  # fork servers end when they are told to: that one may hang is a test of its own
            for pool in sorted(self.stopping):
                self.lose(pool)
        self.told_lost = []
        self.happen(TimePassed(self.now))

    @rule()
    def memory_runs_low(self) -> None:
        self.happen(MemoryRanLow(self.now))

    @rule(data=st.data())
    def user_releases(self, data: st.DataObject) -> None:
        self.happen(ReleaseAsked(self.now, data.draw(st.sampled_from(["", *sorted(self.specs)]))))

    @rule(
        quotas=st.sampled_from([NO_QUOTAS, Quotas(cpus=2, gpus=1), Quotas(cpus=1), Quotas(memory_bytes=600)])
    )
    def quotas_change(self, quotas: Quotas) -> None:
        self.quotas = quotas
        self.happen(QuotasSet(self.now, quotas))

    # beliefs

    @invariant()
    def lists_agree_with_the_miniature(self) -> None:
        listed = {w.id: w.state for info in self.pools.infos(self.now) for w in info.workers}
        assert set(listed) == set(self.workers())
        for table, state in (
            (self.born, WorkerState.STARTING),
            (self.idle, WorkerState.AVAILABLE),
            (self.leased, WorkerState.IN_USE),
            (self.ending, WorkerState.TERMINATING),
        ):
            assert {listed[worker] for worker in table} <= {state}
        assert sum(info.queued for info in self.pools.infos(self.now)) == len(self.waiting)

    @invariant()
    def what_is_due_is_never_long_past(self) -> None:
        due = self.pools.next_due()
        assert due is None or due >= self.now - 2000.0

    def teardown(self) -> None:
        self.everyone_is_answered()
        self.replay()

    def everyone_is_answered(self) -> None:
        """Once everything goes well, each who waits is granted or refused."""
        if self.quotas != NO_QUOTAS:
            self.happen(QuotasSet(self.now, NO_QUOTAS))
        for _ in range(60 + 6 * len(self.waiting)):
            if not self.waiting:
                break
            for pool in sorted(self.building):
                self.end_building(pool, ok=True)
            for pool in sorted(self.starting):
                self.end_starting(pool, ok=True)
            for pool in sorted(self.preloading):
                self.preloading.discard(pool)
                self.happen(ModulesPreloaded(self.now, pool, {}))
            for worker in sorted(self.born):
                self.speak(worker)
            for worker in sorted(self.leased):
                self.end_lease(worker)
            for worker in sorted(self.ending):
                self.die(worker)
            self.pass_time(1.0)
        assert not self.waiting

    def replay(self) -> None:
        again = Pools(RESOURCES, DEADLINES)
        for event, told in self.log:
            assert again.handle(event) == told


AnythingHappens.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestAnythingHappens = AnythingHappens.TestCase
