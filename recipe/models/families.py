# SPDX-License-Identifier: Apache-2.0
"""Every family that can be trained here, by the model_type of its config.json; the door to what is said of a model."""

from __future__ import annotations

from recipe.models import deepseek_v3, grouped_query
from recipe.models.architecture import Architecture
from recipe.models.config_values import check_values, shown
from recipe.models.family import Config, Family, ModelError

FAMILIES: dict[str, Family] = {
    model_type: family
    for family in (
        deepseek_v3.FAMILY,
        grouped_query.LLAMA,
        grouped_query.QWEN2,
        grouped_query.QWEN3,
        grouped_query.QWEN3_MOE,
    )
    for model_type in family.model_types
}

#: What the pinned upstreams lack for models that people ask for.
LACKING = {
    "deepseek_v2": "verl 0.6.1 has no Megatron model for its router, a softmax without a correction bias",
    "deepseek_v32": "neither Megatron-core 0.12.1 nor vLLM 0.9.1 has its sparse attention",
    "deepseek_v4": "neither Megatron-core 0.12.1 nor vLLM 0.9.1 has its compressed sparse attention",
    "glm4_moe": "vLLM 0.9.1 has no such model, and verl 0.6.1 no configuration of it for Megatron-core",
    "gpt_oss": "neither Megatron-core 0.12.1 nor vLLM 0.9.1 has its attention sinks",
    "qwen2_moe": "its shared expert has a gate, which no key map here knows",
    "qwen3_next": "neither Megatron-core 0.12.1 nor vLLM 0.9.1 has its linear attention",
}


def family_of(config: Config) -> Family:
    """The family of the model of this config.json.

    Raises:
        ModelError: it is of none that can be trained here.
    """
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is not None:
        return family
    known = ", ".join(FAMILIES)
    if isinstance(model_type, str) and model_type in LACKING:
        raise ModelError(f"model_type {model_type!r} cannot be trained: {LACKING[model_type]}; known are {known}")
    raise ModelError(f"model_type {shown(model_type)} cannot be trained: nothing here describes it; known are {known}")


def describe(config: Config) -> Architecture:
    """The sizes of the model of this config.json.

    Raises:
        ModelError: it is of no known family, a size is missing or none, or the pinned upstreams would compute another
            model than it says.
    """
    family = family_of(config)
    check_values(config, family)
    for refusal in family.refusals(config):
        raise ModelError(refusal)
    return family.architecture(config)
