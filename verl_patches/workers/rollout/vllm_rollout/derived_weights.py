# SPDX-License-Identifier: Apache-2.0
"""Tensors that attention layers compute from their weights: rebuilt after each weight sync, freed on release.

MLA decodes with `W_UK_T` and `W_UV`, made once from `kv_b_proj` when the model is loaded. verl's weight sync does not
remake them, so decoding would go on with the first step's projections.
"""

# NPU-ADAPTATION: MLA's projections are remade after each weight sync and freed on release

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

# Attributes of an MLA attention implementation that hold tensors derived from weights.
DERIVED = ("W_UV", "W_UK_T")


def rebuild_derived_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Let every attention implementation recompute what it derives from its weights, for activations of `dtype`."""
    for module, _ in _implementations(model):
        module.process_weights_after_loading(dtype)


def free_derived_weights(model: nn.Module) -> None:
    """Drop the derived tensors; using the layer before the next rebuild then fails instead of using old values."""
    for _, implementation in _implementations(model):
        for name in DERIVED:
            if getattr(implementation, name, None) is not None:
                setattr(implementation, name, None)


def _implementations(model: nn.Module) -> Iterator[tuple[Any, Any]]:
    """Pairs of vLLM `Attention` module and implementation, of those that derive tensors from weights.

    The whole-model post-processing of vLLM's loader is not used: on this stack it would wrap the expert weights in new
    Parameters, which lose their loaders.
    """
    for module in model.modules():
        implementation = getattr(module, "impl", None)
        if hasattr(module, "process_weights_after_loading") and hasattr(
            implementation, "process_weights_after_loading"
        ):
            yield module, implementation
