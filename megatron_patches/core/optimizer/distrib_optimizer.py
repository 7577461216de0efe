# SPDX-License-Identifier: Apache-2.0
"""The distributed optimizer accepts npu parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megatron_patches.core.optimizer.cuda_type_names import cuda_type_names
from megatron_patches.environment import plain_megatron_on_npu
from recipe.overlay import patch


@patch(
    "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer.__init__",
    why="it compares Tensor.type() with the names of CUDA tensors; MindSpeed maps the names, without it every npu "
    "parameter is refused",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:728e59c330947ddb2f95e4562a67f93613d922a25940895fa3e0c95ad455f92f",
    remove_when="Megatron-core compares dtypes, or every machine this runs on has MindSpeed",
    when=plain_megatron_on_npu,
)
def distributed_optimizer_init(  # NPU-ADAPTATION: npu parameters pass for CUDA ones while the shards are built
    original: Callable[..., None], self: Any, *args: Any, **kwargs: Any
) -> None:
    """Build the optimizer's parameter shards."""
    with cuda_type_names():
        original(self, *args, **kwargs)
