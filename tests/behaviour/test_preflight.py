"""`f.preflight()`, and what a first call says by itself, before anything slow starts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from remote_exec import remote
from remote_exec.backends.docker.host import DockerHost
from remote_exec.backends.host import Host
from remote_exec.errors import SerializationError

table = np.zeros(2_000_000)


def total() -> float:
    return float(table.sum())


total.__module__ = "__main__"  # by value, as in a script


def test_the_biggest_value_that_a_function_carries_is_named_by_its_path() -> None:
    @remote
    def fit() -> float:
        return total()

    started = time.monotonic()
    found = fit.preflight()
    assert time.monotonic() - started < 1.0
    assert found.parts[0][0] == "total → global 'table'"
    assert found.parts[0][1] > 16_000_000
    assert found.size_bytes > 16_000_000
    assert found.ok
    assert any("most of it total → global 'table' (16.0 MB)" in sentence for sentence in found.warnings)


def test_arguments_are_measured_and_must_be_picklable() -> None:
    @remote
    def fit(x: Any, y: Any) -> None:
        del x, y

    with open(__file__) as file:
        found = fit.preflight(x=bytes(5000), y=file)
    assert dict(found.parts)["argument 'x'"] > 5000
    assert any("argument 'y'" in problem for problem in found.problems)


@pytest.mark.here("what a host's own Python has is not known here")
def test_an_import_that_is_not_installed_is_a_problem_and_a_calls_warning(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @remote
    def fit(really: bool) -> int:
        if really:
            import no_such_module_anywhere  # type: ignore[import-not-found]

            return int(no_such_module_anywhere.value)
        return 1

    assert any("'no_such_module_anywhere'" in problem for problem in fit.preflight().problems)
    assert fit(False) == 1  # the branch was not taken
    assert "no_such_module_anywhere" in capfd.readouterr().err


def test_an_import_that_no_requirement_provides_is_a_problem() -> None:
    @remote(dependencies=["packaging"])
    def fit() -> Any:
        import numpy

        return numpy

    assert any("'numpy', which no requirement" in problem for problem in fit.preflight().problems)
    assert fit.options(dependencies=["packaging", "numpy"]).preflight().ok


def test_options_that_nobody_reads_are_said_and_those_that_matter_are_problems(host: Host) -> None:
    @remote(volume_size=40)
    def fit() -> None: ...

    assert any("volume_size" in sentence for sentence in fit.preflight().warnings)
    kept = fit.options(checkpoint_location="s3://bucket/run")
    assert any("checkpoint_location" in problem for problem in kept.preflight().problems)
    isolated = fit.options(enable_network_isolation=True).preflight()
    said = any("enable_network_isolation" in problem for problem in isolated.problems)
    assert said != isinstance(host, DockerHost)  # which has containers without a network


def test_another_python_minor_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "a"\nversion = "1"\nrequires-python = "<3.9"\n'
    )

    @remote(dependencies=str(tmp_path / "pyproject.toml"))
    def fit() -> None: ...

    assert any("<3.9" in problem for problem in fit.preflight().problems)


def test_what_cannot_be_pickled_raises_with_its_path(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as log:

        @remote
        def fit() -> None:
            log.write("x")

        with pytest.raises(SerializationError) as caught:
            fit.preflight()
    assert caught.value.path[:2] == ("fit", "closure 'log'")


def test_its_text_lists_what_travels_and_what_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.csv").write_text("a,b\n" * 500)
    (tmp_path / "notes.log").write_text("x")
    (tmp_path / ".gitignore").write_text("*.log\n")
    monkeypatch.chdir(tmp_path)

    @remote(include_local_workdir=True)
    def fit() -> None: ...

    found = fit.preflight()
    text = str(found)
    assert ("data.csv", 2000) in found.travels
    assert any(path.endswith("notes.log") for path, _ in found.left_out)
    assert "2.0 kB  data.csv" in text
    assert "notes.log: " in text
    assert "nothing is known that cannot work" in text
