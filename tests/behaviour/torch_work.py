"""What members of groups do that need PyTorch: a module of its own, since what a module imports goes along."""

from __future__ import annotations

from typing import Any


def summed(number: float) -> float:
    """Have all ranks add up what they have, by PyTorch."""
    import torch
    import torch.distributed

    distributed: Any = torch.distributed
    distributed.init_process_group("gloo")
    value = torch.tensor([number * (distributed.get_rank() + 1)])
    distributed.all_reduce(value)
    return float(value.item())
