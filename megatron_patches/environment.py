# SPDX-License-Identifier: Apache-2.0
"""Which of the optional companions of Megatron-core are installed, asked without importing any of them."""

# NPU-ADAPTATION: where our modules step aside for those of Transformer Engine or MindSpeed

from __future__ import annotations

import importlib.util

from recipe.overlay import Condition


def installed(name: str) -> bool:
    """Whether a package of that name can be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _plain() -> bool:
    return not (installed("transformer_engine") or installed("mindspeed"))


def _plain_on_npu() -> bool:
    return installed("torch_npu") and _plain()


def _torch_optimizer() -> bool:
    # MindSpeed puts an empty module of that name where there is none.
    return installed("mindspeed") or not installed("transformer_engine")


plain_megatron = Condition(
    _plain, otherwise="Transformer Engine or MindSpeed is installed, and brings modules of its own"
)
plain_megatron_on_npu = Condition(
    _plain_on_npu,
    otherwise="torch_npu is not installed; or MindSpeed or Transformer Engine is, and brings modules of its own",
)
without_transformer_engine = Condition(
    _torch_optimizer, otherwise="Transformer Engine is installed, whose Adam Megatron-core saves and loads by itself"
)

# Version of Transformer Engine whose optional features the stand-ins answer for: 1.10 brought k and v channels of
# different size and the softmax scale; from 2.0 on Megatron-core would look for FP8 tensor classes.
TRANSFORMER_ENGINE_VERSION = "1.13.0"
