# SPDX-License-Identifier: Apache-2.0
"""The actor's parameters and buffers on the dies of a pipeline stage; the reference is laid out in the same way."""

from __future__ import annotations

from recipe.plan import parameters, shards
from recipe.plan.parameters import Parameter
from recipe.plan.subject import Subject


def stage_tensors(run: Subject, stage: int) -> tuple[Parameter, ...]:
    """The actor's parameters on a die of a stage."""
    layout = run.layout
    return parameters.actor_parameters(
        run.model,
        run.stage_start(stage),
        layout.stage_layers[stage],
        tensor=layout.actor_tensor,
        expert=layout.actor_expert,
        first=stage == 0,
        last=stage == layout.actor_pipeline - 1,
    )


def stage_buffers(run: Subject, stage: int) -> shards.Buffers:
    """The actor's buffers on a die of a stage."""
    return shards.buffers(stage_tensors(run, stage), run.layout.actor_data, run.layout.expert_data)
