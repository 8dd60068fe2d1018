"""What goes there and comes back: arrays, frames, buffers; and what options say of a call."""

from __future__ import annotations

import array
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from remote_exec import RemoteExecutor, get_future, remote
from remote_exec.errors import ConfigurationError, MaxRuntimeExceeded, ResourceLimitExceeded

SECONDS = 30.0  # no test should come near it
BIG = 100_000  # elements: beyond what is sent in the stream itself


@remote
def identity(value: Any) -> Any:
    return value


ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "small": np.arange(10),
    "big": np.arange(BIG),
    "big-endian": np.arange(BIG, dtype=">i4"),
    "Fortran order": np.asfortranarray(np.arange(90_000.0).reshape(300, 300)),
    "three dimensions": np.arange(BIG).reshape(10, 100, 100),
    "every second": np.arange(2 * BIG)[::2],
    "reversed": np.arange(BIG)[::-1],
    "zero-size": np.zeros((0, 3)),
    "no dimension": np.array(3.5),
    "structured": np.zeros(BIG, dtype=[("a", "i4"), ("b", "f8")]),
    "objects": np.array([1, "a", None], dtype=object),
    "texts": np.array(["a", "bcd"] * BIG),
    "dates": np.array(["2020-01-01"] * BIG, dtype="M8[D]"),
    "complex": np.arange(BIG) * 1j,
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_arrives_as_it_was_and_can_be_written(kind: str) -> None:
    sent = ARRAYS[kind]

    @remote
    def write_and_return(value: Any) -> Any:
        before = value.copy(order="K")
        if value.size:
            value[(0,) * value.ndim] = value[(-1,) * value.ndim]  # as one may with one's own
        return before

    kept = sent.copy()
    came = write_and_return(sent)
    assert (came.dtype, came.shape) == (sent.dtype, sent.shape)
    assert np.array_equal(came, sent)
    if sent.flags.forc:
        assert came.flags.f_contiguous == sent.flags.f_contiguous
    assert np.array_equal(sent, kept)  # what was written there is not seen here
    assert came.flags.writeable
    if came.size:
        came[(0,) * came.ndim] = came[(-1,) * came.ndim]
    assert np.array_equal(sent, kept)


def test_what_is_read_only_stays_so_and_what_is_one_stays_one() -> None:
    fixed = np.arange(BIG)
    fixed.flags.writeable = False
    assert not identity(fixed).flags.writeable
    same = [np.zeros(BIG)] * 2
    came = identity(same)
    assert came[0] is came[1]


