# SPDX-License-Identifier: Apache-2.0
"""Megatron-core's fused pointwise functions run eagerly where no compiler for the NPU is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megatron_patches.environment import plain_megatron_on_npu
from recipe.overlay import patch


@patch(
    "megatron.core.jit:jit_fuser",
    kind="replace",
    why="it is torch.compile, whose default backend has no code generator for npu tensors; MindSpeed turns it off "
    "the same way",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:784dd7d0c0d721b5d03ccde95718aee207490f375234f57f74376ed5fc6da1ec",
    remove_when="every machine this runs on has MindSpeed",
    when=plain_megatron_on_npu,
)
def jit_fuser(function: Callable[..., Any]) -> Callable[..., Any]:  # NPU-ADAPTATION: no compiler for the NPU here
    """The function itself."""
    return function
