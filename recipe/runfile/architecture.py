# SPDX-License-Identifier: Apache-2.0
"""The sizes of a DeepSeek-V3 model, from its config.json or, where that cannot be seen, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """Sizes as Hugging Face's config.json of a `deepseek_v3` names them; `vocabulary` counts tokens."""

    layers: int
    dense_layers: int
    hidden: int
    heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    dense_intermediate: int
    moe_intermediate: int
    experts: int
    shared_experts: int
    experts_per_token: int
    expert_groups: int
    expert_groups_kept: int
    vocabulary: int
    max_positions: int
    rope_factor: float

    @property
    def moe_layers(self) -> int:
        return self.layers - self.dense_layers

    @property
    def as_published(self) -> bool:
        """Whether heads and experts have the sizes of DeepSeek-V3's own, the ones that an NPU's operators are for."""
        published = KNOWN["deepseek_v3_671b"]
        return all(getattr(self, name) == getattr(published, name) for name in _OF_OPERATORS)


# Our names and those of config.json.
KEYS = {
    "layers": "num_hidden_layers",
    "dense_layers": "first_k_dense_replace",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "q_lora_rank": "q_lora_rank",
    "kv_lora_rank": "kv_lora_rank",
    "qk_nope_head_dim": "qk_nope_head_dim",
    "qk_rope_head_dim": "qk_rope_head_dim",
    "v_head_dim": "v_head_dim",
    "dense_intermediate": "intermediate_size",
    "moe_intermediate": "moe_intermediate_size",
    "experts": "n_routed_experts",
    "shared_experts": "n_shared_experts",
    "experts_per_token": "num_experts_per_tok",
    "expert_groups": "n_group",
    "expert_groups_kept": "topk_group",
    "vocabulary": "vocab_size",
    "max_positions": "max_position_embeddings",
}

# What the operators of multi-latent attention and of the router take as constants (docs/STRICTNESS.md).
_OF_OPERATORS = (
    *("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
    *("experts", "expert_groups", "expert_groups_kept"),
)

# deepseek-ai/DeepSeek-V3 and DeepSeek-V3-Base (the same sizes), without the multi-token prediction layer.
KNOWN = {
    "deepseek_v3_671b": Architecture(
        layers=61,
        dense_layers=3,
        hidden=7168,
        heads=128,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        dense_intermediate=18432,
        moe_intermediate=2048,
        experts=256,
        shared_experts=1,
        experts_per_token=8,
        expert_groups=8,
        expert_groups_kept=4,
        vocabulary=129280,
        max_positions=163840,
        rope_factor=40.0,
    )
}


def from_config_json(config: Mapping[str, Any]) -> Architecture:
    """The sizes in a config.json.

    Raises:
        ValueError: it is not a deepseek_v3, or a size is missing.
    """
    if config.get("model_type") != "deepseek_v3":
        raise ValueError(f"config.json: model_type is {config.get('model_type')!r}; expected 'deepseek_v3'")
    least = {name: 0 if name == "first_k_dense_replace" else 1 for name in KEYS.values()}
    wrong = [
        name for name, lowest in least.items() if type(value := config.get(name)) is not int or not value >= lowest
    ]
    if wrong:
        raise ValueError(f"config.json: no whole number above 0 for {', '.join(wrong)}")
    scaling = config.get("rope_scaling") or {}
    factor = scaling.get("factor", 1.0) if isinstance(scaling, dict) else None
    if not isinstance(factor, (int, float)) or factor <= 0:
        raise ValueError(f"config.json: rope_scaling is {scaling!r}; expected an object whose factor is a number")
    return Architecture(**{ours: config[theirs] for ours, theirs in KEYS.items()}, rope_factor=float(factor))
