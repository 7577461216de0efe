# SPDX-License-Identifier: Apache-2.0
"""Bytes per token that a pass through Megatron-core 0.12.1's layers holds on a die.

Every term is a tensor that the code keeps for its backward pass (listed with torch's saved_tensors_hooks on a simulated
die) or holds at the moment at which it holds most. The plain-torch stand-ins keep a norm's input and normalised input
in float32; a fused kernel (torch_npu.npu_rms_norm) keeps its input as it is, and an attention kernel its output too,
with the sums of its softmax (float32, 8 of them per head: torch_npu.npu_fusion_attention returns softmax_max and _sum
with a last axis of 8). `load` is the tokens that a die's experts are sent, as a multiple of an even spread over the
dies, `router` the bytes of an element of the type that the router works in (`Subject.router_bytes`).

Widths below are elements per token; with tensor parallelism a die has its share of every one (sequence parallelism).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.models.architecture import Architecture, GroupedQueryArchitecture, LatentArchitecture
from recipe.plan.parameters import BF16, FP32
from recipe.runfile.schema import Recompute

INT64 = 8


@dataclass(frozen=True)
class Pass:
    """Bytes per token of one kind of pass on one stage.

    `kept`: what the forward pass keeps until the backward pass, of all layers; `most`: the fullest moment of the
    stage's forward and backward pass of one micro-batch beyond `kept` of the micro-batches in flight (it can be
    negative, as the fullest moment comes when part of what was kept is given back).
    """

    kept: float
    most: float


def norm(width: int, fused: bool) -> int:
    """What an RMSNorm keeps for its backward pass: its input."""
    return width * BF16 + FP32 if fused else width * 2 * FP32 + FP32


def attention(model: Architecture, fused: bool) -> float:
    """What attention keeps, with the norm before it."""
    kept: float = norm(model.hidden, fused) + model.hidden * BF16  # the norm's output: the projections' input
    kept += _KEPT_BY_ATTENTION[type(model)](model, fused)
    kept += model.heads * model.value_width * BF16  # the output projection's input
    if fused:
        kept += 2 * model.heads * 8 * FP32
    return kept


def _kept_by_latent(model: LatentArchitecture, fused: bool) -> float:
    """multi_latent_attention.py."""
    heads, rope, kept = model.heads, model.qk_rope_head_dim, 0.0
    for rank in (model.q_lora_rank, model.kv_lora_rank):
        if rank is not None:
            kept += norm(rank, fused) + rank * BF16  # the norm in the up projection, and that projection's input
    kept += 4 * rope * BF16 + rope * FP32  # cos and sin of queries and of keys; the angles they are made of
    return kept + heads * (2 * model.key_width + model.value_width) * BF16  # query, key, value


def _kept_by_grouped(model: GroupedQueryArchitecture, fused: bool) -> float:
    """attention.py, `SelfAttention`: a value is a view of linear_qkv's output, all of which stays with it. Where
    queries and keys are normalised, the queries are copied out of it before, the keys are not; a fused norm keeps its
    input."""
    head, heads, groups = model.head_dim, model.heads, model.kv_heads
    kept: float = (heads + 2 * groups) * head * BF16
    if model.qk_norm:
        kept += heads * head * BF16 + (heads + groups) * FP32 if fused else (heads + groups) * norm(head, fused)
    kept += 4 * head * BF16  # cos and sin of queries and of keys; their angles are the model's, not a layer's
    return kept + (heads + groups) * head * BF16  # rotated queries and keys


_KEPT_BY_ATTENTION: dict[type[Architecture], Callable[[Any, bool], float]] = {
    LatentArchitecture: _kept_by_latent,
    GroupedQueryArchitecture: _kept_by_grouped,
}


def attention_forward(model: Architecture) -> int:
    """What attention's forward pass holds when its scores are formed: queries, keys and values, as they are kept."""
    if isinstance(model, GroupedQueryArchitecture):
        return (2 * model.heads + 3 * model.kv_heads) * model.head_dim * BF16
    return model.heads * (2 * model.key_width + model.value_width) * BF16


