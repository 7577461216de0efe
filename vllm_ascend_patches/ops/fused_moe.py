# SPDX-License-Identifier: Apache-2.0
"""The rollout of Qwen3-MoE picks experts with the precision of the trainer's router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recipe.overlay import patch
from vllm_ascend_patches.float32_linear import compute_in_float32


@patch(
    "vllm_ascend.ops.fused_moe:AscendSparseMoeBlock.__init__",
    why="router logits are bfloat16 in the rollout, but float32 in the trainer: near ties the two pick different "
    "experts, and the sampled tokens' probabilities come apart",
    upstream="vllm-ascend==0.9.1",
    fingerprint="sha256:2ef66bd12ae455fb10ebfd971fc1eaff584f7d47725478e37e92f5d786d381e6",
    remove_when="vllm-ascend computes Qwen3-MoE's router in float32",
)
def float32_router(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    # NPU-ADAPTATION: the router's weight and logits are float32
    original(self, *args, **kwargs)
    compute_in_float32(self.gate)
