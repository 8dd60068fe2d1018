"""Each example runs as a user would run it, in a process of its own, on small sizes."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 240  # the first one builds two environments, from the network


def run(script: str, *arguments: str, folder: Path) -> str:
    """Run an example in a folder and return what it printed."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skip, by name, where this environment lacks a module that the example says it needs."""
    lacking = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"this environment has no {', '.join(lacking)}")


@pytest.mark.timeout(SECONDS)
def test_quickstart_trains_in_an_environment_of_its_own_and_the_model_works_here(tmp_path: Path) -> None:
    told = run("quickstart/quickstart.py", "--epochs", "10", folder=tmp_path)
    table = re.findall(r"^ +([\d.]+) +(0\.\d+) +[\d.]+ +(\d+)$", told, flags=re.MULTILINE)
    assert [float(C) for C, _, _ in table] == [0.01, 0.1, 1, 10]
    assert max(float(accuracy) for _, accuracy, _ in table) > 0.9
    here = re.search(r"here: process (\d+)", told)
    assert here is not None
    assert here[1] not in {process for _, _, process in table}
    assert told.count("epoch 10, accuracy") == 4, "the log streams"
    assert "is a 2." in told
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"A warm call takes \d+ µs", told)


@needs("torch", "sklearn")
@pytest.mark.timeout(SECONDS)
def test_torch_training_returns_a_model_that_works_here(tmp_path: Path) -> None:
    told = run("torch_training/training.py", "--epochs", "3", folder=tmp_path)
    assert "epoch 3: loss" in told
    accuracy = re.search(r"model that came back: ([\d.]+)", told)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.8


@needs("pandas")
def test_a_large_table_is_grouped_elsewhere_as_it_would_be_here(tmp_path: Path) -> None:
    told = run("dataframe/dataframe.py", "--rows", "200000", folder=tmp_path)
    processes = set(re.findall(r"process (\d+)", told))
    assert len(processes) >= 2, "it was grouped in this very process"
    assert "second call" in told


def test_an_edited_local_package_is_seen_by_the_next_call(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "ide_project", project, ignore=shutil.ignore_patterns("__pycache__"))
    with subprocess.Popen(
        [sys.executable, str(project / "main.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as script:  # fmt: skip
        assert script.stdin is not None
        assert script.stdout is not None
        try:
            assert script.stdout.readline() == "The basket costs 7.70.\n"
            discount = project / "shop" / "discount.py"
            discount.write_text(discount.read_text().replace("SHARE = 0.10", "SHARE = 0.50"))
            script.stdin.write("\n")
            assert script.stdout.readline().endswith("The basket costs 5.70.\n")
            script.stdin.close()
            assert script.wait(30) == 0
        finally:
            script.kill()
