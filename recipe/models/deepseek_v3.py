# SPDX-License-Identifier: Apache-2.0
"""DeepSeek-V3 and what has its blocks: V3.1, R1, Moonlight, Kimi-K2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recipe.models.architecture import LatentArchitecture
from recipe.models.config_values import shown
from recipe.models.family import ROUTER_PATCHES, Config, Family, refusals_of_all
from recipe.weights import deepseek_v3

_IMPLEMENTATION = "DeepseekV3ForCausalLM"


def _architecture(config: Config) -> LatentArchitecture:
    return LatentArchitecture(
        layers=config["num_hidden_layers"],
        dense_layers=config["first_k_dense_replace"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        q_lora_rank=config.get("q_lora_rank"),
        kv_lora_rank=config["kv_lora_rank"],
        qk_nope_head_dim=config["qk_nope_head_dim"],
        qk_rope_head_dim=config["qk_rope_head_dim"],
        v_head_dim=config["v_head_dim"],
        dense_intermediate=config["intermediate_size"],
        moe_intermediate=config["moe_intermediate_size"],
        experts=config["n_routed_experts"],
        shared_experts=config["n_shared_experts"],
        experts_per_token=config["num_experts_per_tok"],
        expert_groups=config.get("n_group") or 1,
        expert_groups_kept=config.get("topk_group") or 1,
        correction_bias=True,
        vocabulary=config["vocab_size"],
        max_positions=config["max_position_embeddings"],
        tied=False,
        rope_factor=float((config.get("rope_scaling") or {}).get("factor", 1.0)),
    )


def _refusals(config: Config) -> Iterator[str]:
    yield from refusals_of_all(config, _IMPLEMENTATION)
    if config.get("tie_word_embeddings"):
        yield "tie_word_embeddings is true; verl 0.6.1 gives DeepSeek-V3 an output layer of its own"
    if config.get("attention_bias"):
        yield "attention_bias is true; Megatron-core's multi-latent attention has no such biases"
    if config["first_k_dense_replace"] > config["num_hidden_layers"]:
        layers = config["num_hidden_layers"]
        yield f"first_k_dense_replace is {config['first_k_dense_replace']} of num_hidden_layers {layers}"
    yield from _refused_router(config)
    yield from _refused_rope(config.get("rope_scaling"))


def _refused_router(config: Config) -> Iterator[str]:
    for key, built in (("scoring_func", "sigmoid"), ("topk_method", "noaux_tc"), ("moe_layer_freq", 1)):
        if (value := config.get(key, built)) != built:
            yield f"{key} is {shown(value)}; verl 0.6.1 builds Megatron-core's layers with {built!r}"
    experts, chosen = config["n_routed_experts"], config["num_experts_per_tok"]
    if not config.get("norm_topk_prob", True) and chosen > 1:
        yield "norm_topk_prob is false; Megatron-core's sigmoid router always normalises"
    groups, kept = config.get("n_group") or 1, config.get("topk_group") or 1
    if experts % groups or kept > groups:
        yield (
            f"n_group is {groups} and topk_group {kept} for {experts} experts; groups must divide the experts, and "
            "topk_group must not exceed n_group"
        )
    elif chosen > experts // groups * kept:
        yield f"num_experts_per_tok is {chosen}, of {experts // groups * kept} experts that a token may choose"


def _refused_rope(scaling: Any) -> Iterator[str]:
    """A rope_scaling whose softmax scale Megatron-core would compute otherwise than Hugging Face.

    Hugging Face scales by mscale_all_dim (absent: not at all), Megatron-core by mscale, and verl fills in 1.0 for both.
    """
    if not scaling:
        return
    factor = scaling.get("factor", 1) if isinstance(scaling, dict) else None
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        yield f"rope_scaling is {shown(scaling)}; expected an object whose factor is a number above 0"
    elif factor == 1:
        return
    elif (kind := scaling.get("type", scaling.get("rope_type"))) != "yarn":
        yield f"rope_scaling is of type {shown(kind)}; Megatron-core's multi-latent attention knows 'yarn' or none"
    elif scaling.get("mscale") is None or scaling.get("mscale") != scaling.get("mscale_all_dim"):
        yield (
            f"rope_scaling has mscale {shown(scaling.get('mscale'))} and mscale_all_dim "
            f"{shown(scaling.get('mscale_all_dim'))}; Megatron-core's softmax scale is right only where both are given "
            "and equal"
        )


FAMILY = Family(
    model_types=("deepseek_v3", "kimi_k2"),
    implementation=_IMPLEMENTATION,
    sizes=(
        *("hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("moe_intermediate_size", "n_routed_experts", "n_shared_experts", "num_experts_per_tok"),
        *("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "max_position_embeddings"),
    ),
    optional=("q_lora_rank", "n_group", "topk_group"),
    counts=("first_k_dense_replace",),
    switches=("tie_word_embeddings", "attention_bias", "norm_topk_prob"),
    refusals=_refusals,
    architecture=_architecture,
    layout=deepseek_v3.layout,
    patches=(
        *ROUTER_PATCHES,
        # Latent attention, in the actor and in the engines.
        "mindspeed_patches.core.transformer.flash_attention.flash_attention.adaptor:dot_product_attention_forward_impl",
        "verl_patches.models.mcore.patch_v012:apply_patch",
        "vllm_ascend_patches.attention.mla_v1:AscendMLAImpl",
        "vllm_ascend_patches.attention.mla_v1:build",
        "vllm_ascend_patches.models.deepseek_v2:plain_rotary",
        # Its router, whose scores have a bias.
        "megatron_patches.core.transformer.module:float16_module_init",
        "vllm_ascend_patches.models.deepseek_v2:float32_router",
        # What it alone has: graphs, and routes of the direct weight sync.
        "vllm_ascend_patches.worker.model_runner_v1:_get_torchair_lazy_compiled_model",
        "verl_patches.utils.megatron_utils:per_tensor_generator",
    ),
)
