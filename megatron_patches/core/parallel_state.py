# SPDX-License-Identifier: Apache-2.0
"""Megatron-core's `torch.cuda` calls reach the NPU once its process groups are made."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from megatron_patches.environment import plain_megatron_on_npu
from recipe.overlay import patch


@patch(
    "megatron.core.parallel_state:initialize_model_parallel",
    why="Megatron-core speaks torch.cuda; MindSpeed maps it to torch.npu on import, and without MindSpeed nobody does. "
    "It may only happen after verl.utils.device has looked for CUDA, which it would then find",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:e5f47507fa58f82f2acb00d27a4869a177235771492538f41b35883f6f8aa300",
    remove_when="every machine this runs on has MindSpeed",
    when=plain_megatron_on_npu,
)
def initialize_model_parallel(  # NPU-ADAPTATION: torch.cuda means torch.npu from here on
    original: Callable[..., None], *args: Any, **kwargs: Any
) -> None:
    """Activate torch_npu.contrib.transfer_to_npu in this process, then make the groups."""
    importlib.import_module("verl.utils.device")
    importlib.import_module("torch_npu.contrib.transfer_to_npu")
    original(*args, **kwargs)
