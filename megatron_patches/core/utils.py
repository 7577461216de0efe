# SPDX-License-Identifier: Apache-2.0
"""The version of Transformer Engine that Megatron-core sees when the stand-ins take its place."""

from __future__ import annotations

from collections.abc import Callable

from packaging.version import Version

from megatron_patches.environment import TRANSFORMER_ENGINE_VERSION, plain_megatron
from recipe.overlay import patch


@patch(
    "megatron.core.utils:get_te_version",
    why="Megatron-core asks for the version of Transformer Engine to choose layers, and fails where it is "
    "not installed",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:ec264fe239943fe857e1578f3c22e2e54af2e390fae71c01aa7a81ce099c19bd",
    remove_when="every machine this runs on has MindSpeed or Transformer Engine",
    when=plain_megatron,
    aliases=(
        "megatron.core.models.gpt.moe_module_specs:get_te_version",
        "megatron.core.transformer.transformer_config:get_te_version",
    ),
)
def get_te_version(original: Callable[[], Version]) -> Version:  # NPU-ADAPTATION: the version the stand-ins answer for
    """The version whose optional features the stand-ins have."""
    return Version(TRANSFORMER_ENGINE_VERSION)
