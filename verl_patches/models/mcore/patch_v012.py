# SPDX-License-Identifier: Apache-2.0
"""The gradient of the rotated part of the keys, which all heads share, is that of the heads of all ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.transformer.multi_latent_attention import MLASelfAttention

from recipe.overlay import patch


@patch(
    "verl.models.mcore.patch_v012:apply_patch",
    why="it sets multi-latent attention's get_query_key_value_tensors, which has Megatron-core's own defect: with "
    "tensor parallelism each rank turns the shared, rotated part of the keys for its own heads, and its gradient is "
    "never summed over the ranks, so that the layers before it are trained with wrong gradients",
    upstream="verl==0.6.1",
    fingerprint="sha256:91f28cbc09d3ad63d55b63e1958a319c603cdc0624cce50a643409c879f923da",
    remove_when="verl or Megatron-core sums that gradient over tensor-parallel ranks",
)
def apply_patch(original: Callable[[], None]) -> None:
    # NPU-ADAPTATION: the gradient of the shared part of the keys is summed over tensor-parallel ranks
    """verl's replacement, and around it what sums."""
    original()
    with_own_gradient = MLASelfAttention.get_query_key_value_tensors

    @functools.wraps(with_own_gradient)
    def get_query_key_value_tensors(self: Any, *args: Any, **kwargs: Any) -> Any:
        query, key, value = with_own_gradient(self, *args, **kwargs)
        shared = self.config.qk_pos_emb_head_dim
        # Only a projection of which each rank has a part: the other kind's output is gathered by what sums already.
        if self.linear_kv_down_proj.weight.shape[0] < self.config.kv_lora_rank + shared:
            key = SharedColumns.apply(key, shared)
        return query, key, value

    MLASelfAttention.get_query_key_value_tensors = get_query_key_value_tensors


class SharedColumns(torch.autograd.Function):
    """Keys [..., heads of this rank, size], whose last `shared` columns are the same in every head of every rank.

    Each rank adds up the gradients of those columns over its own heads, in the backward pass of what gave them to every
    head. Here the first of its heads is given the sum over the other ranks' heads as well.
    """

    @staticmethod
    def forward(context: Any, keys: torch.Tensor, shared: int) -> torch.Tensor:
        """The keys as they are."""
        context.shared = shared
        return keys.view_as(keys)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """`gradient`, and in the first head the part of the other ranks."""
        own = gradient[..., -context.shared :].sum(dim=-2, dtype=torch.float32)
        total = own.clone()
        torch.distributed.all_reduce(total, group=parallel_state.get_tensor_model_parallel_group())
        gradient = gradient.clone()
        gradient[..., 0, -context.shared :] += (total - own).to(gradient.dtype)
        return gradient, None
