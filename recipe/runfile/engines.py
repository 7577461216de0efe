# SPDX-License-Identifier: Apache-2.0
"""What model and device rule out of a rollout whose sizes divide: for preflight, and for the plan's search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from recipe.models.architecture import Architecture
from recipe.runfile.layout import Layout
from recipe.runfile.schema import CUDA, Hardware, Rollout, RunConfig
from verl_patches.workers.rollout.vllm_rollout.engine_args import graph_sizes

UNEVEN_EXPERTS, JOINED_ON_GPUS, BUDGET, GRAPH_SIZE, GRAPH_HEADS, GRAPH_FAMILY, EXCHANGE = (
    "uneven experts", "joined on gpus", "budget", "graph size", "graph heads", "graph family", "exchange"
)  # fmt: skip
# npu_fused_infer_attention_score of op-plugin 7.1.0, of a latent of 512.
HEADS_IN_GRAPHS = (32, 64, 128)
# From so many dies of an instance on, a decode step exchanges tokens by npu_moe_distribute_dispatch_v2
# (vllm_ascend/ascend_forward_context.py), which takes these numbers of them (CANN 8.2.RC1).
LEAST_EXCHANGED, MOST_EXCHANGED, EXCHANGED_ON_A2 = 16, 384, (16, 32, 64)


@dataclass(frozen=True)
class Misfit:
    """What is ruled out: by which rule, by a stable name, what was found, and what it should be."""

    rule: str
    found: str
    expected: str


def graph_sequences(layout: Layout) -> int:
    """The sequences that the compiled graph of a step is for: an engine's, padded to whole ones on each of its dies."""
    return -(-layout.rollout_sequences_per_engine // layout.rollout_tensor) * layout.rollout_tensor


def graph_options(rollout: Rollout) -> dict[str, Any]:
    """What the run file asks of vLLM-Ascend's `torchair_graph_config`, beyond what the rollout derives."""
    asked: dict[str, Any] = {"graph_batch_sizes": sorted(rollout.graph_sizes)} if rollout.graph_sizes else {}
    switches = {
        "enable_multistream_mla": rollout.multistream_mla,
        "enable_multistream_moe": rollout.multistream_moe,
        "enable_kv_nz": rollout.kv_nz,
    }
    return asked | {name: True for name, on in switches.items() if on}


def syncs_directly(config: RunConfig, model: Architecture | None) -> bool:
    """Whether each die is sent only the weights that it lacks: not on GPUs, where verl's own rollout takes no part in
    it, nor for a model whose tensors the routes do not know."""
    return config.rollout.direct_sync and config.cluster.device != CUDA and (model is None or model.has_routes)


def compiled_sizes(rollout: Rollout, layout: Layout) -> list[int]:
    """The sequences that graphs are compiled for, ascending; none without graph mode.

    vLLM-Ascend adds the size of a full batch to a list without it (model_runner_v1.py,
    `check_torchair_graph_batch_sizes`).
    """
    if not rollout.graph_mode:
        return []
    sequences = layout.rollout_sequences_per_engine
    sizes = rollout.graph_sizes or graph_sizes(sequences, layout.rollout_tensor)
    return sorted({*(size for size in sizes if size < sequences), graph_sequences(layout)})


def misfits(config: RunConfig, layout: Layout, model: Architecture, strict: bool) -> Iterator[Misfit]:
    """Everything that is ruled out; `strict`: the device refuses what an NPU does not take, as every NPU does."""
    rollout = config.rollout
    if model.experts % layout.rollout_expert:
        found = f"{model.experts} experts over the {layout.rollout_expert} dies of an instance"
        yield Misfit(UNEVEN_EXPERTS, found, "a whole number each")
    if config.cluster.device == CUDA and layout.rollout_data > 1:
        found = f"[rollout] instances = {layout.rollout_instances} for {layout.rollout_engines} engines"
        yield Misfit(JOINED_ON_GPUS, found, f"{layout.rollout_engines}")
    budget, sequences = rollout.max_batched_tokens, layout.rollout_sequences_per_engine
    if budget < sequences:
        found = f"max_batched_tokens = {budget} for {sequences} sequences of an engine"
        yield Misfit(BUDGET, found, f"at least {sequences}")
    if strict and model.experts:
        taken = exchanged_dies(layout.rollout_expert, config.node_hardware)
        if taken is not None:
            found = f"the experts of an instance are spread over {layout.rollout_expert} dies"
            yield Misfit(EXCHANGE, found, taken)
    if not rollout.graph_mode:
        return
    if not model.has_graphs:
        yield Misfit(GRAPH_FAMILY, "graph_mode for a model with grouped-query attention", "multi-latent attention")
        return
    if graph_sequences(layout) > budget:
        found = f"a graph for {graph_sequences(layout)} sequences, max_batched_tokens = {budget}"
        yield Misfit(GRAPH_SIZE, found, "no more")
    for size in rollout.graph_sizes or ():
        if size > graph_sequences(layout) or size % layout.rollout_tensor:
            found = f"graph_sizes has {size}, of {sequences} sequences on {layout.rollout_tensor} dies of an engine"
            yield Misfit(GRAPH_SIZE, found, f"multiples of {layout.rollout_tensor}, at most {graph_sequences(layout)}")
    if strict and model.heads // layout.rollout_tensor not in HEADS_IN_GRAPHS:
        found = f"{model.heads} heads over [rollout] tensor_parallel = {layout.rollout_tensor} dies"
        yield Misfit(GRAPH_HEADS, found, "32, 64 or 128 on each")


def exchanged_dies(dies: int, hardware: Hardware | None) -> str | None:
    """What an instance of so many dies should be, where they cannot exchange tokens for their experts; else None."""
    if hardware is not None and hardware.limits == "a2" and dies >= LEAST_EXCHANGED and dies not in EXCHANGED_ON_A2:
        return f"fewer than {LEAST_EXCHANGED} of an A2, or 16, 32 or 64"
    return f"at most {MOST_EXCHANGED}" if dies > MOST_EXCHANGED else None
