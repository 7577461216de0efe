# SPDX-License-Identifier: Apache-2.0
"""The sizes of a model, as all that depends on them counts with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What the models of all families have.

    Attributes:
        layers, dense_layers: all, and the first ones that have one MLP in the place of experts.
        hidden, heads, vocabulary: width of a hidden state, query heads, tokens.
        dense_intermediate, moe_intermediate: width of the MLP of a dense layer, and of one expert.
        experts, shared_experts, experts_per_token: of a layer that has any; routed ones, those of every token, and the
            routed ones that a token goes to.
        expert_groups, expert_groups_kept: that a token's experts are chosen within; 1: there are no groups.
        correction_bias: the router chooses by scores with a bias for each expert.
        tied: the output layer's weights are those of the embedding.
        max_positions: of the longest sequence.
    """

    layers: int
    dense_layers: int
    hidden: int
    heads: int
    dense_intermediate: int
    moe_intermediate: int
    experts: int
    shared_experts: int
    experts_per_token: int
    expert_groups: int
    expert_groups_kept: int
    correction_bias: bool
    vocabulary: int
    max_positions: int
    tied: bool

    #: vLLM-Ascend 0.9.1 decodes it in compiled graphs.
    has_graphs: ClassVar[bool] = False
    #: The routes of the direct weight sync know its tensors (verl_patches/utils/routes/tensors.py).
    has_routes: ClassVar[bool] = False

    @property
    def moe_layers(self) -> int:
        return self.layers - self.dense_layers

    @property
    def key_width(self) -> int:
        """Elements of a head's query, and of its key."""
        raise NotImplementedError

    @property
    def value_width(self) -> int:
        """Elements of a head's value."""
        raise NotImplementedError

    @property
    def key_heads(self) -> int:
        """Keys and values of a token that attention is computed with."""
        raise NotImplementedError

    @property
    def rotary_width(self) -> int:
        """Elements of a head that are rotated by their position."""
        raise NotImplementedError

    @property
    def cache_shards(self) -> int:
        """The largest number of dies of an engine that tensor parallelism can split the KV cache over."""
        raise NotImplementedError

    def cache_width(self, tensor: int) -> int:
        """Elements of a token in the KV cache of one layer, on a die of an engine of `tensor` dies."""
        raise NotImplementedError

    @property
    def as_published(self) -> bool:
        """Whether heads and experts have sizes that the operators of an NPU are for (docs/STRICTNESS.md)."""
        raise NotImplementedError

    @property
    def transformer_overrides(self) -> dict[str, Any]:
        """Entries of verl's `override_transformer_config` that follow from the model.

        verl 0.6.1 configures routers without their groups of experts; vLLM routes by them, so that the trainer would
        pick other experts than the sampler (for 256 experts in 8 groups, half of all argmaxes differ). It has the gated
        activation of models with experts fused, and of models without them in pieces, each of which is kept for the
        backward pass.
        """
        overrides: dict[str, Any] = {}
        if self.expert_groups > 1:
            overrides["moe_router_num_groups"] = self.expert_groups
            overrides["moe_router_group_topk"] = self.expert_groups_kept
        if not self.experts:
            overrides["bias_activation_fusion"] = True
        return overrides


@dataclass(frozen=True, kw_only=True)
class LatentArchitecture(Architecture):
    """Multi-latent attention: keys and values come from one latent of `kv_lora_rank`, which is what the KV cache holds,
    whole on every die. `q_lora_rank`: of the queries' latent; None: queries come from the hidden state."""

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    rope_factor: float

    has_graphs: ClassVar[bool] = True
    has_routes: ClassVar[bool] = True

    @property
    def key_width(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def value_width(self) -> int:
        return self.v_head_dim

    @property
    def key_heads(self) -> int:
        return self.heads

    @property
    def rotary_width(self) -> int:
        return self.qk_rope_head_dim

    @property
    def cache_shards(self) -> int:
        return 1

    def cache_width(self, tensor: int) -> int:
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def as_published(self) -> bool:
        """Those of DeepSeek-V3: the operators of latent attention and of its router take these as constants."""
        heads = (self.kv_lora_rank, self.qk_nope_head_dim, self.qk_rope_head_dim, self.v_head_dim)
        return (*heads, self.experts, self.expert_groups, self.expert_groups_kept) == (512, 128, 64, 128, 256, 8, 4)


@dataclass(frozen=True, kw_only=True)
class GroupedQueryArchitecture(Architecture):
    """Grouped-query attention: `kv_heads` keys and values of `head_dim`, each shared by a group of query heads.

    `qkv_bias`: their projections have biases; `qk_norm`: queries and keys are normalised head by head.
    """

    kv_heads: int
    head_dim: int
    qkv_bias: bool
    qk_norm: bool

    @property
    def key_width(self) -> int:
        return self.head_dim

    @property
    def value_width(self) -> int:
        return self.head_dim

    @property
    def key_heads(self) -> int:
        return self.kv_heads

    @property
    def rotary_width(self) -> int:
        return self.head_dim

    @property
    def cache_shards(self) -> int:
        return self.kv_heads

    def kv_heads_on(self, tensor: int) -> int:
        """Keys and values that a die of `tensor` has: its share of them, or a copy of one."""
        return max(1, self.kv_heads // tensor)

    def cache_width(self, tensor: int) -> int:
        return 2 * self.kv_heads_on(tensor) * self.head_dim

    @property
    def as_published(self) -> bool:
        """Heads of 128, as the published models of these families that are large have them."""
        return self.head_dim == 128


def differing(left: Architecture, right: Architecture) -> list[str]:
    """The names of the sizes in which two models differ, of those that only one of them has too."""
    ours, others = vars(left), vars(right)
    return [name for name in {**others, **ours} if ours.get(name) != others.get(name)]
