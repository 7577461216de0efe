# SPDX-License-Identifier: Apache-2.0
"""Both engines' parameters as arrays of element numbers: what Megatron-core holds of a model, and what vLLM must get.

Written from how the engines cut and fuse tensors, with numpy's own splits, apart from the planner's slice arithmetic.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from verl_patches.utils.routes.layouts import ActorLayout, RolloutLayout

Array = np.ndarray[Any, np.dtype[np.int64]]
PADDING = -1


@dataclass(frozen=True)
class TinySizes:
    """Small enough to number every element."""

    layers: int
    dense_layers: int = 1
    hidden: int = 8
    heads: int = 4
    q_lora_rank: int | None = 4
    kv_lora_rank: int = 3
    qk_nope_head_dim: int = 2
    qk_rope_head_dim: int = 1
    v_head_dim: int = 2
    dense_intermediate: int = 8
    moe_intermediate: int = 4
    experts: int = 8
    shared_experts: int = 1
    vocabulary: int = 60


def model(sizes: TinySizes) -> dict[str, Array]:
    """Every tensor of a DeepSeek-V3 under its Hugging Face name; no two elements have one number."""
    s, shapes = sizes, {}
    shapes["model.embed_tokens.weight"] = shapes["lm_head.weight"] = (s.vocabulary, s.hidden)
    shapes["model.norm.weight"] = (s.hidden,)
    for n in range(s.layers):
        layer = {
            "input_layernorm": (s.hidden,),
            "post_attention_layernorm": (s.hidden,),
            "self_attn.kv_a_proj_with_mqa": (s.kv_lora_rank + s.qk_rope_head_dim, s.hidden),
            "self_attn.kv_a_layernorm": (s.kv_lora_rank,),
            "self_attn.kv_b_proj": (s.heads * (s.qk_nope_head_dim + s.v_head_dim), s.kv_lora_rank),
            "self_attn.o_proj": (s.hidden, s.heads * s.v_head_dim),
        }
        queries = s.heads * (s.qk_nope_head_dim + s.qk_rope_head_dim)
        if s.q_lora_rank is None:
            layer["self_attn.q_proj"] = (queries, s.hidden)
        else:
            layer["self_attn.q_a_proj"] = (s.q_lora_rank, s.hidden)
            layer["self_attn.q_a_layernorm"] = (s.q_lora_rank,)
            layer["self_attn.q_b_proj"] = (queries, s.q_lora_rank)
        widths = {"mlp.": s.dense_intermediate}
        if n >= s.dense_layers:
            layer["mlp.gate"] = (s.experts, s.hidden)
            widths = {f"mlp.experts.{e}.": s.moe_intermediate for e in range(s.experts)}
            if s.shared_experts:
                widths["mlp.shared_experts."] = s.shared_experts * s.moe_intermediate
            shapes[f"model.layers.{n}.mlp.gate.e_score_correction_bias"] = (s.experts,)
        for name, width in widths.items():
            layer[name + "gate_proj"] = layer[name + "up_proj"] = (width, s.hidden)
            layer[name + "down_proj"] = (s.hidden, width)
        shapes |= {f"model.layers.{n}.{name}.weight": shape for name, shape in layer.items()}
    numbers = itertools.accumulate((int(np.prod(shape)) for shape in shapes.values()), initial=0)
    return {
        name: np.arange(first, first + np.prod(shape)).reshape(shape)
        for (name, shape), first in zip(shapes.items(), numbers, strict=False)
    }


def actor_parameters(tensors: dict[str, Array], sizes: TinySizes, actor: ActorLayout, rank: int) -> dict[str, Array]:
    """What Megatron-core holds on a rank; layers are numbered as in the whole model.

    Rank order: tensor fastest, then data, then stage; for the experts: expert, then expert data, then stage.
    """
    stages = len(actor.stage_layers)
    stage, within = divmod(rank, actor.dies // stages)
    tensor_rank, expert_rank = within % actor.tensor, within % actor.expert

    def cut(name: str, axis: int) -> Array:
        return np.split(tensors[name], actor.tensor, axis)[tensor_rank]

    def mlp(hf: str, mcore: str) -> None:
        held[mcore + "linear_fc1.weight"] = np.concatenate(
            [cut(hf + "gate_proj.weight", 0), cut(hf + "up_proj.weight", 0)]
        )
        held[mcore + "linear_fc2.weight"] = cut(hf + "down_proj.weight", 1)

    held: dict[str, Array] = {}
    if stage == 0:
        held["embedding.word_embeddings.weight"] = cut("model.embed_tokens.weight", 0)
    if stage == stages - 1:
        held["decoder.final_layernorm.weight"] = tensors["model.norm.weight"]
        held["output_layer.weight"] = cut("lm_head.weight", 0)
    start = sum(actor.stage_layers[:stage])
    for n in range(start, start + actor.stage_layers[stage]):
        hf, mcore = f"model.layers.{n}.", f"decoder.layers.{n}."
        at, to = hf + "self_attn.", mcore + "self_attention."
        held[mcore + "input_layernorm.weight"] = tensors[hf + "input_layernorm.weight"]
        if sizes.q_lora_rank is None:
            held[to + "linear_q_proj.weight"] = cut(at + "q_proj.weight", 0)
        else:
            held[to + "linear_q_down_proj.weight"] = cut(at + "q_a_proj.weight", 0)
            held[to + "linear_q_up_proj.weight"] = cut(at + "q_b_proj.weight", 0)
            held[to + "linear_q_up_proj.layer_norm_weight"] = tensors[at + "q_a_layernorm.weight"]
        held[to + "linear_kv_down_proj.weight"] = cut(at + "kv_a_proj_with_mqa.weight", 0)
        held[to + "linear_kv_up_proj.weight"] = cut(at + "kv_b_proj.weight", 0)
        held[to + "linear_kv_up_proj.layer_norm_weight"] = tensors[at + "kv_a_layernorm.weight"]
        held[to + "linear_proj.weight"] = cut(at + "o_proj.weight", 1)
        after = tensors[hf + "post_attention_layernorm.weight"]
        if n < sizes.dense_layers:
            held[mcore + "mlp.linear_fc1.layer_norm_weight"] = after
            mlp(hf + "mlp.", mcore + "mlp.")
            continue
        held[mcore + "pre_mlp_layernorm.weight"] = after
        held[mcore + "mlp.router.weight"] = tensors[hf + "mlp.gate.weight"]
        held[mcore + "mlp.router.expert_bias"] = tensors[hf + "mlp.gate.e_score_correction_bias"]
        if sizes.shared_experts:
            mlp(hf + "mlp.shared_experts.", mcore + "mlp.shared_experts.")
        for local in range(sizes.experts // actor.expert):
            e = f"{hf}mlp.experts.{expert_rank * (sizes.experts // actor.expert) + local}."
            held[f"{mcore}mlp.experts.linear_fc1.weight{local}"] = np.concatenate(
                [tensors[e + "gate_proj.weight"], tensors[e + "up_proj.weight"]]
            )
            held[f"{mcore}mlp.experts.linear_fc2.weight{local}"] = tensors[e + "down_proj.weight"]
    return held


def rollout_parameters(
    tensors: dict[str, Array], sizes: TinySizes, rollout: RolloutLayout, rank: int
) -> dict[str, Array]:
    """What vLLM needs on a rank, with `PADDING` in the rows that pad the vocabulary.

    Rank order: tensor fastest, then data, then instance; the experts go over all dies of an instance, and what is left
    over goes to the last.
    """
    expert_ranks = rollout.dies // rollout.instances
    tensor_rank, expert_rank = rank % rollout.tensor, rank % expert_ranks

    def cut(tensor: Array, axis: int) -> Array:
        return np.split(tensor, rollout.tensor, axis)[tensor_rank]

    def vocabulary(name: str) -> Array:
        more = -len(tensors[name]) % 64
        return cut(np.pad(tensors[name], ((0, more), (0, 0)), constant_values=PADDING), 0)

    needed = {
        "model.embed_tokens.weight": vocabulary("model.embed_tokens.weight"),
        "model.norm.weight": tensors["model.norm.weight"],
        "lm_head.weight": vocabulary("lm_head.weight"),
    }
    each = sizes.experts // expert_ranks
    first = expert_rank * each
    experts = range(first, sizes.experts if expert_rank == expert_ranks - 1 else first + each)
    for name, tensor in tensors.items():
        part = name.removesuffix(".weight").rpartition(".")[2]
        if not name.startswith("model.layers.") or ".experts." in name:
            continue
        replicated = rollout.replicated_shared and ".shared_experts." in name
        if part in ("q_proj", "q_b_proj", "kv_b_proj"):
            needed[name] = cut(tensor, 0)
        elif part in ("o_proj", "down_proj"):
            needed[name] = tensor if replicated else cut(tensor, 1)
        elif part == "gate_proj":
            halves = [tensor, tensors[name.replace("gate_proj", "up_proj")]]
            fused = halves if replicated else [cut(half, 0) for half in halves]
            needed[name.replace("gate_proj", "gate_up_proj")] = np.concatenate(fused)
        elif part != "up_proj":
            needed[name] = tensor
    for n in range(sizes.dense_layers, sizes.layers):
        hf = f"model.layers.{n}.mlp.experts."
        needed[hf + "w13_weight"] = np.stack(
            [
                np.concatenate([tensors[f"{hf}{e}.gate_proj.weight"], tensors[f"{hf}{e}.up_proj.weight"]])
                for e in experts
            ]
        )
        needed[hf + "w2_weight"] = np.stack([tensors[f"{hf}{e}.down_proj.weight"] for e in experts])
    return needed
