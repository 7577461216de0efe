# SPDX-License-Identifier: Apache-2.0
"""The names of DeepSeek-V3's tensors in a Megatron-core 0.12.1 distributed checkpoint.

Both spellings of a fused norm are offered (MindSpeed and Transformer Engine fuse norms into the following linear,
Megatron-core's local layers do not), and every extra state any of them asks for: a reader refuses a checkpoint that
lacks a name it knows, and ignores names it does not.
"""

from __future__ import annotations

import re
from typing import Any

from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import HfCheckpoint
from recipe.weights.plan import Layout, Place

_MODULES_WITH_STATE = (
    "self_attention.linear_q_proj",
    "self_attention.linear_q_down_proj",
    "self_attention.linear_q_up_proj",
    "self_attention.linear_kv_down_proj",
    "self_attention.linear_kv_up_proj",
    "self_attention.core_attention",
    "self_attention.linear_proj",
)


class _Layer:
    """Collects the places of one layer."""

    def __init__(self, number: int) -> None:
        self.hf = f"model.layers.{number}."
        self.mcore = f"decoder.layers.{number}."
        self.places: list[Place] = []
        self.states: list[str] = []

    def whole(self, hf_name: str, shape: tuple[int, ...], *names: str) -> None:
        """A tensor that is a whole Megatron tensor, under each of the names."""
        full = tuple(self.mcore + name for name in names)
        self.places.append(Place(self.hf + hf_name, shape, full, shape, (0,) * len(shape)))

    def part(
        self, hf_name: str, shape: tuple[int, ...], name: str, whole: tuple[int, ...], at: tuple[int, ...]
    ) -> None:
        """A tensor that is part of a larger one."""
        self.places.append(Place(self.hf + hf_name, shape, (self.mcore + name,), whole, at))

    def gated_mlp(self, hf: str, mcore: str, hidden: int, size: int) -> None:
        """gate, up and down projections: linear_fc1 has the rows of gate, then those of up."""
        for at, name in ((0, "gate_proj"), (size, "up_proj")):
            self.part(f"{hf}.{name}.weight", (size, hidden), f"{mcore}.linear_fc1.weight", (2 * size, hidden), (at, 0))
        self.whole(f"{hf}.down_proj.weight", (hidden, size), f"{mcore}.linear_fc2.weight")
        self.state(f"{mcore}.linear_fc1")
        self.state(f"{mcore}.linear_fc2")

    def state(self, module: str, shard: str = "shard_0_1") -> None:
        self.states.append(f"{self.mcore}{module}._extra_state/{shard}")


def _attention(layer: _Layer, config: dict[str, Any]) -> None:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    q_rank, kv_rank = config["q_lora_rank"], config["kv_lora_rank"]
    attn, to = "self_attn.", "self_attention."
    layer.whole("input_layernorm.weight", (hidden,), "input_layernorm.weight")
    if q_rank is None:
        layer.whole(attn + "q_proj.weight", (heads * (nope + rope), hidden), to + "linear_q_proj.weight")
    else:
        layer.whole(attn + "q_a_proj.weight", (q_rank, hidden), to + "linear_q_down_proj.weight")
        layer.whole(
            attn + "q_a_layernorm.weight",
            (q_rank,),
            to + "linear_q_up_proj.layer_norm_weight",
            to + "q_layernorm.weight",
        )
        layer.whole(attn + "q_b_proj.weight", (heads * (nope + rope), q_rank), to + "linear_q_up_proj.weight")
    layer.whole(attn + "kv_a_proj_with_mqa.weight", (kv_rank + rope, hidden), to + "linear_kv_down_proj.weight")
    layer.whole(
        attn + "kv_a_layernorm.weight",
        (kv_rank,),
        to + "linear_kv_up_proj.layer_norm_weight",
        to + "kv_layernorm.weight",
    )
    layer.whole(attn + "kv_b_proj.weight", (heads * (nope + value), kv_rank), to + "linear_kv_up_proj.weight")
    layer.whole(attn + "o_proj.weight", (hidden, heads * value), to + "linear_proj.weight")
    for module in _MODULES_WITH_STATE:
        layer.state(module)


def _moe(layer: _Layer, config: dict[str, Any]) -> None:
    hidden, size, experts = config["hidden_size"], config["moe_intermediate_size"], config["n_routed_experts"]
    layer.whole("post_attention_layernorm.weight", (hidden,), "pre_mlp_layernorm.weight")
    layer.whole("mlp.gate.weight", (experts, hidden), "mlp.router.weight")
    layer.whole("mlp.gate.e_score_correction_bias", (experts,), "mlp.router.expert_bias")
    if config.get("n_shared_experts"):
        layer.gated_mlp("mlp.shared_experts", "mlp.shared_experts", hidden, size * config["n_shared_experts"])
    to = "mlp.experts.experts."
    for e in range(experts):
        for at, name in ((0, "gate_proj"), (size, "up_proj")):
            layer.part(
                f"mlp.experts.{e}.{name}.weight",
                (size, hidden),
                to + "linear_fc1.weight",
                (experts, 2 * size, hidden),
                (e, at, 0),
            )
        layer.part(
            f"mlp.experts.{e}.down_proj.weight",
            (hidden, size),
            to + "linear_fc2.weight",
            (experts, hidden, size),
            (e, 0, 0),
        )
        for linear in ("linear_fc1", "linear_fc2"):
            layer.state(to + linear, f"shard_{e}_{experts}")


def layout(config: dict[str, Any]) -> Layout:
    """Every tensor of the model of this config.json and its place.

    Raises WeightsError for a config that lacks a size or asks for what Megatron-core's DeepSeek-V3 does not have.
    """
    if config.get("attention_bias"):
        raise WeightsError("config.json: attention_bias is true; Megatron-core's MLA has no such biases")
    try:
        return _layout(config)
    except KeyError as error:
        raise WeightsError(f"config.json: {error.args[0]} is missing; DeepSeek-V3 needs it") from error


def _layout(config: dict[str, Any]) -> Layout:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]

    def outer(hf: str, mcore: str, shape: tuple[int, ...]) -> Place:
        return Place(hf, shape, (mcore,), shape, (0,) * len(shape))

    places = [
        outer("model.embed_tokens.weight", "embedding.word_embeddings.weight", (vocabulary, hidden)),
        outer("model.norm.weight", "decoder.final_layernorm.weight", (hidden,)),
    ]
    if not config.get("tie_word_embeddings", False):
        places.append(outer("lm_head.weight", "output_layer.weight", (vocabulary, hidden)))
    states: list[str] = []
    for number in range(config["num_hidden_layers"]):
        layer = _Layer(number)
        _attention(layer, config)
        if number < config["first_k_dense_replace"]:
            layer.whole(
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
    return Layout(tuple(places), tuple(states))


def droppable(checkpoint: HfCheckpoint) -> tuple[str, ...]:
    """Tensors that the trained model has no use for: the multi-token-prediction layers, tied heads, rotary buffers."""
    layers = checkpoint.config["num_hidden_layers"]
    tied = checkpoint.config.get("tie_word_embeddings", False)

    def useless(name: str) -> bool:
        number = re.match(r"model\.layers\.(\d+)\.", name)
        beyond = number is not None and int(number[1]) >= layers
        return beyond or name.endswith(".rotary_emb.inv_freq") or (tied and name == "lm_head.weight")

    return tuple(name for name in checkpoint.tensors if useless(name))
