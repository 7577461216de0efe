# SPDX-License-Identifier: Apache-2.0
"""Every family that can be trained here, by the model_type of its config.json; the door to what is said of a model."""

from __future__ import annotations

from recipe.models import deepseek_v3, grouped_query
from recipe.models.architecture import Architecture
from recipe.models.config_values import PREDICTING, check_values, shown
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

#: What [model] path of a run takes where config.json is not as the training reads it.
_CONVERTERS = (
    "a run takes what scripts/convert_hf_to_mcore.py writes as huggingface/, or scripts/fp8_cast_bf16.py; python -m "
    "recipe model-config writes config.json alone"
)


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


def require_converted(config: Config) -> None:
    """Refuse a config.json as some models are published with, which the pinned upstreams cannot start from.

    verl 0.6.1 asserts of DeepSeek-V3 that there are no layers for multi-token prediction, where null is not 0, and no
    quantisation; other models it trains as plain weights without a word, and vLLM makes engines of quantised ones.
    transformers cannot read a quantization_config of null, and knows DeepSeek-V3's blocks by one model_type. What
    converts weights writes a config.json without any of this.

    Raises:
        ModelError: for the first of these.
    """
    if "quantization_config" in config:
        found = f"quantization_config is {shown(config['quantization_config'])}; verl 0.6.1 trains weights without one"
        raise ModelError(f"{found}: {_CONVERTERS}")
    if (layers := config.get(PREDICTING, 0)) != 0:
        found = f"{PREDICTING} is {shown(layers)}; verl 0.6.1 trains no layers for multi-token prediction"
        raise ModelError(f"{found}: {_CONVERTERS}")
    family = family_of(config)
    if (model_type := config["model_type"]) != family.model_types[0]:
        found = f"model_type is {model_type!r}; transformers and vLLM know these blocks as {family.model_types[0]!r}"
        raise ModelError(f"{found}: {_CONVERTERS}")
