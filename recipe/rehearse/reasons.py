# SPDX-License-Identifier: Apache-2.0
"""Why plan and rehearsal differ where they do and the reason is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from recipe.plan.saving import FROM_HOST
from recipe.rehearse.comparison import Pair
from recipe.rehearse.subject import Rehearsed


def reasons(
    run: Rehearsed, memory: Mapping[int, Mapping[str, Pair]], saving: Mapping[int, Mapping[str, Pair]]
) -> Iterator[str]:
    """A sentence for each known reason of a difference that is marked.

    Args:
        run: what was rehearsed.
        memory, saving: what `compare_memory` and `compare_saving` give.
    """
    off = [(phase, pair) for phases in memory.values() for phase, pair in phases.items() if pair.is_off]
    higher = {phase for phase, pair in off if pair.planned > pair.counted}
    if "update" in higher and any(run.update_micro_batches(stage) < run.in_flight(stage) for stage in memory):
        yield "update: the plan has as many micro-batches in flight as a step of the run, more than were asked for here"
    if "rollout" in higher:
        yield "rollout: planned is a step with as many tokens as the engine may take at once; its scheduler took fewer"
    if any(pairs[FROM_HOST].is_off for pairs in saving.values()):
        yield (
            "checkpoint: a die copies the gate and up projections that its own range of the optimizer has; planned is "
            "the average of a stage's dies"
        )
    if off and not run.planned.model.as_published:
        yield "a model this small: what does not grow with it counts: tables, masks, the allocator's step of 512 bytes"
