"""The place of one process in a group: what it is told of itself and of the others."""

from __future__ import annotations

from .record import record


@record
class Group:
    """One process's place among those that run one call together: `current_job().group`.

    Attributes:
        rank: its number among all; the value of rank 0 is the call's.
        local_rank: its number on its node.
        node_rank: the number of its node.
        world_size: how many they are.
        local_world_size: how many of them are on its node.
        address: where rank 0 can be met; `port` is free there when the call begins.
        port: see `address`.
    """

    rank: int
    local_rank: int
    node_rank: int
    world_size: int
    local_world_size: int
    address: str
    port: int

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables by which libraries know it, as torchrun sets them."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "GROUP_RANK": str(self.node_rank),
            "NODE_RANK": str(self.node_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }
