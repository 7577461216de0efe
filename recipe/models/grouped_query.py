# SPDX-License-Identifier: Apache-2.0
"""Llama, Qwen2, Qwen3 and Qwen3-MoE: grouped-query attention, and layers that are all alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recipe.models.architecture import GroupedQueryArchitecture
from recipe.models.config_values import shown
from recipe.models.family import ROUTER_PATCHES, Config, Family, refusals_of_all
from recipe.weights import grouped_query

_DENSE_SIZES = (
    *("hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    "max_position_embeddings",
)
_MIXTURE_SIZES = (
    *("hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "moe_intermediate_size"),
    *("num_experts", "num_experts_per_tok", "max_position_embeddings"),
)
_OPTIONAL = ("num_key_value_heads", "head_dim")
_SWITCHES = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window", "norm_topk_prob")


def _architecture(config: Config) -> GroupedQueryArchitecture:
    tensors = grouped_query.FAMILIES[config["model_type"]]
    heads, layers, hidden = config["num_attention_heads"], config["num_hidden_layers"], config["hidden_size"]
    return GroupedQueryArchitecture(
        layers=layers,
        dense_layers=0 if tensors.experts else layers,
        hidden=hidden,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        qkv_bias=tensors.qkv_bias,
        qk_norm=tensors.qk_norm,
        dense_intermediate=0 if tensors.experts else config["intermediate_size"],
        moe_intermediate=config["moe_intermediate_size"] if tensors.experts else 0,
        experts=config["num_experts"] if tensors.experts else 0,
        shared_experts=0,
        experts_per_token=config["num_experts_per_tok"] if tensors.experts else 0,
        expert_groups=1,
        expert_groups_kept=1,
        correction_bias=False,
        vocabulary=config["vocab_size"],
        max_positions=config["max_position_embeddings"],
        tied=config.get("tie_word_embeddings") or False,
    )


def _refusals(config: Config, implementation: str) -> Iterator[str]:
    yield from refusals_of_all(config, implementation)
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    groups = config.get("num_key_value_heads") or heads
    if heads % groups:
        yield f"num_key_value_heads is {groups}, which does not divide num_attention_heads {heads}"
    if config.get("head_dim") is None and hidden % heads:
        yield f"num_attention_heads is {heads}, which does not divide hidden_size {hidden}; there is no head_dim"
    if config.get("attention_bias") and config["model_type"] != "qwen2":
        yield "attention_bias is true; verl 0.6.1 builds no bias for the output projection"
    if config.get("mlp_bias"):
        yield "mlp_bias is true; verl 0.6.1 builds no biases in MLPs"
    kinds = config.get("layer_types")
    odd_layers = kinds is not None and kinds != ["full_attention"] * config["num_hidden_layers"]
    if config.get("use_sliding_window") or odd_layers:
        key = "layer_types" if odd_layers else "use_sliding_window"
        yield f"{key} is {shown(config[key])}; verl 0.6.1 builds full attention in every layer"
    yield from _refused_rope(config.get("rope_scaling"))


# What Megatron-core 0.12.1 has for it (rotary_pos_embedding.py, `_apply_scaling`), beside the factor.
_LLAMA3 = {"low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}
# The patch that hands the type 'llama3' on to Megatron-core, whichever of these models has it.
_LLAMA3_PATCH = "verl_patches.models.mcore.model_initializer:get_rope_scaling_args"


def _refused_rope(scaling: Any) -> Iterator[str]:
    if scaling is None:
        return
    kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else None
    if kind not in ("linear", "llama3"):
        yield f"rope_scaling is {shown(scaling)}; Megatron-core 0.12.1 has the types 'linear' and 'llama3', or none"
        return
    factor = scaling.get("factor")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        yield f"rope_scaling has factor {shown(factor)}; expected a number above 0"
    if kind == "llama3" and (other := {name: scaling.get(name) for name in _LLAMA3}) != _LLAMA3:
        yield f"rope_scaling has {other}; Megatron-core 0.12.1 computes with {_LLAMA3}"


def _refused_mixture(config: Config, implementation: str) -> Iterator[str]:
    yield from _refusals(config, implementation)
    for key, built in (("mlp_only_layers", []), ("decoder_sparse_step", 1)):
        if (value := config.get(key, built)) != built:
            yield f"{key} is {shown(value)}; verl 0.6.1 gives every layer experts ({built!r})"
    if config["num_experts_per_tok"] > config["num_experts"]:
        yield f"num_experts_per_tok is {config['num_experts_per_tok']} of num_experts {config['num_experts']}"
    if not config.get("norm_topk_prob") and config["num_experts_per_tok"] > 1:
        yield "norm_topk_prob is false, or absent; verl 0.6.1 configures a router that normalises"


_MIXTURE_PATCHES = (*ROUTER_PATCHES, "vllm_ascend_patches.ops.fused_moe:float32_router")


def _family(model_type: str, implementation: str) -> Family:
    mixture = grouped_query.FAMILIES[model_type].experts
    refusals = _refused_mixture if mixture else _refusals
    return Family(
        model_types=(model_type,),
        implementation=implementation,
        sizes=_MIXTURE_SIZES if mixture else _DENSE_SIZES,
        optional=_OPTIONAL,
        counts=(),
        switches=_SWITCHES,
        refusals=lambda config: refusals(config, implementation),
        architecture=_architecture,
        layout=grouped_query.layout,
        patches=(_LLAMA3_PATCH, *(_MIXTURE_PATCHES if mixture else ())),
    )


LLAMA = _family("llama", "LlamaForCausalLM")
QWEN2 = _family("qwen2", "Qwen2ForCausalLM")
QWEN3 = _family("qwen3", "Qwen3ForCausalLM")
QWEN3_MOE = _family("qwen3_moe", "Qwen3MoeForCausalLM")
