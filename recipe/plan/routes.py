# SPDX-License-Identifier: Apache-2.0
"""The routes of a run's weight sync in which a die is sent what it lacks, and nothing else."""

from __future__ import annotations

from recipe.plan.subject import Subject
from verl_patches.utils.routes.layouts import ActorLayout, RolloutLayout
from verl_patches.utils.routes.routes import BUFFER_BYTES, Routes


def routes_of(run: Subject, buffer_bytes: int = BUFFER_BYTES) -> Routes:
    """The routes between the actor's layout and the rollout's.

    Args:
        run: the run.
        buffer_bytes: the most that a die sends and receives at a time.

    Raises:
        LayoutError: sizes that the run file's own rules let through, but that do not go together.
    """
    layout = run.layout
    return Routes(
        run.model,
        ActorLayout(layout.dies, layout.actor_tensor, layout.actor_expert, layout.stage_layers),
        RolloutLayout(layout.dies, layout.rollout_tensor, layout.rollout_instances),
        buffer_bytes,
    )
