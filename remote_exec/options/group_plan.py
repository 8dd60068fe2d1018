"""How many workers one call takes, and what each is told of its place among them."""

from __future__ import annotations

from typing import Any

from ..model.record import record
from .table import Options

HERE = "127.0.0.1"
DURABLE = ("name", "detach", "max_retry_attempts", "use_spot_instances")  # each makes a call a durable job


@record
class GroupPlan:
    """A call that runs in several processes.

    Without a launcher each rank has a worker, and the client holds them together. torchrun has one on each node, and
    mpirun one altogether, in which the launcher starts the ranks. A durable job has one worker too, since its client
    may go: that worker starts the ranks itself.

    Attributes:
        nodes: how many machines, or what stands for them here.
        per_node: how many processes on each.
        launcher: what starts the ranks: "", "torchrun", "mpirun" or "worker".
        all_ranks: whether the values of all ranks are wanted.
    """

    nodes: int
    per_node: int
    launcher: str
    all_ranks: bool

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self.nodes * self.per_node

    @property
    def workers(self) -> int:
        """How many workers they take."""
        return {"": self.world_size, "torchrun": self.nodes}.get(self.launcher, 1)

    @property
    def processes(self) -> int:
        """How many processes each worker holds."""
        return self.world_size // self.workers

    def told(self, worker: int = 0, *, address: str = HERE, port: int = 0) -> dict[str, Any]:
        """Return what a worker is told with the function.

        Args:
            worker: its number; workers are in the order of the ranks.
            address: that of rank 0's host, as the others reach it.
            port: a free one there; 0: the worker, which is the only one, finds it.
        """
        rank = worker * self.processes
        told: dict[str, Any] = {
            "group": {
                "rank": rank,
                "local_rank": rank % self.per_node,
                "node_rank": rank // self.per_node,
                "world_size": self.world_size,
                "local_world_size": self.per_node,
                "address": address,
                "port": port,
            },
            "returns": self.all_ranks or not worker,
        }
        if self.launcher:
            told["launch"] = {
                "launcher": self.launcher,
                "nodes": self.nodes if self.launcher == "torchrun" else 1,
                "processes": self.processes,
                "all_ranks": self.all_ranks,
            }
        return told


def group_plan(options: Options) -> GroupPlan | None:
    """Return how a call's processes are placed; None where it is one plain process.

    Example:
        >>> group_plan(Options.from_keywords(instance_count=2, nproc_per_node=4)).workers
        8
        >>> group_plan(Options.from_keywords(instance_count=2, nproc_per_node=4, use_torchrun=True)).workers
        2
        >>> group_plan(Options.from_keywords(instance_count=2, nproc_per_node=4, detach=True)).workers
        1
        >>> group_plan(Options.from_keywords(cpus=4)) is None
        True
    """
    launcher = "torchrun" if options.use_torchrun else "mpirun" if options.use_mpirun else ""
    if not launcher and options.instance_count == 1 and options.nproc_per_node == 1:
        return None
    if not launcher and is_durable(options):
        launcher = "worker"
    return GroupPlan(options.instance_count, options.nproc_per_node, launcher, options.return_all_ranks)


def is_durable(options: Options) -> bool:
    """Whether a call with these options is a durable job."""
    return any(getattr(options, name) for name in DURABLE)
