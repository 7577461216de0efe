# SPDX-License-Identifier: Apache-2.0
"""The random state of the NPU is set at once, not queued for a CUDA initialisation that never comes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from megatron_patches.environment import plain_megatron_on_npu
from recipe.overlay import patch


@patch(
    "megatron.core.tensor_parallel.random:_set_cuda_rng_state",
    why="it hands the change to torch.cuda._lazy_call, imported by name before torch.cuda is mapped to torch.npu, "
    "which queues it for the initialisation of CUDA: the state is silently never set",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:0443b8589570e92574d927cc023e674946ae24f59784083acb695010e5e30dda",
    remove_when="every machine this runs on has MindSpeed",
    when=plain_megatron_on_npu,
)
def _set_cuda_rng_state(  # NPU-ADAPTATION: set the NPU's random state
    original: Callable[..., None], new_state: torch.Tensor, device: int | str = -1, graph_safe: bool = False
) -> None:
    """Set the random state of the NPU (-1: the current one)."""
    where = "npu" if device == -1 else device
    torch.npu.set_rng_state(new_state, where)
