# SPDX-License-Identifier: Apache-2.0
"""The layers of a stage are numbered behind those that the run file lists for the stages before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megatron.core import parallel_state

from megatron_patches.core.stage_layers import layers_before, listed
from recipe.overlay import patch


@patch(
    "megatron.core.transformer.transformer_layer:get_transformer_layer_offset",
    why="a layer's number follows from the first and last stage's layers alone, with MindSpeed too, which builds any "
    "list of stages: where others differ, layers take the places of others in a checkpoint",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:a9767868c3f18497ad32e5851ce2409d8f80bf9ee2dd51290288c7306ef3d441",
    remove_when="the pin has Megatron-core's pipeline_model_parallel_layout, and verl hands it on",
    when=listed,
)
def get_transformer_layer_offset(original: Callable[..., int], config: Any) -> int:
    # NPU-ADAPTATION: behind the layers listed for the stages before
    return layers_before(parallel_state.get_pipeline_model_parallel_rank(), config)
