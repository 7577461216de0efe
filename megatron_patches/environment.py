# SPDX-License-Identifier: Apache-2.0
"""Which of the optional companions of Megatron-core are installed, asked without importing any of them."""

from __future__ import annotations

import importlib.util


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def plain_megatron() -> bool:
    """neither Transformer Engine nor MindSpeed is installed, so Megatron-core has no NPU modules of its own"""
    return not (_installed("transformer_engine") or _installed("mindspeed"))


def plain_megatron_on_npu() -> bool:
    """torch_npu is installed and neither Transformer Engine nor MindSpeed is"""
    return _installed("torch_npu") and plain_megatron()


def without_transformer_engine() -> bool:
    """Transformer Engine is installed, whose Adam Megatron-core saves and loads by itself"""
    # MindSpeed puts an empty module of that name where there is none.
    return _installed("mindspeed") or not _installed("transformer_engine")


# Version of Transformer Engine whose optional features the stand-ins answer for: 1.10 brought k and v channels of
# different size and the softmax scale; from 2.0 on Megatron-core would look for FP8 tensor classes.
TRANSFORMER_ENGINE_VERSION = "1.13.0"
