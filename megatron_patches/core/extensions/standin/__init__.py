# SPDX-License-Identifier: Apache-2.0
"""Plain-torch modules under the names of `megatron.core.extensions.transformer_engine`.

Megatron-core asks that module for the layers of verl's model, and verl's weight converter and the checkpoints depend
on the parameter names those layers give. Where Transformer Engine is absent, this package takes the module's place:
same class names, same constructor arguments, same parameter names, same sharded checkpoint entries.

Names that Megatron-core imports in optional groups (fused RoPE, fused permutation, FP8 padding) are absent on purpose:
Megatron-core then takes its own unfused path. What cannot be stood in for is refused by name when it is used.
"""

# NPU-ADAPTATION: the names that Megatron-core asks Transformer Engine for

from __future__ import annotations

from megatron_patches.core.extensions.standin.attention import TEDotProductAttention
from megatron_patches.core.extensions.standin.grouped import (
    TEColumnParallelGroupedLinear,
    TEGroupedLinear,
    TERowParallelGroupedLinear,
)
from megatron_patches.core.extensions.standin.linear import (
    TEColumnParallelLinear,
    TELayerNormColumnParallelLinear,
    TERowParallelLinear,
)
from megatron_patches.core.extensions.standin.norm import TENorm
from megatron_patches.core.extensions.standin.refusal import refused

TELinear = refused("TELinear", "the duplicated (not sharded) linear layer")
TEDelayedScaling = refused("TEDelayedScaling", "FP8 training")
TECudaRNGStatesTracker = refused("TECudaRNGStatesTracker", "Transformer Engine's random number tracker")
te_checkpoint = refused("te_checkpoint", "FP8 activation checkpointing")
SplitAlongDim = None
get_cpu_offload_context = None
te_parallel_cross_entropy = None

__all__ = [
    "SplitAlongDim",
    "TEColumnParallelGroupedLinear",
    "TEColumnParallelLinear",
    "TECudaRNGStatesTracker",
    "TEDelayedScaling",
    "TEDotProductAttention",
    "TEGroupedLinear",
    "TELayerNormColumnParallelLinear",
    "TELinear",
    "TENorm",
    "TERowParallelGroupedLinear",
    "TERowParallelLinear",
    "get_cpu_offload_context",
    "te_checkpoint",
    "te_parallel_cross_entropy",
]
