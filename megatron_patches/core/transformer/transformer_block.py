# SPDX-License-Identifier: Apache-2.0
"""A stage builds as many layers as the run file lists for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megatron.core import parallel_state

from megatron_patches.core.stage_layers import layers_of, listed_without_mindspeed
from recipe.overlay import patch


@patch(
    "megatron.core.transformer.transformer_block:get_num_layers_to_build",
    why="only the first and the last stage may differ from the others: a list such as 7, 7, 8, 8, 8, 8, 8, 7, which is "
    "published for this model, cannot be asked for",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:39bd0b54b9400e2d36c41e1204485e68929b5798e2f8b0fadd5847fae167a0cc",
    remove_when="the pin has Megatron-core's pipeline_model_parallel_layout, and verl hands it on",
    when=listed_without_mindspeed,
)
def get_num_layers_to_build(original: Callable[..., int], config: Any) -> int:
    # NPU-ADAPTATION: as many layers as are listed for the stage
    return layers_of(parallel_state.get_pipeline_model_parallel_rank(), config)
