# SPDX-License-Identifier: Apache-2.0
"""What a model asks of the dies for each token: the counts that the time of a step is estimated from.

Those of DeepSeek-V3 follow from its sizes. Other families are here for the published steps alone, counted from their
sizes without norms (less than 0.01 %); the rest of the plan does not know them.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipe.plan.parameters import BF16, actor_parameters
from recipe.runfile.architecture import KNOWN, Architecture


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
        source: where the sizes are from.
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
    source: str

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


def counts_of(model: Architecture) -> Counts:
    """The counts of a DeepSeek-V3; tensor parallelism does not split the cache of multi-latent attention."""
    tensors = actor_parameters(model, 0, model.layers, tensor=1, expert=1, first=False, last=True)
    experts = sum(tensor.elements for tensor in tensors if tensor.expert)
    rest = sum(tensor.elements for tensor in tensors if not tensor.expert)
    return Counts(
        layers=model.layers,
        moe_layers=model.moe_layers,
        hidden=model.hidden,
        experts_per_token=model.experts_per_token,
        active_parameters=rest + experts * model.experts_per_token / model.experts,
        expert_parameters=experts,
        other_parameters=rest + model.vocabulary * model.hidden,
        attention_width=model.heads * (model.qk_nope_head_dim + model.qk_rope_head_dim + model.v_head_dim),
        cache_bytes=(model.kv_lora_rank + model.qk_rope_head_dim) * BF16 * model.layers,
        cache_shards=1,
        source="config.json",
    )


def _mixture(
    *,
    layers: int,
    dense_layers: int,
    hidden: int,
    vocabulary: int,
    attention: int,
    attention_width: int,
    dense_width: int,
    expert_width: int,
    experts: int,
    experts_per_token: int,
    shared_experts: int,
    cache_bytes: int,
    cache_shards: int,
    source: str,
) -> Counts:
    """Counts of a model whose layers are attention (of so many parameters) and gated experts."""
    moe_layers, gated = layers - dense_layers, 3 * hidden
    rest = (
        layers * attention
        + dense_layers * gated * dense_width
        + moe_layers * (hidden * experts + gated * shared_experts * expert_width)
        + vocabulary * hidden
    )
    routed = moe_layers * gated * expert_width * experts
    return Counts(
        layers=layers,
        moe_layers=moe_layers,
        hidden=hidden,
        experts_per_token=experts_per_token,
        active_parameters=rest + routed * experts_per_token / experts,
        expert_parameters=routed,
        other_parameters=rest + vocabulary * hidden,
        attention_width=attention_width,
        cache_bytes=cache_bytes,
        cache_shards=cache_shards,
        source=source,
    )


def _grouped_query(layers: int, hidden: int, heads: int, expert_width: int, source: str) -> Counts:
    """Counts of a Qwen3 mixture: grouped-query attention with 4 key-value heads of 128, 8 of 128 experts a token."""
    kv_heads, head = 4, 128
    return _mixture(
        layers=layers,
        dense_layers=0,
        hidden=hidden,
        vocabulary=151936,
        attention=hidden * head * (heads + 2 * kv_heads) + heads * head * hidden,
        attention_width=heads * 2 * head,
        dense_width=0,
        expert_width=expert_width,
        experts=128,
        experts_per_token=8,
        shared_experts=0,
        cache_bytes=2 * kv_heads * head * BF16 * layers,
        cache_shards=kv_heads,
        source=source,
    )


DEEPSEEK_V3 = counts_of(KNOWN["deepseek_v3_671b"])
QWEN3_235B = _grouped_query(94, 4096, 64, 1536, "Ascend/MindSpeed-RL configs/model/qwen3_235b_a22b.yaml (05a90d7)")
QWEN3_30B = _grouped_query(48, 2048, 32, 768, "Ascend/MindSpeed-RL configs/model/qwen3_30b_a3b.yaml (05a90d7)")
# Multi-latent attention whose queries have no down projection: hidden -> 16 heads of 128 + 64.
MOONLIGHT_16B = _mixture(
    layers=27,
    dense_layers=1,
    hidden=2048,
    vocabulary=163840,
    attention=2048 * 16 * (128 + 64) + 2048 * (512 + 64) + 512 * 16 * (128 + 128) + 16 * 128 * 2048,
    attention_width=16 * (128 + 64 + 128),
    dense_width=11264,
    expert_width=1408,
    experts=64,
    experts_per_token=6,
    shared_experts=2,
    cache_bytes=(512 + 64) * BF16 * 27,
    cache_shards=1,
    source="slime scripts/models/moonlight.sh (zyzshishui/slime, e0be9a0)",
)
