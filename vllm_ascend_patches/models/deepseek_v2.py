# SPDX-License-Identifier: Apache-2.0
"""The rollout picks experts with the precision of the trainer's router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from vllm.model_executor.layers.linear import UnquantizedLinearMethod

from recipe.overlay import patch


class Float32Linear(UnquantizedLinearMethod):
    """Linear layer whose weight and output are float32, whatever the type of its input."""

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return F.linear(x.float(), layer.weight, bias)


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
    gate.weight.data = gate.weight.data.float()
    if gate.e_score_correction_bias is not None:
        gate.e_score_correction_bias.data = gate.e_score_correction_bias.data.float()
    gate.quant_method = Float32Linear()
