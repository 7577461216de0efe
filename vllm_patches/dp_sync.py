# SPDX-License-Identifier: Apache-2.0
"""What the engines of a data-parallel domain tell each other before every step, reduced by the devices.

vLLM does it twice a step with Gloo, over the hosts' network: whether anyone has unfinished requests, and how many
tokens each engine runs. The messages are a few bytes, so a step pays two latencies.
"""

# NPU-ADAPTATION: data-parallel engines agree over HCCL instead of Gloo

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

from recipe.overlay import Condition

OPTION = "RECIPE_DP_SYNC_ON_DEVICE"


def asked_for() -> bool:
    """Whether this process's engine is to agree with the others by the devices."""
    return os.environ.get(OPTION, "0") == "1"


on_device = Condition(asked_for, otherwise="rollout.dp_sync_on_device is false: vLLM's own reduction with Gloo")


def all_reduce_on_device(tensor: torch.Tensor, op: Any) -> None:
    """Reduce a host tensor in place over the data-parallel group, with the devices' collective library.

    Waits for the device: the caller reads the result on the host. Every engine of the domain must call it.
    """
    from vllm.distributed.parallel_state import get_dp_group

    group = get_dp_group()
    if group.world_size == 1:
        return
    copy = tensor.to(group.device)
    dist.all_reduce(copy, op=op, group=group.device_group)
    tensor.copy_(copy)
