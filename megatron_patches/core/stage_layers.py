# SPDX-License-Identifier: Apache-2.0
"""Any list of layers for the pipeline stages, given by the run file where Megatron-core's two keys cannot say it.

Megatron-core 0.12.1 and verl 0.6.1 know the layers of the first and of the last stage, and divide the others evenly.
"""

# NPU-ADAPTATION: pipeline stages of as many layers as the run file lists

from __future__ import annotations

import os
from typing import Any

from megatron_patches.environment import installed
from recipe.overlay import Condition

OPTION = "RECIPE_STAGE_LAYERS"


def listed_layers() -> tuple[int, ...]:
    """Layers of each pipeline stage; empty where the two keys say it."""
    return tuple(int(layers) for layers in os.environ.get(OPTION, "").split(",") if layers)


def layers_of(stage: int, config: Any) -> int:
    """Layers of a pipeline stage, counted from 0, of the model of this TransformerConfig."""
    return _checked(config)[stage]


def layers_before(stage: int, config: Any) -> int:
    """Layers of all stages before this one together: the number of its first layer, from 0."""
    return sum(_checked(config)[:stage])


def _checked(config: Any) -> tuple[int, ...]:
    layers, stages = listed_layers(), config.pipeline_model_parallel_size
    if (sum(layers), len(layers)) != (config.num_layers, stages):
        raise ValueError(
            f"{OPTION} lists {len(layers)} stages of {sum(layers)} layers together; the model has {config.num_layers} "
            f"layers on {stages} stages"
        )
    if config.virtual_pipeline_model_parallel_size is not None:
        raise ValueError(f"{OPTION} is for stages without virtual ones")
    return layers


def _without_mindspeed() -> bool:
    return bool(listed_layers()) and not installed("mindspeed")


listed = Condition(
    lambda: bool(listed_layers()), otherwise="Megatron-core's own keys say the layers of actor.stage_layers"
)
listed_without_mindspeed = Condition(
    _without_mindspeed,
    otherwise="Megatron-core's own keys say the layers of actor.stage_layers; or MindSpeed is installed, and told them",
)
