# SPDX-License-Identifier: Apache-2.0
"""The sampler's choices of experts on their way to the trainer: a column of verl's batch.

Each answer's choices are one object of Ray's store, and the column holds references, so the driver, which repeats,
reorders and splits the batch, never has the choices themselves, and a node that needs an answer fetches it once for all
of its dies. Nothing is padded. A tensor of the batch would be padded to the longest sequence, would go through the
driver with every pass, and verl would bring all of it to the dies and broadcast it over the pipeline's stages.
"""

# NPU-ADAPTATION: the rollout's choices of experts, for the trainer's routers

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from recipe.overlay import Condition

OPTION = "RECIPE_ROUTING_REPLAY"
# In verl's `non_tensor_batch`: for each answer a KeptChoices.
COLUMN = "routed_experts"

# The experts that each router of a model chose for each token, [tokens, layers with experts, experts per token].
Choices = np.ndarray


def asked_for() -> bool:
    """Whether this run's trainer replays the rollout's choices."""
    return os.environ.get(OPTION, "off") == "rollout"


replayed = Condition(asked_for, otherwise='train.routing_replay is "off": the trainer\'s routers choose by themselves')


class KeptChoices:
    """One answer's choices: in Ray's object store; where there is no Ray, the array itself."""

    # No sequence, so that an array of them is an array of objects, however it is made.
    __slots__ = ("_held",)

    def __init__(self, choices: Choices) -> None:
        import ray

        self._held = ray.put(choices) if ray.is_initialized() else choices


def column_of(choices: Iterable[Choices]) -> np.ndarray:
    """The column for a batch of answers, [answers]; the choices of one are put away before the next are asked for."""
    kept = [KeptChoices(one) for one in choices]
    column = np.empty(len(kept), dtype=object)
    column[:] = kept
    return column


def choices_in(column: np.ndarray) -> list[Choices]:
    """The choices of each answer of a column; read-only where they lie in Ray's store."""
    held: list[Any] = [kept._held for kept in column]
    if all(isinstance(one, np.ndarray) for one in held):
        return held
    import ray

    found: list[Choices] = ray.get(held)
    return found
