# SPDX-License-Identifier: Apache-2.0
"""The ``hccl`` backend of torch.distributed."""

from typing import Any

import torch.distributed as dist
from torch_npu import _sim


def _make_group(settings: Any, options: Any) -> Any:
    """Backend creator (extended API): one gloo group below each hccl group."""
    if not isinstance(options, _sim.HcclOptions):
        options = settings.timeout
    else:
        options._timeout = settings.timeout
    return _sim.ProcessGroupHCCL(settings.store, settings.group_rank, settings.group_size, options)


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
    for module in (dist, dist.distributed_c10d):
        module.is_hccl_available = is_hccl_available  # names the real torch_npu adds
        module.ProcessGroupHCCL = _sim.ProcessGroupHCCL
