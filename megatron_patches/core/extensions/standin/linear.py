# SPDX-License-Identifier: Apache-2.0
"""Linear layers under Transformer Engine's names, on top of Megatron-core's own tensor-parallel linears."""

# NPU-ADAPTATION: Transformer Engine's linear layers on Megatron-core's own

from __future__ import annotations

from typing import Any

import torch
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear

from megatron_patches.core.extensions.standin.norm import norm_weight, require_rms_norm, rms_norm
from megatron_patches.core.extensions.standin.refusal import refuse, refuse_comm_overlap, refuse_fp8


def _check(name: str, config: Any) -> None:
    refuse_fp8(name, config)
    refuse_comm_overlap(name, config)


class TEColumnParallelLinear(ColumnParallelLinear):
    """y = x Wᵀ (+ b), W split over its output rows; parameter `weight` [output / TP, input]."""

    def __init__(self, input_size: int, output_size: int, *, config: Any, **kwargs: Any) -> None:
        _check(type(self).__name__, config)
        if kwargs.get("gather_output"):
            refuse(type(self).__name__, "gather_output=True", "Transformer Engine's linears keep their output split")
        super().__init__(input_size, output_size, config=config, **kwargs)


class TERowParallelLinear(RowParallelLinear):
    """y = x Wᵀ (+ b), W split over its input columns; parameter `weight` [output, input / TP]."""

    def __init__(self, input_size: int, output_size: int, *, config: Any, **kwargs: Any) -> None:
        _check(type(self).__name__, config)
        if not kwargs.get("input_is_parallel", False):
            refuse(type(self).__name__, "input_is_parallel=False", "Transformer Engine's row linears take split input")
        super().__init__(input_size, output_size, config=config, **kwargs)


class TELayerNormColumnParallelLinear(TEColumnParallelLinear):
    """RMSNorm, then a column-parallel linear; parameters `layer_norm_weight` [input], `weight` [output / TP, input]."""

    def __init__(self, input_size: int, output_size: int, *, config: Any, **kwargs: Any) -> None:
        require_rms_norm(type(self).__name__, config)
        super().__init__(input_size, output_size, config=config, **kwargs)
        self.layer_norm_weight = norm_weight(config, input_size)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[s, b, input] -> ([s, b, output / TP], bias or None)."""
        normed = rms_norm(
            x, self.layer_norm_weight, self.config.layernorm_epsilon, self.config.layernorm_zero_centered_gamma
        )
        return super().forward(normed, *args, **kwargs)
