# SPDX-License-Identifier: Apache-2.0
"""The sampler's choices of experts, where the trainer replays them: what they take on a node, and how far they go.

Each answer's are one object of Ray's store, without padding, on the node that sampled it and on every node with a die
of the data-parallel rank that trains it (verl_patches/routing_replay.py). The batch that goes through the driver holds
references alone.
"""

from __future__ import annotations

from recipe.models.architecture import Architecture
from recipe.plan.subject import Subject
from recipe.runfile.schema import REPLAY_ROLLOUT

KIND = "choices of experts"


def replayed(run: Subject) -> bool:
    """Whether there are any."""
    return run.config.train.routing_replay == REPLAY_ROLLOUT


def bytes_per_token(model: Architecture) -> int:
    """Of one token: a number for each expert that it goes to, in each layer with experts."""
    return model.moe_layers * model.experts_per_token * (1 if model.experts <= 256 else 2)


def fetched_bytes(run: Subject, tokens: float) -> float:
    """What a node fetches in a step, for answers of so many tokens, prompts included.

    Ranks fill a node in order, tensor-parallel ones first, then data-parallel ones. That some of the answers were
    sampled on the node itself is left out.
    """
    layout, dies = run.layout, run.config.cluster.dies_per_node
    ranks = min(max(1, dies // layout.actor_tensor), layout.actor_data)
    return ranks * layout.actor_sequences_per_rank * tokens * bytes_per_token(run.model)


def stored_bytes(run: Subject) -> int:
    """What a node holds at most: its engines' answers and those that it trains, all of them at their longest."""
    layout, dies = run.layout, run.config.cluster.dies_per_node
    sampled = dies * layout.rollout_sequences_per_engine // layout.rollout_tensor
    tokens = run.sequence_tokens - 1  # the last of an answer has none
    return sampled * tokens * bytes_per_token(run.model) + int(fetched_bytes(run, tokens))
