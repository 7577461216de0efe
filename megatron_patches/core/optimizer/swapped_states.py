# SPDX-License-Identifier: Apache-2.0
"""MindSpeed's swap optimizer as checkpoints see it.

Between its steps the optimizer's tensors on the device have no storage; their data are pinned copies in host memory,
kept by class attributes of `SwapDistributedOptimizer`.
"""

# NPU-ADAPTATION: checkpoints reach what MindSpeed's swap optimizer keeps in host memory

from __future__ import annotations

import sys
from typing import Any

import torch

_MODULE = "mindspeed.core.optimizer.swap_optimizer.swap_optimizer"


def swaps(optimizer: Any) -> bool:
    """Whether this distributed optimizer is MindSpeed's."""
    return bool(getattr(optimizer.optimizer, "is_swap_optimizer", False))


def host_copies(optimizer: Any, main_param: torch.Tensor) -> dict[str, torch.Tensor | None] | None:
    """The host's copies of a main parameter (`param`) and its states; None for what is not swapped."""
    if not swaps(optimizer):
        return None
    swapping = sys.modules[_MODULE].SwapDistributedOptimizer
    # Copies to the host run concurrently with the computation.
    swapping.swap_to_host_stream.synchronize()
    copies: dict[str, torch.Tensor | None] | None = swapping.param_to_cpu_states_map.get(main_param)
    return copies


def host_or_device(tensors: dict[str, Any], host: dict[str, torch.Tensor | None] | None) -> dict[str, Any]:
    """`tensors` with the host's copy of each that has no storage, and without those that are None."""
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return {
        name: host[name] if host is not None and tensor.untyped_storage().size() == 0 else tensor
        for name, tensor in present.items()
    }


def load_swapped(
    optimizer: Any,
    main_param: torch.Tensor,
    state: dict[str, Any],
    host: dict[str, torch.Tensor | None],
    tensors: dict[str, torch.Tensor],
) -> None:
    """Copy `tensors` into the host's copies, and leave the device's without storage, as between two steps."""
    for name, copy in host.items():
        on_device = main_param if name == "param" else state.get(name)
        if copy is None:
            state[name] = None
            continue
        copy.copy_(tensors[name])
        if on_device is not None:
            on_device.untyped_storage().resize_(0)
    # Loading gave the optimizer a new state dictionary, which is registered for swapping here.
    type(optimizer).param_to_device_states_map[main_param] = state
