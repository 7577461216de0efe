# SPDX-License-Identifier: Apache-2.0
"""An estimate of a step's time: work over the rates that one published step had, on dies of that kind.

Generation: one engine step for each token of the longest answer. Its time is that of reading weights and KV cache and
of exchanging tokens at the data sheet's rates, and a fixed part (scheduling, launches, waiting for the slowest expert)
that is whatever the published step took beyond. Passes without gradients and updates: floating point operations over
the rate of the published step's pass and update, with the same share of waiting in the pipeline. Everything the
published run did in a phase (switches, dispatch by Ray, unbalanced experts) is therefore in these constants.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipe.plan.hardware import BY_DEVICE, Hardware
from recipe.plan.memory import BLOCK_TOKENS
from recipe.plan.parameters import BF16, actor_parameters, rollout_parameters
from recipe.plan.published import DIES, R1_ASCEND
from recipe.plan.subject import Subject
from recipe.plan.traffic import Lengths, recomputed_share
from recipe.runfile.architecture import KNOWN, Architecture
from recipe.runfile.schema import NPU

# The layout of the published step that the constants come from: verl recipe/r1_ascend's launch script.
_TENSOR, _STAGES, _DATA, _MICRO, _LOG_PROB_MICRO = 2, 8, 32, 1, 4
_LIMIT_TOKENS = 2048


@dataclass(frozen=True)
class Rates:
    """What the published step achieved: floating point operations per second and die, and fixed seconds beside them."""

    forward_flops: float
    update_flops: float
    engine_step_s: float
    reward_s_per_answer: float


@dataclass(frozen=True)
class Estimate:
    """Seconds by phase, and the tokens of the step; `devices` are what is sold as one: an A3 NPU is two dies."""

    phases: dict[str, float]
    tokens: float
    devices: float
    hardware: Hardware

    @property
    def step(self) -> float:
        return sum(self.phases.values())

    @property
    def tokens_per_second_per_device(self) -> float:
        return self.tokens / self.step / self.devices


def active_parameters(model: Architecture) -> int:
    """Parameters that one token is multiplied with: all but the embedding and the experts it is not sent to."""
    tensors = actor_parameters(model, 0, model.layers, tensor=1, expert=1, first=False, last=True)
    experts = sum(tensor.elements for tensor in tensors if tensor.expert)
    rest = sum(tensor.elements for tensor in tensors if not tensor.expert)
    return rest + experts * model.experts_per_token // model.experts


def forward_flops(model: Architecture, tokens: float, sequence: float) -> float:
    """Floating point operations of a forward pass: 2 per active parameter and token, and those of causal attention.

    A query of a sequence of s meets s/2 keys on the average, in products as wide as a key and as a value.
    """
    wide = model.heads * (model.qk_nope_head_dim + model.qk_rope_head_dim + model.v_head_dim)
    return tokens * (2 * active_parameters(model) + 2 * model.layers * wide * sequence / 2)


def bubble(micro_batches: int, stages: int) -> float:
    """How much longer a pipeline takes than its work: (m + p - 1) / m (Narayanan et al. 2021, section 2.2)."""
    return (micro_batches + stages - 1) / micro_batches


def engine_floor_s(
    model: Architecture, tensor: int, expert: int, sequences: int, context: float, hardware: Hardware
) -> float:
    """The least time of an engine step: weights and cache read once, tokens sent to their experts and back."""
    weights = sum(t.nbytes for t in rollout_parameters(model, tensor=tensor, expert=expert, replicate_shared=False))
    blocks = -(-context // BLOCK_TOKENS)
    cache = sequences * blocks * BLOCK_TOKENS * (model.kv_lora_rank + model.qk_rope_head_dim) * BF16 * model.layers
    sent = sequences / tensor * model.experts_per_token * 2 * model.hidden * BF16 * model.moe_layers
    return (weights + cache) / (hardware.memory_gb_s * 1e9) + sent / (hardware.link_gb_s * 1e9)


def calibrated() -> Rates:
    """The constants, from the published step of verl's r1_ascend recipe."""
    row, model, hardware = R1_ASCEND, KNOWN["deepseek_v3_671b"], BY_DEVICE[NPU]
    sequence = row.prompt + row.response
    work = forward_flops(model, row.sequences * sequence, sequence)
    per_rank = row.sequences // _DATA
    waiting = bubble(per_rank // _LOG_PROB_MICRO, _STAGES)
    forward = 2 * work * waiting / DIES / (row.log_prob + row.ref)
    update = work * (3 + row.recomputed) * bubble(per_rank // _MICRO, _STAGES) / DIES / row.update
    each = row.sequences // (DIES // _TENSOR)
    floor = engine_floor_s(model, _TENSOR, DIES, each, row.prompt + row.response / 2, hardware)
    return Rates(forward, update, row.generation / _LIMIT_TOKENS - floor, row.reward / row.sequences)


def estimate(run: Subject, mean: Lengths, recomputed: float | None = None) -> Estimate | None:
    """Seconds of each phase of a step; None for simulated dies, about whose speed nothing can be said.

    Args:
        run: the run.
        mean: mean lengths, and the longest answer.
        recomputed: share of the layers that an update computes twice, if another than the run file's.
    """
    hardware = BY_DEVICE.get(run.config.cluster.device)
    if hardware is None:
        return None
    rates, layout, model = calibrated(), run.layout, run.model
    speed = hardware.tflops_bf16 / BY_DEVICE[NPU].tflops_bf16
    tokens = layout.sequences_per_step * mean.sequence
    work = forward_flops(model, tokens, mean.sequence)
    passes = work * bubble(layout.actor_sequences_per_rank // layout.log_prob_micro_batch, layout.actor_pipeline)
    forward_s = passes / layout.dies / (rates.forward_flops * speed)
    micro_batches = layout.update_sequences_per_rank // layout.micro_batch
    recomputed_part = recomputed_share(run) if recomputed is None else recomputed
    update = work * (3 + recomputed_part) * bubble(micro_batches, layout.actor_pipeline)
    floor = engine_floor_s(
        model,
        layout.rollout_tensor,
        layout.rollout_expert,
        layout.rollout_sequences_per_engine,
        mean.prompt + mean.response / 2,
        hardware,
    )
    phases = {
        "generation and switches": mean.longest_response * (floor + rates.engine_step_s),
        "reward": layout.sequences_per_step * rates.reward_s_per_answer,
        "log_prob": 0.0 if run.on_policy else forward_s,
        "ref": forward_s,
        "update": update / layout.dies / (rates.update_flops * speed),
    }
    per_package = 2 if run.on_npu else 1
    return Estimate(phases, tokens, layout.dies / per_package, hardware)
