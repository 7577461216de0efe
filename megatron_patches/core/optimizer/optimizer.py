# SPDX-License-Identifier: Apache-2.0
"""The mixed-precision optimizer accepts npu parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recipe.overlay import patch

from megatron_patches.core.optimizer.cuda_type_names import cuda_type_names
from megatron_patches.environment import plain_megatron_on_npu


@patch(
    "megatron.core.optimizer.optimizer:Float16OptimizerWithFloat16Params.__init__",
    why="it compares Tensor.type() with the names of CUDA tensors; MindSpeed maps the names, without it every npu "
    "parameter is refused",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:290098b0b19103e6686a2d4c98d9f22449a98081760d6794e0654069b8bb7273",
    remove_when="Megatron-core compares dtypes, or every machine this runs on has MindSpeed",
    when=plain_megatron_on_npu,
)
def float16_optimizer_init(  # NPU-ADAPTATION: npu parameters pass for CUDA ones while the groups are built
    original: Callable[..., None], self: Any, *args: Any, **kwargs: Any
) -> None:
    """Build the optimizer's parameter groups."""
    with cuda_type_names():
        original(self, *args, **kwargs)
