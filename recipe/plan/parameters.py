# SPDX-License-Identifier: Apache-2.0
"""The tensors of a model that one die holds, for Megatron-core 0.12.1 and for vLLM-Ascend 0.9.1.

Sources: megatron/core/models/gpt/gpt_layer_specs.py (`get_gpt_layer_with_transformer_engine_spec`, with grouped
experts), vllm_ascend/models/deepseek_v2.py, qwen3_moe.py, and vLLM 0.9.1's Llama, Qwen2 and Qwen3. Order is that of
`named_parameters()`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from recipe.models.architecture import Architecture, GroupedQueryArchitecture, LatentArchitecture

BF16, FP32, FP64 = 2, 4, 8
VOCABULARY_STEP = 64  # vllm: DEFAULT_VOCAB_PADDING_SIZE; DeepSeek-V3's vocabulary needs none


@dataclass(frozen=True)
class Parameter:
    """One parameter of one die; `expert`: of a routed expert, which is not replicated as the others are."""

    name: str
    elements: int
    element_bytes: int = BF16
    expert: bool = False

    @property
    def nbytes(self) -> int:
        return self.elements * self.element_bytes


@functools.lru_cache(maxsize=4096)
def actor_parameters(
    model: Architecture, first_layer: int, layers: int, *, tensor: int, expert: int, first: bool, last: bool
) -> tuple[Parameter, ...]:
    """The parameters of a die in a pipeline stage of `layers` layers from `first_layer` on (counted from 0).

    Args:
        tensor, expert: tensor and expert parallel sizes.
        first, last: the stage holds the embedding, the final norm and the output layer.
    """
    h = model.hidden
    out: list[Parameter] = []
    vocabulary = model.vocabulary // tensor * h
    if first:
        out.append(Parameter("embedding", vocabulary))
    for layer in range(first_layer, first_layer + layers):
        out += [Parameter(f"layers.{layer}.{name}", size, BF16, is_expert) for name, size, is_expert in _actor_layer(
            model, layer, tensor, expert
        )]  # fmt: skip
    if last:
        out.append(Parameter("final_layernorm", h))
    # Tied, the last stage has a copy of the embedding, unless it is the first as well (language_module.py,
    # `setup_embeddings_and_output_layer`).
    if last and not (model.tied and first):
        out.append(Parameter("output_layer", vocabulary))
    return tuple(out)


def _actor_layer(model: Architecture, layer: int, tensor: int, expert: int) -> Iterator[tuple[str, int, bool]]:
    h = model.hidden
    yield "input_layernorm", h, False  # with grouped queries: linear_qkv.layer_norm_weight
    for name, size in _ACTOR_ATTENTION[type(model)](model, tensor):
        yield name, size, False
    yield "pre_mlp_layernorm", h, False  # of a dense layer: mlp.linear_fc1.layer_norm_weight
    if layer < model.dense_layers:
        yield "mlp.linear_fc1", 2 * model.dense_intermediate // tensor * h, False
        yield "mlp.linear_fc2", model.dense_intermediate // tensor * h, False
        return
    yield "mlp.router", model.experts * h, False
    for name, width in (("linear_fc1", 2 * model.moe_intermediate), ("linear_fc2", model.moe_intermediate)):
        for number in range(model.experts // expert):
            yield f"mlp.experts.{name}.weight{number}", width * h, True
    shared = model.shared_experts * model.moe_intermediate // tensor * h
    if shared:
        yield "mlp.shared_experts.linear_fc1", 2 * shared, False
        yield "mlp.shared_experts.linear_fc2", shared, False


def _actor_latent(model: LatentArchitecture, tensor: int) -> Iterator[tuple[str, int]]:
    h, heads, rope, q_rank = model.hidden, model.heads // tensor, model.qk_rope_head_dim, model.q_lora_rank
    yield "linear_proj", h * heads * model.v_head_dim
    if q_rank is None:
        yield "linear_q_proj", heads * model.key_width * h
    else:
        yield "linear_q_down_proj", q_rank // tensor * h
        yield "linear_q_up_proj", heads * model.key_width * q_rank
        yield "linear_q_up_proj.layer_norm_weight", q_rank
    yield "linear_kv_down_proj", (model.kv_lora_rank + rope) // tensor * h
    yield "linear_kv_up_proj", heads * (model.qk_nope_head_dim + model.v_head_dim) * model.kv_lora_rank
    yield "linear_kv_up_proj.layer_norm_weight", model.kv_lora_rank


def _actor_grouped(model: GroupedQueryArchitecture, tensor: int) -> Iterator[tuple[str, int]]:
    h, rows = model.hidden, (model.heads + 2 * model.kv_heads) // tensor * model.head_dim
    yield "linear_proj", h * model.heads // tensor * model.head_dim
    yield "linear_qkv", rows * h
    if model.qkv_bias:
        yield "linear_qkv.bias", rows
    if model.qk_norm:
        yield "q_layernorm", model.head_dim
        yield "k_layernorm", model.head_dim


_ACTOR_ATTENTION: dict[type[Architecture], Callable[[Any, int], Iterator[tuple[str, int]]]] = {
    LatentArchitecture: _actor_latent,
    GroupedQueryArchitecture: _actor_grouped,
}


@functools.lru_cache(maxsize=256)
def rollout_parameters(
    model: Architecture, *, tensor: int, expert: int, replicate_shared: bool
) -> tuple[Parameter, ...]:
    """The parameters of a die in a vLLM engine: attention and vocabulary over `tensor`, routed experts over `expert`.

    Args:
        replicate_shared: the shared experts are whole on every die (graph mode's `enable_multistream_moe`).
    """
    h = model.hidden
    vocabulary = -(-model.vocabulary // VOCABULARY_STEP) * VOCABULARY_STEP // tensor * h
    shared = model.shared_experts * model.moe_intermediate // (1 if replicate_shared else tensor) * h
    out = [Parameter("embed_tokens", vocabulary)]
    for layer in range(model.layers):
        sizes = {
            **dict(_ROLLOUT_ATTENTION[type(model)](model, tensor)),
            "input_layernorm": h,
            "post_attention_layernorm": h,
        }
        if layer < model.dense_layers:
            sizes["gate_up_proj"] = 2 * model.dense_intermediate // tensor * h
            sizes["down_proj"] = model.dense_intermediate // tensor * h
        else:
            local = model.experts // expert
            sizes["experts.w13_weight"] = local * 2 * model.moe_intermediate * h
            sizes["experts.w2_weight"] = local * model.moe_intermediate * h
            if shared:
                sizes["shared_experts.gate_up_proj"], sizes["shared_experts.down_proj"] = 2 * shared, shared
        out += [
            Parameter(f"layers.{layer}.{name}", size, BF16, name.startswith("experts")) for name, size in sizes.items()
        ]
        if layer >= model.dense_layers:
            # Our vllm_ascend_patches/models/deepseek_v2.py and ops/fused_moe.py.
            out.append(Parameter(f"layers.{layer}.gate", model.experts * h, FP32))
            if model.correction_bias:
                out.append(Parameter(f"layers.{layer}.e_score_correction_bias", model.experts, FP32))
    return (*out, Parameter("norm", h), *(() if model.tied else (Parameter("lm_head", vocabulary),)))


def _rollout_latent(model: LatentArchitecture, tensor: int) -> Iterator[tuple[str, int]]:
    h, heads, rope, q_rank = model.hidden, model.heads // tensor, model.qk_rope_head_dim, model.q_lora_rank
    if q_rank is None:
        yield "q_proj", heads * model.key_width * h
    else:
        yield "q_a_proj", q_rank * h
        yield "q_a_layernorm", q_rank
        yield "q_b_proj", heads * model.key_width * q_rank
    yield "kv_a_proj_with_mqa", (model.kv_lora_rank + rope) * h
    yield "kv_a_layernorm", model.kv_lora_rank
    yield "kv_b_proj", heads * (model.qk_nope_head_dim + model.v_head_dim) * model.kv_lora_rank
    yield "o_proj", heads * model.v_head_dim * h


def _rollout_grouped(model: GroupedQueryArchitecture, tensor: int) -> Iterator[tuple[str, int]]:
    rows = (model.heads // tensor + 2 * model.kv_heads_on(tensor)) * model.head_dim
    yield "qkv_proj", rows * model.hidden
    if model.qkv_bias:
        yield "qkv_proj.bias", rows
    if model.qk_norm:
        yield "q_norm", model.head_dim
        yield "k_norm", model.head_dim
    yield "o_proj", model.heads // tensor * model.head_dim * model.hidden


_ROLLOUT_ATTENTION: dict[type[Architecture], Callable[[Any, int], Iterator[tuple[str, int]]]] = {
    LatentArchitecture: _rollout_latent,
    GroupedQueryArchitecture: _rollout_grouped,
}


def derived_rollout_bytes(model: Architecture, tensor: int) -> int:
    """`W_UV` and `W_UK_T` of all layers: copies made of kv_b_proj (vllm_ascend/attention/mla_v1.py,
    `process_weights_after_loading`); none with grouped queries."""
    if not isinstance(model, LatentArchitecture):
        return 0
    heads = model.heads // tensor
    return model.layers * heads * (model.qk_nope_head_dim + model.v_head_dim) * model.kv_lora_rank * BF16


def total_parameters(model: Architecture) -> int:
    """All parameters of the model."""
    everything = actor_parameters(model, 0, model.layers, tensor=1, expert=1, first=True, last=True)
    return sum(tensor.elements for tensor in everything)