# The stand-in for a fused kernel takes together as many sequences as have so many scores a head, and one at least
# (megatron_patches/core/extensions/standin/attention.py).
STAND_IN_SCORES = 2**20


def attention_most(model: Architecture, fused: bool, sequence: int, tokens: int, backward: bool) -> float:
    """Most bytes at once in the attention of so many tokens, beyond what it keeps; none in a fused kernel.

    The stand-in reads padded sequences out of the packed ones, and forms scores and weights in float32. Forward, the
    moments are the product of queries and keys, each copied for it head by head; the softmax; and the result on its way
    back among the packed ones.
    """
    if fused:
        return 0.0
    together = min(tokens, max(1, STAND_IN_SCORES // sequence**2) * sequence)
    # A query is each head's own, a key and a value those of all heads that share it.
    key, value, heads, groups = model.key_width, model.value_width, model.heads, model.key_heads
    read, result = heads * key + groups * (key + value), heads * value
    if backward:
        # The last gradient, of the keys: its product and the queries' copy for it, beside all that came before.
        formed = 2 * heads * sequence + result + 4 * heads * key + groups * (key + 2 * value)
        return together * ((read + result) * BF16 + formed * FP32) + tokens * read * BF16
    product = heads * (3 * key + sequence) + groups * key
    formed = max(product, 2 * heads * sequence, heads * sequence + 3 * result)
    return together * (read * BF16 + formed * FP32) + tokens * result * BF16


def dense_mlp(model: Architecture, fused: bool) -> int:
    """What a dense layer's MLP keeps, with the norm before it."""
    width = model.dense_intermediate
    return norm(model.hidden, fused) + model.hidden * BF16 + 2 * width * BF16 + width * BF16


def moe_mlp(model: Architecture, fused: bool, load: float, tensor: int, router: int) -> float:
    """What an expert layer's MLP keeps, with the norm before it (moe/router.py, token_dispatcher.py, experts.py).

    With sequence parallelism the shared experts' whole input too, which other layers gather again for their backward
    pass (moe/shared_experts.py, `pre_forward_comm`).
    """
    h, k, experts, width = model.hidden, model.experts_per_token, model.experts, model.moe_intermediate
    kept: float = norm(h, fused) + h * BF16
    # The router's input, its logits and scores, and the chosen ones; the sigmoid, which is in float32 whatever the
    # router's type, is the scores themselves where that is float32.
    sigmoid = 0 if router == FP32 else FP32
    kept += h * router + experts * (2 * router + sigmoid + 1 + router) + k * (INT64 + router) + 2 * router
    kept += experts * (router + 1)  # probabilities and routing map, which the dispatcher holds until its next use
    kept += k * (INT64 + router)  # the permutation and the probabilities that went along
    kept += (
        load * k * (h + 2 * width + width) * BF16
    )  # inputs of the experts, of their activation, of their second layer
    kept += tensor * h * BF16 if tensor > 1 else 0
    return kept + model.shared_experts * 3 * width * BF16


def mlp(model: Architecture, number: int, fused: bool, load: float, tensor: int, router: int) -> float:
    """What the MLP of the layer of this number keeps per token, with the norm before it."""
    return dense_mlp(model, fused) if number < model.dense_layers else moe_mlp(model, fused, load, tensor, router)


def layer(model: Architecture, number: int, fused: bool, load: float, tensor: int, router: int) -> float:
    """What the layer of this number, from 0, keeps per token."""
    return attention(model, fused) + mlp(model, number, fused, load, tensor, router)


def forward_most(model: Architecture, load: float, tensor: int, tokens: float, stacked: int, router: int) -> float:
    """Most bytes at once in an expert layer's forward pass without gradients, beside the hidden states.

    The moments: the experts' first product and their second, each beside the copy of its weights where there is one;
    between them their activation, with its product with the probabilities in the router's type (moe/experts.py,
    fused_bias_swiglu.py); and the way back of what they made (token_dispatcher.py, `token_unpermutation`): inputs and
    outputs of the experts, the outputs in the order of their senders, and what came back of a die's own tokens, beside
    the shared experts' output, whole and then scattered, or the layer's output.
    """
    h, k, width = model.hidden * BF16, model.experts_per_token, model.moe_intermediate
    received, shared = load * k, model.shared_experts * width * BF16
    moments = (
        tokens * (received * (h + 2 * width * BF16) + shared) + stacked * 2 / 3,
        tokens * (received * (h + 3 * width * BF16 + width * router) + shared),
        tokens * (received * (h + width * BF16 + h) + shared) + stacked / 3,
        tokens * ((3 * received + k) * h + (1 + tensor) * h),
    )
    return max(moments) + tokens * received * router  # the probabilities


def backward_most(model: Architecture, number: int, load: float, router: int) -> float:
    """Most bytes at once in a layer's backward pass, beyond what the forward pass kept.

    Of an expert layer: the gradient of the gated activation, made in the router's type of five pieces as wide as the
    activation (fused_bias_swiglu.py, `weighted_swiglu_back`; MindSpeed leaves it as it is). The gradient that comes in
    is as wide as the second layer's input, which is given back by then.
    """
    h = model.hidden
    if number < model.dense_layers:
        return h * BF16 + 4 * model.dense_intermediate * BF16
    gradient = 5 * load * model.experts_per_token * model.moe_intermediate * router
    return h * BF16 + gradient


def stacked_bytes(model: Architecture, expert: int) -> int:
    """The copy of a die's experts of one layer that MindSpeed f6688 makes in every forward pass and keeps for the
    backward one (mindspeed/te/pytorch/module/grouped_linear.py: `torch.cat([w.t() for w in self.total_weight])`)."""
    return model.experts // expert * 3 * model.moe_intermediate * model.hidden * BF16


def engine_most(model: Architecture, load: float, tensor: int) -> float:
    """The fullest moment of an engine's layer, for each token that a die has a share of.

    Of vLLM-Ascend's expert layer (ops/fused_moe.py): every token's copies for its experts before and after they are
    exchanged, the experts' first outputs and activated outputs, and what comes back. Of a dense layer, whose tokens are
    whole on each of the `tensor` dies: its share of what the gated activation takes and gives.
    """
    k = model.experts_per_token
    if not k:
        return 3 * model.dense_intermediate * BF16 + 3 * model.hidden * BF16 * tensor
    sent, received = 2 * model.hidden, 2 * model.hidden + 3 * model.moe_intermediate
    return k * (sent + load * received) * BF16 + 3 * model.hidden * BF16


def head_forward_most(vocabulary: int, entropy: bool) -> float:
    """The output layer without gradients: the float32 logits; with entropy their copy and two more.

    verl/workers/actor/megatron_actor.py (`logits_processor`), verl/utils/megatron/tensor_parallel.py
    (`_VocabParallelEntropy`); megatron/core/transformer/module.py casts the bfloat16 logits.
    """
    return vocabulary * (4 * FP32 if entropy else FP32 + BF16)


def head_kept(vocabulary: int) -> int:
    """The softmax that the cross entropy keeps, in the logits' own memory (cross_entropy.py)."""
    return vocabulary * FP32


def head_backward_most(vocabulary: int) -> int:
    """Bytes of the head's backward pass beyond the kept softmax, in whose memory its gradient is made: the gradient of
    the logits before the temperature. Its copy in bfloat16 comes when the softmax is given back."""
    return vocabulary * FP32


def forward_pass(
    model: Architecture,
    numbers: range,
    last: bool,
    *,
    tokens: int,
    sequence: int,
    tensor: int,
    fused: bool,
    stacked: int,
    load: float,
    router: int,
    entropy: bool,
    left: Sequence[int] = (),
) -> int:
    """The most bytes of a pass without gradients through the layers `numbers`.

    Args:
        last: the stage has the output layer.
        tokens: of a micro-batch.
        sequence: tokens of a sequence.
        tensor: tensor parallel size.
        fused: the kernels are MindSpeed's or Transformer Engine's.
        stacked: bytes of the copy of a layer's experts, 0 where there is none (`stacked_bytes`).
        load: tokens of a die's experts, as a multiple of an even spread.
        router: bytes of an element of the router's type.
        entropy: the pass computes the entropy too.
        left: bytes that each layer keeps of the pass before; its token dispatcher lets go of them before the experts.
    """
    die_tokens, h = tokens / tensor, model.hidden * BF16
    attention_bytes = attention_most(model, fused, sequence, tokens, backward=False) / tensor
    # The layer's input, that of its MLP, and the sum between them. On the first stage the embedding besides
    # (gpt_model.py, `decoder_input`); on a later one what came from the stage before, which is counted where it stays
    # (recipe/plan/resident.py, `left_over`) and is the first layer's input.
    states = (3 if numbers and numbers[0] == 0 else 2) * h
    attended = attention_bytes + die_tokens * (attention_forward(model) + states)
    dense = die_tokens * (states + 3 * model.dense_intermediate * BF16)
    mixed = die_tokens * (states + h) + forward_most(model, load, tensor, die_tokens, stacked, router)
    moments = [attended]
    for place, number in enumerate(numbers):
        moments.append(attended + sum(left[place:]))
        moments.append((dense if number < model.dense_layers else mixed) + sum(left[place + 1 :]))
    if last:
        moments.append(die_tokens * (h + head_forward_most(model.vocabulary, entropy)))
    return int(max(moments))


def training_pass(
    model: Architecture,
    numbers: range,
    last: bool,
    *,
    tokens: int,
    sequence: int,
    tensor: int,
    fused: bool,
    load: float,
    router: int,
    recompute: Recompute | None,
) -> Pass:
    """Bytes per token of a forward and backward pass through the layers `numbers`; arguments as for `forward_pass`."""
    recomputed_layers, group = recomputed(numbers, recompute)
    h = model.hidden * BF16
    kept = [h / group if n in recomputed_layers else layer(model, n, fused, load, tensor, router) for n in numbers]
    head = norm(model.hidden, fused) + h + head_kept(model.vocabulary) if last else 0.0
    moments = [float(head_backward_most(model.vocabulary))] if last else []
    for number in numbers:
        # Backward from the last layer on: those after this one, and the head, have given back what they kept.
        given_back = head + sum(kept[n - numbers[0]] for n in numbers if n > number)
        rebuilt = sum(
            layer(model, n, fused, load, tensor, router)
            for n in numbers
            if n in recomputed_layers and number - group < n <= number
        )
        attended = attention_most(model, fused, sequence, tokens, backward=True) / tokens
        # By then the layer's MLP has given back what it kept; the gradients of the layer and of the attention's output
        # are there.
        attended += h + model.heads * model.value_width * BF16 - mlp(model, number, fused, load, tensor, router)
        most = max(backward_most(model, number, load, router), attended)
        moments.append(most + rebuilt - given_back)
    return Pass((sum(kept) + head) / tensor, max(moments, default=0.0) / tensor)


def recomputed(numbers: range, recompute: Recompute | None) -> tuple[set[int], int]:
    """The layers that are computed again, and how many of them at once.

    megatron/core/transformer/transformer_block.py, `_checkpointed_forward`: "block" takes the first layers of a stage
    one by one, "uniform" all in groups. Selective recomputation is counted as none, which is more than it needs.
    """
    if recompute is None or recompute.granularity != "full":
        return set(), 1
    count = recompute.layers or 1
    if recompute.method == "uniform":
        return set(numbers), min(count, max(1, len(numbers)))
    return set(numbers[:count]), 1
