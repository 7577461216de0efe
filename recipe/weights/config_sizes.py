# SPDX-License-Identifier: Apache-2.0
"""Whether config.json has, where a size or a switch is expected, a size or a switch.

It is typed by people and tools: a null, a text, a fraction, a number without end. Whatever reads it later computes with
its numbers, and makes a list of as many layers as it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipe.weights.errors import WeightsError

#: Keys of sizes that a model of the type must have, and those that may be null or absent.
_NEEDED = {
    "deepseek_v3": (
        "hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "moe_intermediate_size", "n_routed_experts", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
        "v_head_dim",
    ),
    "qwen3_moe": (
        "hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "moe_intermediate_size", "num_experts",
    ),
}  # fmt: skip
_NEEDED_DENSE = ("hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_OPTIONAL = ("q_lora_rank", "num_key_value_heads", "head_dim")
#: Numbers that may be zero: of layers, or of experts.
_COUNTS = ("first_k_dense_replace", "n_shared_experts", "num_nextn_predict_layers")
_SWITCHES = ("tie_word_embeddings", "attention_bias")
#: No tensor is longer than this along any axis, no model has more layers or, all layers together, experts.
_LARGEST, _MOST_LAYERS, _MOST_EXPERTS = 2**31 - 1, 4096, 200_000


def check_sizes(config: Mapping[str, Any], file: Path) -> None:
    """Raise WeightsError for a value that is no size or switch, naming it and the file. Keys that are missing are for
    those to name who need them, but for `num_hidden_layers`."""
    kind = config.get("model_type")
    for key in _NEEDED.get(str(kind), _NEEDED_DENSE):
        if key in config:
            _check_number(config, key, file, 1)
    for key in _OPTIONAL:
        if config.get(key) is not None:
            _check_number(config, key, file, 1)
    for key in _COUNTS:
        if config.get(key) is not None:
            _check_number(config, key, file, 0)
    for key in _SWITCHES:
        if not isinstance(config.get(key), bool | None):
            raise WeightsError(f"{file}: {key} is {shown(config[key])}; expected true or false")
    layers = config.get("num_hidden_layers", 1) + (config.get("num_nextn_predict_layers") or 0)
    if layers > _MOST_LAYERS:
        raise WeightsError(f"{file}: {layers} layers (num_hidden_layers); at most {_MOST_LAYERS} are known to exist")
    for key in {"n_routed_experts", "num_experts"} & set(_NEEDED.get(str(kind), ())):
        if layers * config.get(key, 1) > _MOST_EXPERTS:
            raise WeightsError(
                f"{file}: {key} is {config[key]} in {layers} layers; at most {_MOST_EXPERTS} together are known to "
                "exist"
            )


def _check_number(config: Mapping[str, Any], key: str, file: Path, least: int) -> None:
    value = config[key]
    if type(value) is not int or not least <= value <= _LARGEST:
        raise WeightsError(f"{file}: {key} is {shown(value)}; expected a whole number, {least} to {_LARGEST}")


def shown(value: object) -> str:
    """The value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
