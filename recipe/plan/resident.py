# SPDX-License-Identifier: Apache-2.0
"""What lies on a die in every phase: buffers that are never released, and memory that torch does not count."""

from __future__ import annotations

from recipe.plan.parameters import BF16, FP32, FP64
from recipe.plan.subject import Subject

RING_MASK = 512  # vllm_ascend/attention/mla_v1.py: prefill mask of npu_ring_mla, 512 x 512
ROPE_TABLES = 3  # vllm_ascend/ops/rotary_embedding.py: cos and sin together, cos, and sin, for all positions
HCCL_BUFFER_MIB = 300  # HCCL_BUFFSIZE of both published launchers
HCCL_BUFFERS_EACH = 2  # CANN 8: "each communicator occupies 2 x HCCL_BUFFSIZE", one to send and one to receive
CONTEXT_MIB = 1024  # context, kernels and streams of a process: assumed, not measured here
INDEX = 8


def engine(of: Subject) -> int:
    """Bytes that the engine keeps after `release`: rope tables, prefill mask, the input batch, the routers' biases."""
    model, rollout = of.model, of.config.rollout
    ropes = ROPE_TABLES * model.max_positions * model.qk_rope_head_dim * BF16
    mask = RING_MASK * RING_MASK * BF16
    batch = rollout.max_batched_tokens * 4 * INDEX  # token ids, positions, slots, places in the sequences
    return ropes + mask + batch


def dispatchers(of: Subject, stage: int) -> int:
    """Bytes that the token dispatchers of actor and reference keep of their last pass (moe/token_dispatcher.py).

    Probabilities in the router's float64, routing map, and the permutation, of every expert layer; and the routers'
    biases and token counts.
    """
    model, layout = of.model, of.layout
    first = of.stage_start(stage)
    layers = sum(n >= model.dense_layers for n in range(first, first + layout.stage_layers[stage]))
    each = model.experts * (FP64 + 1) + model.experts_per_token * INDEX
    tokens = (layout.log_prob_micro_batch + layout.micro_batch) * of.sequence_tokens / layout.actor_tensor
    return int(layers * (tokens * each + 2 * 2 * model.experts * FP32))


def built(of: Subject) -> int:
    """Bytes on the die while vLLM sizes its cache, beside weights and the trial step."""
    return engine(of)


def communicators(of: Subject) -> dict[str, int]:
    """Groups of more than one die in a die's process, by what they are for; each has its own HCCL communicator."""
    layout = of.layout
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


def outside(of: Subject) -> dict[str, int]:
    """Bytes of a die that torch's counters do not show; none on a simulated one."""
    if not of.on_npu:
        return {} if of.config.simulated else {"context": CONTEXT_MIB * 2**20}
    each = HCCL_BUFFERS_EACH * HCCL_BUFFER_MIB * 2**20
    return {"HCCL buffers": len(communicators(of)) * each, "context": CONTEXT_MIB * 2**20}
