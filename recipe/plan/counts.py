# SPDX-License-Identifier: Apache-2.0
"""What a model asks of the dies for each token: the counts that the time of a step is estimated from."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from recipe.models.architecture import Architecture
from recipe.plan.parameters import BF16, actor_parameters


@dataclass(frozen=True)
class Counts:
    """A model as its speed depends on it.

    Attributes:
        layers, moe_layers: all layers, and those with routed experts.
        hidden: width of a hidden state, elements.
        experts_per_token: routed experts that a token is sent to in each of `moe_layers`.
        active_parameters: that one token is multiplied with: all but the embedding and the experts it is not sent to.
        expert_parameters, other_parameters: of all routed experts, and everything else with the embedding.
        attention_width: heads times the widths of a key and a value, elements.
        cache_bytes: of a token in the KV cache, all layers.
        cache_shards: the largest number of dies of an engine that tensor parallelism can split the cache over.
    """

    layers: int
    moe_layers: int
    hidden: int
    experts_per_token: int
    active_parameters: float
    expert_parameters: float
    other_parameters: float
    attention_width: int
    cache_bytes: int
    cache_shards: int

    def forward_flops(self, tokens: float, sequence: float) -> float:
        """Floating point operations of a forward pass: 2 per active parameter and token, and those of causal attention.

        A query of a sequence of s meets s/2 keys on the average, in products as wide as a key and as a value.
        """
        return tokens * (2 * self.active_parameters + 2 * self.layers * self.attention_width * sequence / 2)

    def weight_bytes(self, tensor: int, expert: int) -> float:
        """Bytes of weights on a die of an engine whose routed experts are spread over `expert` dies."""
        return BF16 * (self.other_parameters / tensor + self.expert_parameters / expert)

    def to_experts_bytes(self, tokens: float, tensor: int, expert: int) -> float:
        """Bytes that a die of an engine sends to experts, and back from its own, for so many tokens of the engine.

        Args:
            tokens: that the engine computes.
            tensor: dies of the engine, which share them.
            expert: dies that exchange tokens for their experts; 1: none do.
        """
        state = tokens / tensor * self.hidden * BF16
        return state * self.moe_layers * self.experts_per_token * 2 * (1 - 1 / expert)

    def reduced_bytes(self, tokens: float, tensor: int) -> float:
        """Bytes that a die of an engine sends in two all-reduces a layer, for so many tokens of the engine."""
        return 2 * tokens * self.hidden * BF16 * 2 * self.layers * (1 - 1 / tensor)


@functools.cache
def counts_of(model: Architecture) -> Counts:
    """The counts of a model."""
    tensors = actor_parameters(model, 0, model.layers, tensor=1, expert=1, first=True, last=True)
    experts = sum(tensor.elements for tensor in tensors if tensor.expert)
    rest = sum(tensor.elements for tensor in tensors if not tensor.expert)
    # A token's row of the embedding is looked up; tied, all of it is multiplied with as the output layer.
    multiplied = rest - (0 if model.tied else model.vocabulary * model.hidden)
    return Counts(
        layers=model.layers,
        moe_layers=model.moe_layers,
        hidden=model.hidden,
        experts_per_token=model.experts_per_token,
        active_parameters=multiplied + (experts * model.experts_per_token / model.experts if experts else 0),
        expert_parameters=experts,
        other_parameters=rest,
        attention_width=model.heads * (model.key_width + model.value_width),
        cache_bytes=model.cache_width(1) * BF16 * model.layers,
        cache_shards=model.cache_shards,
    )
