"""Groups over several hosts: a node on each, one rendezvous, and one end."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_exec import RemoteExecutor, RemoteFuture
from remote_exec.backends import ssh
from remote_exec.errors import ConfigurationError, HostUnavailable, ResourceLimitExceeded

from .fixtures import NewHost, missing
from .group_work import place, summed, wait_or_fail
from .netns import Network, NetworkHost
from .projects import Project
from .sshd import SshServer

SECONDS = 60.0
pytestmark = pytest.mark.usefixtures("ssh_client")


class TwoHosts:
    """Two hosts in namespaces of their own, and what makes a function a group's on them."""

    def __init__(self, on: Callable[..., Any], links: list[NetworkHost], servers: list[SshServer]) -> None:
        self.on, self.links, self.servers = on, links, servers

    @property
    def homes(self) -> list[str]:
        return [str(server.home) for server in self.servers]


@pytest.fixture
def two_hosts(network: Network, project: Project, new_host: NewHost) -> TwoHosts:
    """Two hosts that reach each other and this machine, and nothing else."""
    links = [network.add(), network.add()]
    names = ["node1", "node2"]
    servers = [new_host(name, at=link) for name, link in zip(names, links, strict=True)]
    on = project.add(
        "nodes", hosts=names, job_conda_env=sys.prefix
    )  # an environment that they have: PyTorch is large
    return TwoHosts(on, links, servers)


def until(folder: Path, *names: str, of: RemoteFuture[Any] | None = None) -> None:
    """Wait for files that a call leaves; `of`: one that does not end before."""
    deadline = time.monotonic() + SECONDS
    while not {*names} <= {*os.listdir(folder)}:
        assert time.monotonic() < deadline
        assert of is None or not of.done(), of.exception()
        time.sleep(0.01)


def test_each_host_has_a_node_and_all_meet_at_the_first(two_hosts: TwoHosts) -> None:
    group = two_hosts.on(place).options(instance_count=2, nproc_per_node=2, return_all_ranks=True)
    found = group()
    assert [home for home, _ in found] == [two_hosts.homes[rank // 2] for rank in range(4)]
    assert [(one.rank, one.node_rank, one.local_rank) for _, one in found] == [
        (0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)
    ]  # fmt: skip
    assert {(one.world_size, one.address, one.port) for _, one in found} == {
        (4, two_hosts.links[0].address, found[0][1].port)
    }
    with RemoteExecutor(instance_type="nodes", instance_count=2, return_all_ranks=True) as executor:
        several: Any = executor.submit(place).result(SECONDS)
    assert [home for home, _ in several] == two_hosts.homes
    job = two_hosts.on(place).options(nproc_per_node=2, detach=True, return_all_ranks=True).submit()
    assert [group.rank for _, group in job.result(SECONDS)] == [0, 1]


@pytest.mark.parametrize("launcher", [{}, {"use_torchrun": True}], ids=["workers", "torchrun"])
def test_pytorch_reduces_over_two_hosts(
    two_hosts: TwoHosts, launcher: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("torch") is None:
        missing("PyTorch")
    call = two_hosts.on(summed).options(instance_count=2, nproc_per_node=2, return_all_ranks=True, **launcher)
    assert call(1.0) == [(10.0, two_hosts.homes[rank // 2]) for rank in range(4)]
    lines = capfd.readouterr().out.splitlines()
    assert {f"[{rank}] the sum is 10.0" for rank in range(4)} <= set(lines)


def test_a_rank_that_fails_stops_those_of_the_other_host(two_hosts: TwoHosts, tmp_path: Path) -> None:
    folder = tmp_path / "ranks"
    folder.mkdir()
    with pytest.raises(ValueError, match="rank one") as caught:
        two_hosts.on(wait_or_fail).options(instance_count=2)(str(folder), True)
    assert "raised by rank 1 of 2" in caught.value.__notes__
    assert {*os.listdir(folder)} == {"0", "1", "0.ended", "1.ended"}


def test_a_host_that_is_cut_off_ends_the_group(
    two_hosts: TwoHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "ALIVE_SECONDS", 1)  # the dead link is found sooner
    folder = tmp_path / "ranks"
    folder.mkdir()
    call = two_hosts.on(wait_or_fail).options(instance_count=2, connection_timeout=2)
    future = call.submit(str(folder), False)
    until(folder, "0", "1", of=future)
    two_hosts.links[1].link_down()
    with pytest.raises(HostUnavailable, match="node2") as caught:
        future.result(SECONDS)
    assert "raised by rank 1 of 2" in caught.value.__notes__
    assert "0.ended" in os.listdir(folder)
    two_hosts.links[1].link_up()
    until(folder, "1.ended")  # it does not wait there for the others for ever


def test_a_group_takes_the_hosts_that_can_be_reached_and_is_told_where_they_meet(
    project: Project, new_host: NewHost
) -> None:
    servers = [new_host(name) for name in ("near1", "gone", "near2")]
    servers[1].stop()
    on = project.add("near", hosts=["near1", "gone", "near2"], job_conda_env=sys.prefix)
    with pytest.raises(ConfigurationError, match=r"'near1' at 127\.0\.0\.1") as caught:
        on(place).options(instance_count=2)()
    assert "group_addresses" in caught.value.hint
    with open(project.folder / "pyproject.toml", "a") as file:
        file.write('group_addresses = { near1 = "127.0.0.1", near2 = "127.0.0.1" }\n')
    found = on(place).options(instance_count=2, return_all_ranks=True)()
    assert [home for home, _ in found] == [str(servers[0].home), str(servers[2].home)]
    assert found[0][1].address == "127.0.0.1"
    with pytest.raises(HostUnavailable, match=r"3 hosts are needed, and 2 of 3 can be reached: .*gone"):
        on(place).options(instance_count=3)()


def test_what_cannot_be_had_is_refused_with_the_fix(
    network: Network, project: Project, new_host: NewHost
) -> None:  # in this order: the project lets go of its hosts while they can be reached
    new_host("gpu1", at=network.add())
    on = project.add("gpus", hosts=["gpu1"])
    with pytest.raises(
        ResourceLimitExceeded, match=r"instance_count.* is 2.*'gpus' has 1 host: gpu1"
    ) as caught:
        on(place).options(instance_count=2)()
    assert "nproc_per_node" in str(caught.value)
    with pytest.raises(ConfigurationError, match="mpirun starts processes on one host"):
        on(place).options(instance_count=2, use_mpirun=True)()
    with pytest.raises(ConfigurationError, match=r"'detach'.*several machines cannot be a durable job"):
        on(place).options(instance_count=2, detach=True)()
