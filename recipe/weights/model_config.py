# SPDX-License-Identifier: Apache-2.0
"""Settings of the Megatron model that must follow from the model's own config.json."""

from __future__ import annotations

from typing import Any


def transformer_overrides(config: dict[str, Any]) -> dict[str, Any]:
    """Entries of verl's `override_transformer_config` for the model of this config.json.

    verl 0.6.1 configures DeepSeek-V3's router without its expert groups; vLLM routes by them, so the trainer would
    pick other experts than the sampler (for 256 experts in 8 groups, half of all argmaxes differ).

    Returns: {} for models without expert groups, else `moe_router_num_groups` and `moe_router_group_topk`.
    Raises ValueError for a config that Megatron-core 0.12.1 as set up by verl would compute differently.
    """
    if config.get("model_type") != "deepseek_v3":
        return {}
    if (scoring := config.get("scoring_func", "sigmoid")) != "sigmoid":
        raise ValueError(f"config.json: scoring_func={scoring!r}; verl sets Megatron-core's router to 'sigmoid'")
    if not config.get("norm_topk_prob", True) and config.get("num_experts_per_tok", 1) > 1:
        raise ValueError("config.json: norm_topk_prob is false; Megatron-core's sigmoid router always normalises")
    _check_rope(config.get("rope_scaling"))
    groups, kept = config.get("n_group") or 1, config.get("topk_group") or 1
    if groups == 1:
        return {}
    experts = config["n_routed_experts"]
    if experts % groups or not 1 <= kept <= groups:
        raise ValueError(
            f"config.json: n_group={groups} and topk_group={kept} for {experts} experts; groups must divide the "
            "experts and topk_group must not exceed n_group"
        )
    return {"moe_router_num_groups": groups, "moe_router_group_topk": kept}


def _check_rope(scaling: dict[str, Any] | None) -> None:
    """Refuse a rope_scaling whose softmax scale Megatron-core would compute otherwise than Hugging Face.

    Hugging Face scales by mscale_all_dim (absent: not at all), Megatron-core by mscale, and verl fills in 1.0 for both.
    """
    if not scaling:
        return
    if not isinstance(scaling, dict):
        raise ValueError(f"config.json: rope_scaling is {scaling!r}; expected an object")
    if scaling.get("factor", 1) == 1:
        return
    if scaling.get("type", scaling.get("rope_type")) != "yarn":
        raise ValueError(f"config.json: rope_scaling {scaling}; Megatron-core's MLA knows type 'yarn' or none")
    if scaling.get("mscale") is None or scaling.get("mscale") != scaling.get("mscale_all_dim"):
        raise ValueError(
            f"config.json: rope_scaling has mscale={scaling.get('mscale')} and mscale_all_dim="
            f"{scaling.get('mscale_all_dim')}; Megatron-core's softmax scale is right only where both are given and "
            "equal"
        )
