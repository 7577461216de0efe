# SPDX-License-Identifier: Apache-2.0
"""Gradient clipping accepts npu gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megatron_patches.core.optimizer.cuda_type_names import cuda_type_names
from megatron_patches.environment import plain_megatron_on_npu
from recipe.overlay import patch


@patch(
    "megatron.core.optimizer.clip_grads:clip_grad_by_total_norm_fp32",
    why="it compares Tensor.type() with the names of CUDA tensors; MindSpeed maps the names, without it every npu "
    "parameter is refused",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:6dc074a0bc4c0053f0554f5ad1573a58355cc316bcab672084b4717af485a39b",
    remove_when="Megatron-core compares dtypes, or every machine this runs on has MindSpeed",
    when=plain_megatron_on_npu,
    aliases=("megatron.core.optimizer.optimizer:clip_grad_by_total_norm_fp32",),
)
def clip_grad_by_total_norm_fp32(  # NPU-ADAPTATION: npu gradients pass for CUDA ones while they are scaled
    original: Callable[..., None], *args: Any, **kwargs: Any
) -> None:
    """Scale the gradients down to the norm asked for."""
    with cuda_type_names():
        original(*args, **kwargs)