@pytest.mark.parametrize("size", [3, 10**6])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: array.array("b", data)])
def test_buffers_keep_type_and_contents(kind: Any, size: int) -> None:
    value = kind(b"abc" * (size // 3))
    came = identity(value)
    assert type(came) is type(value)
    assert came == value
    if isinstance(came, bytearray):
        came.extend(b"more")
        came[0] = 255
        assert value[0] == ord("a")


def test_data_frames_arrive_whole_and_can_be_changed() -> None:
    frame = pd.DataFrame(
        {
            "number": np.arange(BIG),
            "real": np.linspace(0, 1, BIG),
            "text": ["a", "b"] * (BIG // 2),
            "kind": pd.Categorical(["u", "v"] * (BIG // 2)),
            "time": pd.date_range("2020", periods=BIG, freq="s"),
        }
    ).set_index("number")

    @remote
    def extend(value: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series[float]]:
        value["double"] = value["real"] * 2
        value.iloc[0, 0] = 9.0
        return value, value["real"]

    came, column = extend(frame)
    pd.testing.assert_frame_equal(came.drop(columns="double").iloc[1:], frame.iloc[1:])
    assert (came.iloc[0, 0], frame.iloc[0, 0], column.iloc[0]) == (9.0, 0.0, 9.0)
    came.iloc[1, 0] = 5.0
    column += 1
    assert (frame.iloc[1, 0], "double" in frame) == (frame["real"].iloc[1], False)


@pytest.mark.parametrize("how", ["call", "submit", "map"])
def test_shared_memory_is_never_written_under_what_is_still_held(how: str) -> None:
    rounds, length = 20, (2 << 20) if how == "call" else (1 << 18)  # 16 MB each, and 2 MB

    def keep(value: Any) -> Any:
        import builtins

        kept = builtins.__dict__.setdefault("kept_by_test_values", [])
        kept.append(value[::4096])  # a view: it holds all of it
        return value

    def kept_there() -> list[tuple[float, float]]:
        import builtins

        kept = builtins.__dict__.pop("kept_by_test_values")
        return [(float(view.min()), float(view.max())) for view in kept]

    def numbered() -> Any:
        return (np.full(length, float(number)) for number in range(rounds))

    with RemoteExecutor(1) as executor:
        if how == "call":
            kept = [executor.submit(keep, value).result(SECONDS)[::4096] for value in numbered()]
        elif how == "submit":
            kept = [
                future.result(SECONDS) for future in [executor.submit(keep, value) for value in numbered()]
            ]
        else:
            kept = list(executor.map(keep, numbered()))
        there = executor.submit(kept_there).result(SECONDS)
    assert there == [(float(number), float(number)) for number in range(rounds)]
    for number, view in enumerate(kept):
        assert view.min() == view.max() == number


# --- options ---


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"keep_alive_period": 3}, "'keep_alive_period'; did you mean 'keep_alive_period_in_seconds'"),
        ({"instance_typ": "local"}, "'instance_typ'; did you mean 'instance_type'"),
        ({"keep_alive_period_in_seconds": "soon"}, "'keep_alive_period_in_seconds' must be a number"),
        ({"cpus": -1}, "'cpus' must be a number, above 0"),
        ({"memory": "lots"}, "'memory' must be a number of bytes"),
        ({"max_retry_attempts": 31}, "'max_retry_attempts' must be a whole number, from 0 to 30"),
        ({"dependencies": 3}, "'dependencies' must be the path"),
        ({"environment_variables": ["A"]}, "'environment_variables' must be a mapping"),
    ],
)
def test_a_wrong_option_is_named_with_the_nearest_right_one(keywords: Any, said: str) -> None:
    for make in (remote, RemoteExecutor, identity.options):
        with pytest.raises(ConfigurationError, match=said):
            make(**keywords)


def test_an_unknown_instance_type_is_refused_at_the_call() -> None:
    with pytest.raises(ConfigurationError, match="no instance type 'gpux'"):
        identity.options(instance_type="gpux")(1)


@pytest.mark.parametrize("ask", [{"memory": "100000 GB"}, {"cpus": 4096}])
def test_what_no_host_could_give_is_refused_at_once(ask: dict[str, Any]) -> None:
    refused(ask)


@pytest.mark.here("a container engine refuses GPUs by itself")
def test_gpus_that_no_host_could_give_are_refused_at_once() -> None:
    refused({"gpus": 512})


def refused(ask: dict[str, Any]) -> None:
    for call in (identity.options(**ask), identity.options(**ask, detach=True)):
        with pytest.raises(ResourceLimitExceeded, match="was asked for; this host has"):
            call.submit(1).result(SECONDS)


def test_options_of_options_rank_above_those_before() -> None:
    @remote(environment_variables={"COLOUR": "red"}, job_name_prefix="first")
    def look() -> str:
        import os

        return os.environ["COLOUR"]

    green = look.options(environment_variables={"COLOUR": "green"}).options(max_runtime_in_seconds=60)
    blue = green.options(environment_variables={"COLOUR": "blue"})
    assert (look(), green(), blue(), green()) == ("red", "green", "blue", "green")


def test_an_option_that_nobody_reads_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert identity.options(volume_kms_key="k")(1) == 1
    assert capfd.readouterr().err.count("'volume_kms_key'") == 1


@pytest.mark.here("a container can be cut off its network")
def test_isolation_that_cannot_be_given_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'enable_network_isolation'"):
        identity.options(enable_network_isolation=True)(1)


def test_a_time_limit_stops_a_call_and_the_next_one_works() -> None:
    import time

    @remote(max_runtime_in_seconds=0.5)
    def sleep(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    with pytest.raises(MaxRuntimeExceeded, match=r"max_runtime_in_seconds \(0.5 s\)"):
        sleep(60)
    assert sleep(0) == 0


def test_another_process_finds_a_call_by_its_name(tmp_path: Path) -> None:
    @remote
    def found_by_name(gate: str) -> str:
        import time

        while not Path(gate).exists():
            time.sleep(0.01)
        return "well"

    future = found_by_name.options(detach=True).submit(str(tmp_path / "gate"))
    program = f"from remote_exec import get_future; print(get_future({future.job!r}).result())"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        (tmp_path / "gate").touch()
        assert process.communicate(timeout=SECONDS)[0] == "well\n"
    assert get_future(future.job).result(SECONDS) == "well"
