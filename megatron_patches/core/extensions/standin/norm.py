# SPDX-License-Identifier: Apache-2.0
"""RMSNorm under Transformer Engine's name, computed in float32."""

# NPU-ADAPTATION: Transformer Engine's RMSNorm in plain torch

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from megatron_patches.core.extensions.standin.refusal import refuse


def parameter_device(config: Any) -> torch.device | int:
    """Where a module of this configuration puts its parameters: the host, or the current accelerator (its number)."""
    return torch.device("cpu") if config.use_cpu_initialization else torch.cuda.current_device()


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, zero_centered: bool) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019), in float32.

    Args:
        x: [..., n], any floating dtype.
        weight: [n]; the gain is 1 + weight when zero_centered.

    Returns:
        [..., n] in the dtype of x.
    """
    gain = weight.float()
    if zero_centered:
        gain = gain + 1.0
    return F.rms_norm(x.float(), (x.shape[-1],), gain, eps).to(x.dtype)


def norm_weight(config: Any, size: int) -> torch.nn.Parameter:
    """The gain of an RMSNorm of the given size, [size], neutral at the start."""
    fill = 0.0 if config.layernorm_zero_centered_gamma else 1.0
    weight = torch.nn.Parameter(torch.full((size,), fill, dtype=config.params_dtype, device=parameter_device(config)))
    # Megatron-core sums the gradients of marked parameters over the tensor-parallel ranks.
    weight.sequence_parallel = config.sequence_parallel
    return weight


def require_rms_norm(name: str, config: Any) -> None:
    """Refuse every normalisation except RMSNorm."""
    if config.normalization != "RMSNorm":
        refuse(name, f"normalization={config.normalization!r}", "only 'RMSNorm' is stood in for")


class TENorm(torch.nn.Module):
    """RMSNorm; parameter `weight` [hidden_size]."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        require_rms_norm("TENorm", config)
        self.eps = eps
        self.zero_centered = config.layernorm_zero_centered_gamma
        self.weight = norm_weight(config, hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden_size] -> the same shape and dtype."""
        return rms_norm(x, self.weight, self.eps, self.zero_centered)
