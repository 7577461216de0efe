# SPDX-License-Identifier: Apache-2.0
"""Bytes that a die sends to others, or exchanges with its host, in one step: arithmetic on sizes, by cause.

Tokens are counted as they are, packed (verl's `use_remove_padding`), and spread evenly over the dies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recipe.plan import choices, reshard
from recipe.plan.activations import recomputed
from recipe.plan.counts import counts_of
from recipe.plan.parameters import BF16, FP32
from recipe.plan.stages import stage_buffers, stage_tensors
from recipe.plan.subject import Subject
from recipe.runfile.schema import OFFLOADED, SWAPPED


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt and of an answer, which the work of a step grows with, and the longest answer."""

    prompt: float
    response: float
    longest_response: int

    @property
    def sequence(self) -> float:
        return self.prompt + self.response


def lengths(run: Subject, prompt: float | None = None, response: float | None = None) -> Lengths:
    """The mean lengths that are given; the limits of the run file for those that are not."""
    return Lengths(prompt or run.prompt_tokens, response or run.response_tokens, run.response_tokens)


def expert_passes(run: Subject, stage: int) -> dict[str, int]:
    """Expert layers of a stage that a token passes, by phase; a backward pass exchanges as much as a forward."""
    start = run.stage_start(stage)
    numbers = range(start, start + run.layout.stage_layers[stage])
    layers = sum(n >= run.model.dense_layers for n in numbers)
    again = sum(n >= run.model.dense_layers for n in recomputed(numbers, run.config.actor.recompute)[0])
    return {"log_prob": 0 if run.on_policy else layers, "ref": layers, "update": 2 * layers + again}


def traffic(run: Subject, mean: Lengths, among: Sequence[int] | None = None) -> dict[str, int]:
    """Bytes that a die sends in a step by cause; for each cause those of the die that sends most.

    Args:
        run: the run.
        mean: lengths.
        among: the pipeline stages of the dies that are looked at; default: all.
    """
    layout, model = run.layout, run.model
    tokens = layout.actor_sequences_per_rank * mean.sequence / layout.actor_tensor
    stages = range(layout.actor_pipeline) if among is None else among
    away = 1 - 1 / layout.actor_expert
    # moe/token_dispatcher.py: hidden states and the router's probabilities go to the experts, hidden states come back.
    each = model.experts_per_token * (2 * model.hidden * BF16 + run.router_bytes) * away
    by_stage = [expert_passes(run, stage) for stage in stages]
    exchanged = {
        f"expert all-to-all, {phase}": tokens * each * max(layers[phase] for layers in by_stage)
        for phase in by_stage[0]
    }

    last, forwards = layout.actor_pipeline - 1, 2 if run.on_policy else 3
    # Hidden states go to the next stage in every pass, gradients to the one before in the update's.
    handed_on = max(forwards * (stage < last) + (stage > 0) for stage in stages)
    pipeline = tokens * model.hidden * BF16 * handed_on

    laid = max((stage_buffers(run, stage) for stage in stages), key=lambda buffers: buffers.dense)
    shared = 1 - 1 / layout.actor_data
    shared_experts = 1 - 1 / layout.expert_data
    # Gradients are reduce-scattered in float32, updated parameters gathered in bfloat16: all of them by the optimizer
    # of the experts, and all of them again by that of the rest (distrib_optimizer.py, `step_with_ready_grads`).
    updates, gathers = run.config.train.updates_per_step, (laid.dense > 0) + (laid.expert > 0)
    optimizer = updates * (FP32 + gathers * BF16) * (laid.dense * shared + laid.expert * shared_experts)

    counts, engine_tokens = counts_of(model), layout.rollout_sequences_per_engine * mean.sequence
    causes = {
        **{f"reshard, {name}": size for name, size in reshard.received_bytes(run, among).items()},
        "expert all-to-all, rollout": counts.to_experts_bytes(
            engine_tokens, layout.rollout_tensor, layout.rollout_expert
        ),
        "tensor all-reduce, rollout": counts.reduced_bytes(engine_tokens, layout.rollout_tensor),
        **exchanged,
        "pipeline": pipeline,
        "gradients and parameters": optimizer,
        "host, offloads": _offloads(run, stages),
        **(
            {"choices of experts": choices.fetched_bytes(run, mean.sequence) / run.config.cluster.dies_per_node}
            if choices.replayed(run)
            else {}
        ),
    }
    return {name: int(size) for name, size in causes.items() if size >= 1}


def recomputed_share(run: Subject) -> float:
    """Share of the layers that an update computes twice."""
    layout = run.layout
    recomputed_layers = 0
    for stage, count in enumerate(layout.stage_layers):
        start = run.stage_start(stage)
        recomputed_layers += len(recomputed(range(start, start + count), run.config.actor.recompute)[0])
    return recomputed_layers / layout.layers


def _offloads(run: Subject, stages: Iterable[int]) -> int:
    """Bytes between a die and its host: offloaded parameters and optimizer states, or gradients and weights where the
    optimizer is on the host."""
    actor, updates, moved = run.config.actor, run.config.train.updates_per_step, 0
    for stage in stages:
        laid, stage_bytes = stage_buffers(run, stage), 0
        if actor.offload_parameters:
            # rollout_mode, update_actor, compute_log_prob; or the first two together, in one coming and going
            phases = (1 if actor.keep_until_sync else 2) + (0 if run.on_policy else 1)
            reference = sum(tensor.nbytes for tensor in stage_tensors(run, stage))
            stage_bytes += 2 * phases * laid.parameter_bytes + 2 * reference
        if actor.optimizer == OFFLOADED:
            stage_bytes += 2 * laid.optimizer_bytes
        if actor.optimizer == SWAPPED:
            stage_bytes += 2 * updates * laid.optimizer_bytes
        # Gradients go to the host in float32, and come back as weights that are made bfloat16 there.
        stage_bytes += int(updates * laid.optimizer_elements * run.config.actor.host_share * (FP32 + BF16))
        moved = max(moved, stage_bytes)
    return moved
