# SPDX-License-Identifier: Apache-2.0
"""Plain-torch stand-ins in the place of Megatron-core's Transformer Engine extension, where that is not installed."""

from __future__ import annotations

from types import ModuleType

from megatron_patches.environment import plain_megatron
from recipe.overlay import patch


@patch(
    "megatron.core.extensions:transformer_engine",
    kind="submodule",
    why="without Transformer Engine Megatron-core falls back to modules with other parameter names, an attention that "
    "refuses MLA, and grouped experts that need the grouped_gemm package; verl's weight converter wants the names",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:dfb89bf0184859d89e7c65057720df067170dd32652348f739a4e72df18f1321",
    remove_when="every machine this runs on has MindSpeed or Transformer Engine",
    when=plain_megatron,
)
def transformer_engine() -> ModuleType:  # NPU-ADAPTATION: plain-torch modules behind Transformer Engine's names
    """The module that takes the place of megatron.core.extensions.transformer_engine."""
    from megatron_patches.core.extensions import standin

    return standin
