# SPDX-License-Identifier: Apache-2.0
"""The router's expert bias stays in float32 when the model is cast to bf16, and the logits leave it in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from megatron.core.transformer.module import conversion_helper

from recipe.overlay import patch


@patch(
    "megatron.core.transformer.module:Float16Module.__init__",
    why="the cast to bf16 takes the router's expert_bias with it, and loading a checkpoint then rounds the float32 "
    "values to bf16 without a word (relative error up to 3e-3); the router itself restores float32 only later, in its "
    "first forward",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:f28842a3094030a58e7fe1c57622913354f3130712bfc03df736e8f63151a26c",
    remove_when="Megatron-core restores the float32 expert bias before a checkpoint is loaded",
    over=("mindspeed",),
)
def float16_module_init(  # NPU-ADAPTATION: expert_bias is float32 before any checkpoint is loaded
    original: Callable[..., None], self: Any, *args: Any, **kwargs: Any
) -> None:
    """Cast the model, then restore float32 in every router."""
    original(self, *args, **kwargs)
    for module in self.modules():
        if (maintain := getattr(module, "_maintain_float32_expert_bias", None)) is not None:
            maintain()


@patch(
    "megatron.core.transformer.module:float16_to_fp32",
    why="it looks for the tensor types of CPU and CUDA as they were when Megatron was imported, so that the logits of "
    "an npu model leave it in bf16: they are divided by the temperature and summed up to the entropy in bf16",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:1d1dc16f9494ea8d2f724bba09f38da8b4bf855096a6a655cc4fd2a6e2109f9a",
    remove_when="Megatron-core compares dtypes",
    over=("mindspeed",),
)
def float16_to_fp32(original: Callable[..., Any], val: Any) -> Any:
    # NPU-ADAPTATION: by dtype, wherever the tensor is
    """`val`, a tensor or nested tuples and lists of tensors and others, with float32 for half precision."""

    def float32(value: Any) -> Any:
        half = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
        return value.float() if half else value

    return conversion_helper(original(val), float32)
