# SPDX-License-Identifier: Apache-2.0
"""Linear layers of the rollout that work in float32 in a model of another type."""

# NPU-ADAPTATION: routers of the rollout work in float32

from __future__ import annotations

import torch
import torch.nn.functional as F
from vllm.model_executor.layers.linear import UnquantizedLinearMethod


class Float32Linear(UnquantizedLinearMethod):
    """Linear layer whose weight and output are float32, whatever the type of its input."""

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return F.linear(x.float(), layer.weight, bias)


def compute_in_float32(layer: torch.nn.Module) -> None:
    """Make a linear layer of vLLM a `Float32Linear`."""
    layer.weight.data = layer.weight.data.float()
    layer.quant_method = Float32Linear()
