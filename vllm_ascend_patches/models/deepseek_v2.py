# SPDX-License-Identifier: Apache-2.0
"""The rollout picks experts with the precision of the trainer's router, and turns heads without scaled positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from vllm_ascend.ops.rotary_embedding import native_rope_deepseek_forward

from recipe.overlay import patch
from vllm_ascend_patches.float32_linear import compute_in_float32


@patch(
    "vllm_ascend.models.deepseek_v2:CustomDeepseekV2MoE.__init__",
    why="router logits, scores and their bias are bfloat16 in the rollout, but float32 in the trainer: near ties the "
    "two pick different experts, and the sampled tokens' probabilities come apart",
    upstream="vllm-ascend==0.9.1",
    fingerprint="sha256:1fbd14d5caa07fa5d701d90b54b49d12d4da7f7c8f51ab851cb6d2dcb9a82ac7",
    remove_when="vllm-ascend computes DeepSeek-V3's router in float32 outside its super kernel mode too",
)
def float32_router(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    # NPU-ADAPTATION: the router's weight, bias and logits are float32, as upstream has them in super kernel mode
    original(self, *args, **kwargs)
    if self.enable_multistream_moe:  # the router runs inside the experts' kernels
        return
    gate = self.gate
    compute_in_float32(gate)
    if gate.e_score_correction_bias is not None:
        gate.e_score_correction_bias.data = gate.e_score_correction_bias.data.float()


@patch(
    "vllm_ascend.models.deepseek_v2:CustomDeepseekV2MLAAttention.__init__",
    why="without rope_scaling, as in Moonlight, the rotary embedding lacks the tables that attention asks it "
    "for, so that the engine does not start; and it leaves turned pairs in another order than graph mode's operators, "
    "so that keys of prompts and of answers would not fit together",
    upstream="vllm-ascend==0.9.1",
    fingerprint="sha256:3e5a38b44ff3905daab04baa01575f7f358265185879179ce173ccab8131f9f2",
    remove_when="vllm-ascend PR 5516 is in the pin",
)
def plain_rotary(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    # NPU-ADAPTATION: a plain rotary embedding has the tables and the order of pairs of DeepSeek's scaled one
    original(self, *args, **kwargs)
    rotary = self.rotary_emb  # one object for all layers
    if hasattr(rotary, "cos_cached"):
        return
    cos, sin = rotary.cos_sin_cache.chunk(2, dim=-1)  # [positions, rotary size / 2]
    rotary.register_buffer("cos_cached", torch.cat((cos, cos), dim=-1), persistent=False)
    rotary.register_buffer("sin_cached", torch.cat((sin, sin), dim=-1), persistent=False)
    rotary.forward = partial(native_rope_deepseek_forward, rotary)
