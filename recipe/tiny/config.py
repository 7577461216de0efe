# SPDX-License-Identifier: Apache-2.0
"""The tiny models' Hugging Face ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe.tiny.members import DEEPSEEK_V3, GROUPED, MEMBERS, MOONLIGHT, MOONLIGHT_CHANGES
from recipe.tiny.sizes import SIZES, SMALLEST
from recipe.tiny.tokenizer import BOS, EOS, PAD, SPECIAL_TOKENS, VOCAB_SIZE

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Yarn, as in the real model: without it vLLM-Ascend takes another rope path. Hugging Face derives the factor from
# max_position_embeddings / original_max_position_embeddings, the others read "factor": keep both equal.
ORIGINAL_POSITIONS, YARN_FACTOR = 512, 4


def tiny_fields(sizes: str = SMALLEST, member: str = DEEPSEEK_V3) -> dict[str, Any]:
    """The fields of ``config.json``, without the library that writes it.

    Args:
        sizes: a name of ``recipe.tiny.sizes``; others than the smallest are of ``deepseek_v3`` only.
        member: a name of ``recipe.tiny.members``.

    Raises:
        ValueError: there is no such member, or not in these sizes.
    """
    if member not in MEMBERS:
        raise ValueError(f"there is no tiny model {member!r}; there are {', '.join(MEMBERS)}")
    if member != DEEPSEEK_V3 and sizes != SMALLEST:
        raise ValueError(f"the tiny {member} has no sizes {sizes!r}; take {SMALLEST!r}, or the member {DEEPSEEK_V3!r}")
    if member in GROUPED:
        return _common() | GROUPED[member]
    changes = MOONLIGHT_CHANGES if member == MOONLIGHT else {}
    return _common() | _deepseek_v3(SIZES[sizes]) | changes


def _common() -> dict[str, Any]:
    """What all members share."""
    return {
        "vocab_size": VOCAB_SIZE,
        "initializer_range": 0.02,
        "bos_token_id": SPECIAL_TOKENS.index(BOS),
        "eos_token_id": SPECIAL_TOKENS.index(EOS),
        "pad_token_id": SPECIAL_TOKENS.index(PAD),
        "torch_dtype": "bfloat16",
    }


def _deepseek_v3(sizes: dict[str, Any]) -> dict[str, Any]:
    """DeepSeek-V3's own fields.

    ``topk_method`` and ``scoring_func`` are read by vLLM only. No multi-token prediction layer and no
    ``quantization_config``: verl refuses both.
    """
    return {
        **sizes,
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "n_shared_experts": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "num_key_value_heads": sizes["num_attention_heads"],
        "rope_theta": 10000.0,
        "max_position_embeddings": ORIGINAL_POSITIONS * YARN_FACTOR,
        "rope_scaling": {
            "type": "yarn",
            "factor": YARN_FACTOR,
            "original_max_position_embeddings": ORIGINAL_POSITIONS,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
        "num_nextn_predict_layers": 0,
        "tie_word_embeddings": False,
    }


def tiny_config(sizes: str = SMALLEST, member: str = DEEPSEEK_V3, **changes: Any) -> PretrainedConfig:
    """The configuration of a member in the sizes of that name; ``changes`` replace single fields."""
    from transformers import AutoConfig

    fields = tiny_fields(sizes, member) | changes
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


QUANTISATION = {
    "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
}  # fmt: skip


@dataclass(frozen=True)
class Fp8Model:
    """What to make. The head sizes of attention are the published ones; the other sizes are chosen here."""

    seed: int = 0
    hidden_size: int = 256
    layers: int = 4
    dense_layers: int = 1
    experts: int = 8
    intermediate_size: int = 640
    moe_intermediate_size: int = 192
    heads: int = 4
    q_rank: int = 192
    kv_rank: int = 128
    vocabulary: int = 640
    shard_bytes: int = 4_300_000_000

    def config(self) -> dict[str, Any]:
        """config.json, with a multi-token-prediction layer and block scales as published."""
        config: dict[str, Any] = tiny_config(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            first_k_dense_replace=self.dense_layers,
            n_routed_experts=self.experts,
            num_experts_per_tok=min(4, self.experts),
            intermediate_size=self.intermediate_size,
            moe_intermediate_size=self.moe_intermediate_size,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            q_lora_rank=self.q_rank,
            kv_lora_rank=self.kv_rank,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            vocab_size=self.vocabulary,
            num_nextn_predict_layers=1,
        ).to_dict()
        return config | {"quantization_config": QUANTISATION}
