# SPDX-License-Identifier: Apache-2.0
"""The names of DeepSeek-V3's tensors in a Megatron-core 0.12.1 distributed checkpoint.

Both spellings of a fused norm are offered (MindSpeed and Transformer Engine fuse norms into the following linear,
Megatron-core's local layers do not), and every extra state any of them asks for: a reader refuses a checkpoint that
lacks a name it knows, and ignores names it does not.
"""

from __future__ import annotations

from typing import Any

from recipe.weights.layout import LayerPlacements, MegatronLayout, unsplit

_MODULES_WITH_STATE = (
    "self_attention.linear_q_proj",
    "self_attention.linear_q_down_proj",
    "self_attention.linear_q_up_proj",
    "self_attention.linear_kv_down_proj",
    "self_attention.linear_kv_up_proj",
    "self_attention.core_attention",
    "self_attention.linear_proj",
    # Norms have a state in Transformer Engine 2.
    "self_attention.q_layernorm",
    "self_attention.kv_layernorm",
    "input_layernorm",
    "pre_mlp_layernorm",
)


def _attention(layer: LayerPlacements, config: dict[str, Any]) -> None:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    q_rank, kv_rank = config.get("q_lora_rank"), config["kv_lora_rank"]
    attn, to = "self_attn.", "self_attention."
    layer.unsplit("input_layernorm.weight", (hidden,), "input_layernorm.weight")
    if q_rank is None:
        layer.unsplit(attn + "q_proj.weight", (heads * (nope + rope), hidden), to + "linear_q_proj.weight")
    else:
        layer.unsplit(attn + "q_a_proj.weight", (q_rank, hidden), to + "linear_q_down_proj.weight")
        layer.unsplit(
            attn + "q_a_layernorm.weight",
            (q_rank,),
            to + "linear_q_up_proj.layer_norm_weight",
            to + "q_layernorm.weight",
        )
        layer.unsplit(attn + "q_b_proj.weight", (heads * (nope + rope), q_rank), to + "linear_q_up_proj.weight")
    layer.unsplit(attn + "kv_a_proj_with_mqa.weight", (kv_rank + rope, hidden), to + "linear_kv_down_proj.weight")
    layer.unsplit(
        attn + "kv_a_layernorm.weight",
        (kv_rank,),
        to + "linear_kv_up_proj.layer_norm_weight",
        to + "kv_layernorm.weight",
    )
    layer.unsplit(attn + "kv_b_proj.weight", (heads * (nope + value), kv_rank), to + "linear_kv_up_proj.weight")
    layer.unsplit(attn + "o_proj.weight", (hidden, heads * value), to + "linear_proj.weight")
    for module in _MODULES_WITH_STATE:
        layer.state(module)


def _moe(layer: LayerPlacements, config: dict[str, Any]) -> None:
    hidden, size, experts = config["hidden_size"], config["moe_intermediate_size"], config["n_routed_experts"]
    layer.unsplit("post_attention_layernorm.weight", (hidden,), "pre_mlp_layernorm.weight")
    layer.unsplit("mlp.gate.weight", (experts, hidden), "mlp.router.weight")
    layer.unsplit("mlp.gate.e_score_correction_bias", (experts,), "mlp.router.expert_bias")
    layer.gated_mlp("mlp.shared_experts", "mlp.shared_experts", hidden, size * config["n_shared_experts"])
    layer.routed_experts(hidden, size, experts)


def layout(config: dict[str, Any]) -> MegatronLayout:
    """Every tensor of the model of this config.json, which `recipe.models` describes, and its place."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    places = [
        unsplit("model.embed_tokens.weight", "embedding.word_embeddings.weight", (vocabulary, hidden)),
        unsplit("model.norm.weight", "decoder.final_layernorm.weight", (hidden,)),
        unsplit("lm_head.weight", "output_layer.weight", (vocabulary, hidden)),
    ]
    states = ["decoder.final_layernorm._extra_state/shard_0_1"]
    for number in range(config["num_hidden_layers"]):
        layer = LayerPlacements(number, config["num_hidden_layers"], stacked=False)
        _attention(layer, config)
        if number < config["first_k_dense_replace"]:
            layer.unsplit(
                "post_attention_layernorm.weight",
                (hidden,),
                "mlp.linear_fc1.layer_norm_weight",
                "pre_mlp_layernorm.weight",
            )
            layer.gated_mlp("mlp", "mlp", hidden, config["intermediate_size"])
        else:
            _moe(layer, config)
        places.extend(layer.places)
        states.extend(layer.states)
    return MegatronLayout(tuple(places), tuple(states))
