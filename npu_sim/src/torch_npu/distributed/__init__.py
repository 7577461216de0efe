# SPDX-License-Identifier: Apache-2.0
"""The ``hccl`` backend of torch.distributed."""

from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
from torch_npu import _sim


def _make_group(settings: Any, options: Any) -> Any:
    """Backend creator (extended API): one gloo group, or a mirror, below each hccl group."""
    if not isinstance(options, _sim.HcclOptions):
        options = settings.timeout
    else:
        options._timeout = settings.timeout
    ranks = settings.global_ranks_in_group or range(settings.group_size)  # the default group's list is empty
    return _sim.ProcessGroupHCCL(settings.store, settings.group_rank, settings.group_size, options, ranks)


def _gather_by_all_gather(gather: Any) -> Any:
    """torch.distributed.gather as torch_npu 2.5.1 replaces it (`_gather` in its distributed_c10d.py).

    HCCL has no gather. Tensors on npu are gathered on every rank, which costs each of them the memory of all.
    """

    @wraps(gather)
    def replacement(
        tensor: torch.Tensor,
        gather_list: list[torch.Tensor] | None = None,
        dst: int | None = None,
        group: Any = None,
        async_op: bool = False,
        group_dst: int | None = None,
    ) -> Any:
        if tensor.device.type != "npu" or dist.get_rank(group) < 0:  # a rank outside the group only gets a warning
            return gather(tensor, gather_list, dst, group, async_op, group_dst)
        ranks = dist.get_process_group_ranks(group)
        root = ranks[group_dst] if group_dst is not None else dst or 0
        if (root == dist.get_rank()) != bool(gather_list):
            raise ValueError("gather_list must be given on the destination rank, and only there")
        sizes = [t.size() for t in gather_list] if gather_list else [tensor.size()] * len(ranks)
        dist.broadcast_object_list(sizes, root, group)
        outputs = gather_list or [torch.empty(size, dtype=tensor.dtype, device=tensor.device) for size in sizes]
        return dist.all_gather(outputs, tensor, group=group, async_op=async_op)

    return replacement


def is_hccl_available() -> bool:
    """Whether hccl can be used: wherever torch.distributed can."""
    return dist.is_available()


def group_by_comm_name(name: str) -> Any:
    """The hccl process group whose ``get_hccl_comm_name`` returned ``name``; RuntimeError if none lives."""
    return _sim.group_by_comm_name(name)


def register() -> None:
    """Make ``backend="hccl"`` work and be the default of npu tensors."""
    if not dist.is_available():
        return
    dist.Backend.register_backend("hccl", _make_group, extended_api=True, devices=["npu"])
    gather = _gather_by_all_gather(dist.gather)
    for module in (dist, dist.distributed_c10d):
        module.gather = gather
        module.is_hccl_available = is_hccl_available  # names the real torch_npu adds
        module.ProcessGroupHCCL = _sim.ProcessGroupHCCL
