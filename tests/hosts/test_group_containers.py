"""Groups in containers: each node is one of its own, and they reach each other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remote_exec import get_future, remote
from remote_exec.backends.docker.engine import Engine, open_engine
from remote_exec.errors import ConfigurationError

from .containers import BOX, opened
from .docker_engine import DockerEngine
from .group_work import meet

SECONDS = 60.0
pytestmark = pytest.mark.usefixtures("docker_engine")
met = remote(instance_type="box", dependencies=[], return_all_ranks=True)(meet)


@pytest.fixture
def on_network(calls: Engine, tmp_path: Path) -> Callable[[str], None]:
    """Have the containers of ``box`` be on another network."""
    path = tmp_path / "pyproject.toml"
    return lambda name: (path.write_text(path.read_text().replace('"none"', f'"{name}"')), None)[1]


@pytest.fixture
def bridge(docker_engine: DockerEngine) -> Iterator[str]:
    """A network of this engine; to be asked for before what removes the containers on it."""
    name = f"re-{uuid.uuid4().hex[:8]}"
    docker_engine.docker("network", "create", "--internal", name)
    yield name
    docker_engine.docker("network", "rm", name)


def test_nodes_are_containers_that_reach_each_other_by_a_network(
    bridge: str, on_network: Callable[[str], None]
) -> None:
    on_network(bridge)
    found: Any = met.options(instance_count=2, nproc_per_node=2)("hello")
    assert [(rank, node, heard) for rank, node, _, heard in found] == [
        (0, 0, "hello"), (1, 0, "hello"), (2, 1, "hello"), (3, 1, "hello")
    ]  # fmt: skip
    names = [name for *_, name, _ in found]
    assert names[0] == names[1] != names[2] == names[3]
    assert met.options(nproc_per_node=2)("again")[0][2] == names[0]  # other calls are in the first


def test_the_network_of_the_engines_machine_will_do(on_network: Callable[[str], None]) -> None:
    on_network("host")
    found: Any = met.options(instance_count=2)("hello")
    assert [(rank, heard) for rank, _, _, heard in found] == [(0, "hello"), (1, "hello")]


def test_without_a_network_there_are_groups_in_one_container_only(calls: Engine) -> None:
    with pytest.raises(ConfigurationError, match="do not reach each other") as caught:
        met.options(instance_count=2)("")
    assert caught.value.option == "network_mode"
    job = met.options(nproc_per_node=2, detach=True).submit("to itself")
    found: Any = get_future(job.job).result(SECONDS)
    assert [heard for *_, heard in found] == ["to itself", "to itself"]


def test_two_containers_elsewhere_never_claim_the_same_gpus(
    engine: Engine, docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_engine.tls_url)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(docker_engine.certificates))
    with pytest.raises(ConfigurationError, match="the same GPUs"):
        opened(open_engine(""), replace(BOX, gpu_devices=("all",), node=1))
