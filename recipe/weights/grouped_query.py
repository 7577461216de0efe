# SPDX-License-Identifier: Apache-2.0
"""The names of models with grouped-query attention (Llama, Qwen2, Qwen3, Qwen3-MoE) in a Megatron-core 0.12.1
distributed checkpoint.

All layers are alike, so Megatron-core stores them as one tensor with a leading layer axis; experts follow on an axis of
their own. Its linear_qkv holds, group of query heads after group, the group's queries, its key, its value
(`SelfAttention.get_query_key_value_tensors`); linear_fc1 holds the gate's rows, then up's. verl 0.6.1 builds these
models without other biases than those of q, k, v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipe.weights.layout import LayerPlacements, MegatronLayout, Placement, unsplit


@dataclass(frozen=True)
class Family:
    """What differs between model_types: biases of q, k, v, norms of q and k, and routed experts in every layer."""

    qkv_bias: bool = False
    qk_norm: bool = False
    experts: bool = False


FAMILIES = {
    "llama": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm=True),
    "qwen3_moe": Family(qk_norm=True, experts=True),
}
_MODULES_WITH_STATE = (
    "self_attention.linear_qkv",
    "self_attention.core_attention",
    "self_attention.linear_proj",
    # Norms have a state in Transformer Engine 2.
    "self_attention.q_layernorm",
    "self_attention.k_layernorm",
    "input_layernorm",
    "pre_mlp_layernorm",
)


def _qkv(layer: LayerPlacements, config: dict[str, Any], head: int, kind: str, rest: tuple[int, ...]) -> None:
    """linear_qkv.weight or .bias: query heads of a group, its key, its value, group after group."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    queries, rows = heads // groups * head, (heads // groups + 2) * head
    name, shape = (f"self_attention.linear_qkv.{kind}",), (groups * rows, *rest)
    for hf, size, shift in (("q", queries, 0), ("k", head, queries), ("v", head, queries + head)):
        hf_name, hf_shape = f"self_attn.{hf}_proj.{kind}", (groups * size, *rest)
        for group in range(groups):
            at = (group * rows + shift, *(0 for _ in rest))
            layer.part(hf_name, hf_shape, name, shape, at, rows=(group * size, size))


def _layer(layer: LayerPlacements, config: dict[str, Any], family: Family) -> None:
    hidden, head = config["hidden_size"], config["head_dim"]
    fused = "self_attention.linear_qkv.layer_norm_weight"
    layer.unsplit("input_layernorm.weight", (hidden,), fused, "input_layernorm.weight")
    _qkv(layer, config, head, "weight", (hidden,))
    if family.qkv_bias:
        _qkv(layer, config, head, "bias", ())
    if family.qk_norm:
        for kind in "qk":
            layer.unsplit(f"self_attn.{kind}_norm.weight", (head,), f"self_attention.{kind}_layernorm.weight")
    width = config["num_attention_heads"] * head
    layer.unsplit("self_attn.o_proj.weight", (hidden, width), "self_attention.linear_proj.weight")
    # Before experts, too: Megatron-core's local layers save it under the first name, whatever the MLP is.
    fused = "mlp.linear_fc1.layer_norm_weight"
    layer.unsplit("post_attention_layernorm.weight", (hidden,), fused, "pre_mlp_layernorm.weight")
    if family.experts:
        layer.unsplit("mlp.gate.weight", (config["num_experts"], hidden), "mlp.router.weight")
        layer.routed_experts(hidden, config["moe_intermediate_size"], config["num_experts"])
    else:
        layer.gated_mlp("mlp", "mlp", hidden, config["intermediate_size"])
    for module in _MODULES_WITH_STATE:
        layer.state(module)


def layout(config: dict[str, Any]) -> MegatronLayout:
    """Every tensor of the model of this config.json, which `recipe.models` describes, and its place."""
    heads = config["num_attention_heads"]
    groups, head = config.get("num_key_value_heads") or heads, config.get("head_dim") or config["hidden_size"] // heads
    return _layout(config | {"num_key_value_heads": groups, "head_dim": head}, FAMILIES[config["model_type"]])


def _layout(config: dict[str, Any], family: Family) -> MegatronLayout:
    hidden, vocabulary, layers = config["hidden_size"], config["vocab_size"], config["num_hidden_layers"]
    places: list[Placement] = [
        unsplit("model.embed_tokens.weight", "embedding.word_embeddings.weight", (vocabulary, hidden)),
        unsplit("model.norm.weight", "decoder.final_layernorm.weight", (hidden,)),
    ]
    if not config.get("tie_word_embeddings", False):
        places.append(unsplit("lm_head.weight", "output_layer.weight", (vocabulary, hidden)))
    states = ["decoder.final_layernorm._extra_state/shard_0_1"]
    for number in range(layers):
        layer = LayerPlacements(number, layers, stacked=True)
        _layer(layer, config, family)
        places.extend(layer.places)
        states.extend(layer.states)
    return MegatronLayout(tuple(places), tuple(states))
