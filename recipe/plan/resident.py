# SPDX-License-Identifier: Apache-2.0
"""What lies on a die in every phase: buffers that are never released, and memory that torch does not count."""

from __future__ import annotations

import dataclasses

from recipe.models.architecture import GroupedQueryArchitecture, LatentArchitecture
from recipe.plan.activations import engine_most, recomputed
from recipe.plan.parameters import BF16, FP32
from recipe.plan.subject import Subject
from recipe.runfile.engines import compiled_sizes

RING_MASK = 512  # vllm_ascend/attention/mla_v1.py: prefill mask of npu_ring_mla, 512 x 512
# vllm_ascend/ops/rotary_embedding.py: cos and sin together, cos, and sin, for all positions; with grouped queries the
# first alone (vllm/model_executor/layers/rotary_embedding.py).
ROPE_TABLES = 3
HCCL_BUFFER_MIB = 300  # HCCL_BUFFSIZE of both published launchers
HCCL_BUFFERS_EACH = 2  # CANN 8: "each communicator occupies 2 x HCCL_BUFFSIZE", one to send and one to receive
CONTEXT_MIB = 1024  # context, kernels and streams of a process: assumed, not measured here
INDEX = 8
CAUSAL_MASK = 2048  # mindspeed/core/transformer/flash_attention: a mask of 2048 x 2048 bytes, kept


def engine(run: Subject) -> int:
    """Bytes that the engine keeps after `release`: rope tables, prefill mask, input batch; the trainer's mask."""
    model, rollout = run.model, run.config.rollout
    latent = isinstance(model, LatentArchitecture)
    ropes = (ROPE_TABLES if latent else 1) * model.max_positions * model.rotary_width * BF16
    mask = RING_MASK * RING_MASK * BF16 if latent else 0
    batch = rollout.max_batched_tokens * 4 * INDEX  # token ids, positions, slots, places in the sequences
    return ropes + mask + batch + (CAUSAL_MASK**2 if run.stacked else 0)


def engine_step(run: Subject, tokens: int) -> int:
    """Bytes of an engine step of so many tokens that computes logits for every sequence.

    With grouped queries prompts come with a mask as long and as wide as the longest (vllm-ascend's attention.py,
    `get_attn_mask`).
    """
    model, layout = run.model, run.layout
    layers = tokens / layout.rollout_tensor * engine_most(model, run.expert_load, layout.rollout_tensor)
    if isinstance(model, GroupedQueryArchitecture):
        layers += min(tokens, run.sequence_tokens) ** 2 * BF16
    logits = min(layout.rollout_sequences_per_engine, tokens) * model.vocabulary * BF16
    return int(max(layers, logits + tokens * model.hidden * BF16))


def gathered(run: Subject) -> int:
    """Bytes of Megatron-core's global buffer, which is never released (megatron/core/utils.py, `GlobalMemoryBuffer`):
    the largest input that a linear layer gathers under sequence parallelism."""
    layout = run.layout
    tokens = max(layout.log_prob_micro_batch, layout.micro_batch) * run.sequence_tokens
    return tokens * run.model.hidden * BF16 if layout.actor_tensor > 1 else 0


def left_over(run: Subject, stage: int) -> int:
    """Bytes that actor and reference keep of their last pass on a stage.

    Of every expert layer, its token dispatcher's probabilities in the router's type, routing map and permutation
    (moe/token_dispatcher.py), and the router's bias and counts; of every attention, the angles of its rope for a
    sequence (yarn_rotary_pos_embedding.py caches them); of a later stage, its input (`stage_input`).
    """
    model, layout = run.model, run.layout
    first = run.stage_start(stage)
    numbers = range(first, first + layout.stage_layers[stage])
    layers = sum(n >= model.dense_layers for n in numbers)
    each = layers * (model.experts * (run.router_bytes + 1) + model.experts_per_token * INDEX)
    tokens = (layout.log_prob_micro_batch + layout.micro_batch) * run.sequence_tokens / layout.actor_tensor
    # With grouped queries one for all layers (rotary_pos_embedding.py).
    tables = len(numbers) if isinstance(model, LatentArchitecture) else 1
    angles = tables * run.sequence_tokens * model.rotary_width * FP32
    inputs = stage_input(run, stage, layout.micro_batch) + stage_input(run, stage, layout.log_prob_micro_batch)
    return int(tokens * each) + inputs + 2 * (angles + layers * 2 * model.experts * FP32)


def stage_input(run: Subject, stage: int, sequences: int) -> int:
    """Bytes of what a later stage is given of a micro-batch, which it holds until it is given the next
    (`set_input_tensor`)."""
    return _hidden_state(run, sequences) if stage else 0


def left_by_update(run: Subject, stage: int) -> tuple[int, ...]:
    """Bytes that each of the actor's layers on a stage keeps from an update until its next pass.

    A recomputed expert layer's dispatcher holds probabilities that lead to the layer's input as it was given to the
    recomputation, and to its gradient (tensor_parallel/random.py, `CheckpointFunction`): two hidden states. The input
    of a later stage has its gradient besides, as large as itself (pipeline_parallel/schedules.py, `backward_step`).
    """
    start = run.stage_start(stage)
    numbers = range(start, start + run.layout.stage_layers[stage])
    recomputed_layers = recomputed(numbers, run.config.actor.recompute)[0] - set(range(run.model.dense_layers))
    states = 2 * _hidden_state(run, run.layout.micro_batch)
    return tuple(states if number in recomputed_layers else 0 for number in numbers)


def _hidden_state(run: Subject, sequences: int) -> int:
    """Bytes of the hidden states of a micro-batch."""
    return sequences * run.sequence_tokens * run.model.hidden * BF16 // run.layout.actor_tensor


def communicators(run: Subject) -> dict[str, int]:
    """Sizes of the process groups that a die belongs to, without those of one die; each has an HCCL communicator."""
    layout = run.layout
    sizes = {
        "world": layout.dies,
        "tensor": layout.actor_tensor,
        "pipeline": layout.actor_pipeline,
        "data": layout.actor_data,
        "expert": layout.actor_expert,
        "expert data": layout.expert_data,
        "model": layout.actor_tensor * layout.actor_pipeline,
        "rollout tensor": layout.rollout_tensor,
        "rollout data": layout.rollout_data,
        "rollout expert": layout.rollout_expert,
    }
    return {name: size for name, size in sizes.items() if size > 1}


def outside(run: Subject) -> dict[str, int]:
    """Bytes of a die that torch's counters do not show; on a simulated one those that the run file names."""
    if run.config.simulated:
        named = run.config.simulator.outside_mib * 2**20
        return {"others": named} if named else {}
    if not run.on_npu:
        return {"context": CONTEXT_MIB * 2**20}
    each = HCCL_BUFFERS_EACH * HCCL_BUFFER_MIB * 2**20
    buffers = {"HCCL buffers": len(communicators(run)) * each, "context": CONTEXT_MIB * 2**20}
    # What a graph computes lies in memory of its own: assumed, as nothing here compiles one.
    even = dataclasses.replace(run, expert_load=1.0)
    graphs = sum(engine_step(even, size) for size in compiled_sizes(run.config.rollout, run.layout))
    return buffers | ({"compiled graphs": graphs} if graphs else {})
