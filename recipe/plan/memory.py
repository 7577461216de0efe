# SPDX-License-Identifier: Apache-2.0
"""Device and host memory of a run, by the phases of verl 0.6.1's step (verl/workers/megatron_workers.py).

What is on a die in which phase follows from the offloads: parameters, gradients and optimizer of the actor and the
parameters of the reference are there only where a phase loads them, and the rollout's weights and cache only between
`resume` and `release` (our verl_patches/workers/rollout/vllm_rollout/npu_rollout.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recipe.models.architecture import Architecture
from recipe.plan import activations, choices, parameters, reshard, resident, shards
from recipe.plan.parameters import BF16
from recipe.plan.saving import FROM_DIES, FROM_HOST, page_locked, saved_copies
from recipe.plan.stages import stage_buffers, stage_tensors
from recipe.plan.subject import Subject, subject
from recipe.runfile.schema import DIE, HOST, OFFLOADED, SWAPPED, RunConfig

PHASES = ("rollout", "log_prob", "ref", "update", "switch")
BLOCK_TOKENS = 128  # vllm_ascend/platform.py, check_and_update_config
# vllm_ascend/worker/model_runner_v1.py, initialize_kv_cache: each of the two caches of a layer is longer by this many
# elements, so that it can start at a multiple of them. The profiler that sizes the cache does not know of it.
CACHE_ALIGNMENT_ELEMENTS = 2 * 2**20

LAST_PASS, LAST_UPDATE, GATHERED = "left of the last pass", "left by the update", "gathered inputs"
# Kinds that are not there in a phase of the first step, as the passes that leave them come after it.
LEFT_BY_LATER = {
    **dict.fromkeys(("rollout", "switch"), frozenset({LAST_PASS, LAST_UPDATE, GATHERED})),
    **dict.fromkeys(("log_prob", "ref"), frozenset({LAST_UPDATE})),
}


@dataclass(frozen=True)
class Die:
    """Bytes of a die of one pipeline stage by phase and kind; `outside`: what torch does not count."""

    stage: int
    phases: Mapping[str, Mapping[str, int]]
    outside: Mapping[str, int]

    def total(self, phase: str) -> int:
        return sum(self.phases[phase].values())

    @property
    def outside_total(self) -> int:
        return sum(self.outside.values())

    @property
    def fullest(self) -> str:
        return max(self.phases, key=self.total)


@dataclass(frozen=True)
class Cache:
    """The KV cache of a die: tokens that fit, and tokens of all its sequences at their longest."""

    blocks: int
    bytes_per_token: int
    tokens_wanted: int
    longest: int

    @property
    def holds_one(self) -> bool:
        """One sequence at its longest fits."""
        return self.tokens >= self.longest

    @property
    def tokens(self) -> int:
        return self.blocks * BLOCK_TOKENS

    @property
    def nbytes(self) -> int:
        return self.tokens * self.bytes_per_token


@dataclass(frozen=True)
class Host:
    """Bytes of host memory per node by kind; the kinds in `pinned` are page-locked."""

    parts: Mapping[str, int]
    pinned: frozenset[str]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def saving_total(self) -> int:
        """What is there only while a checkpoint is saved."""
        return sum(self.parts.get(kind, 0) for kind in (FROM_DIES, FROM_HOST))

    @property
    def pinned_total(self) -> int:
        return sum(size for name, size in self.parts.items() if name in self.pinned)


@dataclass(frozen=True)
class Memory:
    """The memory that a run needs: of its dies, its KV cache and a host, and what a die has (`limit`)."""

    dies: tuple[Die, ...]
    cache: Cache
    host: Host
    limit: int

    @property
    def phases(self) -> tuple[str, ...]:
        """Those of `PHASES` that a step has: an on-policy one has no pass for old log-probabilities."""
        return tuple(self.dies[0].phases)

    def worst(self, phase: str) -> Die:
        """The die with the most in a phase."""
        return max(self.dies, key=lambda die: die.total(phase))

    @property
    def fits(self) -> bool:
        """Every phase of every die fits, and so does one sequence at its longest in the cache."""
        return not self.too_full and self.cache.holds_one

    @property
    def too_full(self) -> list[tuple[Die, str]]:
        """Dies and phases that need more than a die has."""
        return [
            (die, phase)
            for die in self.dies
            for phase in self.phases
            if die.total(phase) + die.outside_total > self.limit
        ]


def memory(run: Subject) -> Memory:
    """Device memory of one die of each pipeline stage, the KV cache, and the memory of a host."""
    weights = _rollout_weights(run)
    cache = _cache(run, weights)
    reshard_bytes = reshard.buffer_bytes(run)
    dies = tuple(_die(run, stage, weights, cache, most) for stage, most in enumerate(reshard_bytes))
    return Memory(dies, cache, host(run), run.config.hbm_bytes_per_die)


def memory_by_phase(config: RunConfig, model: Architecture | None = None) -> dict[str, int]:
    """Bytes on the fullest die in each phase of a step, what torch does not count included."""
    needed = memory(subject(config, model))
    return {phase: needed.worst(phase).total(phase) + needed.worst(phase).outside_total for phase in needed.phases}


def pinned_bytes_per_host(config: RunConfig, model: Architecture | None = None) -> int:
    """Page-locked bytes of a node: what is offloaded, MindSpeed's swapped optimizer, and copies for a checkpoint."""
    return host(subject(config, model)).pinned_total


def _rollout_weights(run: Subject) -> dict[str, int]:
    layout = run.layout
    tensors = parameters.rollout_parameters(
        run.model,
        tensor=layout.rollout_tensor,
        expert=layout.rollout_expert,
        replicate_shared=run.config.rollout.multistream_moe,
    )
    derived = parameters.derived_rollout_bytes(run.model, layout.rollout_tensor)
    whole = {"rollout weights": sum(tensor.nbytes for tensor in tensors)}
    return whole | ({"derived weights": derived} if derived else {})


def _cache(run: Subject, weights: Mapping[str, int]) -> Cache:
    """The KV cache, in the room that a trial step leaves of the rollout's share (vllm_ascend/worker/worker_v1.py)."""
    model, layout = run.model, run.layout
    per_token = model.cache_width(layout.rollout_tensor) * BF16 * model.layers
    # In the trial step tokens go to experts at random: to all as many (ops/fused_moe.py, `in_profile_run`).
    trial = resident.engine_step(dataclasses.replace(run, expert_load=1.0), run.config.rollout.max_batched_tokens)
    peak = sum(weights.values()) + trial + resident.engine(run) + sum(resident.outside(run).values())
    room = int(run.config.hbm_bytes_per_die * run.config.rollout.memory_share) - peak
    blocks_each = -(-run.sequence_tokens // BLOCK_TOKENS)
    wanted = layout.rollout_sequences_per_engine * blocks_each * BLOCK_TOKENS
    return Cache(max(0, room // (per_token * BLOCK_TOKENS)), per_token, wanted, run.sequence_tokens)


def _most_tokens(run: Subject, cache: Cache) -> int:
    """Of an engine step: the budget, or all prompts; with their answers where the cache makes sequences begin again."""
    each = run.prompt_tokens if cache.tokens >= cache.tokens_wanted else run.sequence_tokens
    return min(run.config.rollout.max_batched_tokens, run.layout.rollout_sequences_per_engine * each)


def _die(run: Subject, stage: int, weights: Mapping[str, int], cache: Cache, reshard_bytes: int) -> Die:
    config, layout, model = run.config, run.layout, run.model
    actor = config.actor
    tensors, laid = stage_tensors(run, stage), stage_buffers(run, stage)
    last = stage == layout.actor_pipeline - 1
    numbers = range(run.stage_start(stage), run.stage_start(stage) + layout.stage_layers[stage])
    plain = sum(tensor.nbytes for tensor in tensors)
    # What stays on the device when nothing is loaded: everything that is not offloaded.
    always = {"engine buffers": resident.engine(run), LAST_PASS: resident.left_over(run, stage)}
    always |= _named(GATHERED, resident.gathered(run))
    if not actor.offload_parameters:
        always |= {
            "actor weights": laid.parameter_bytes,
            "reference weights": plain,
            "gradients": laid.gradient_bytes,
        }
    stays = laid.optimizer_bytes - laid.on_host(run.config.actor.host_share)[0]
    if actor.optimizer in (DIE, HOST) and stays:
        always["optimizer"] = stays

    def forward(entropy: bool, left: Sequence[int] = ()) -> int:
        return activations.forward_pass(
            model, numbers, last,
            tokens=layout.log_prob_micro_batch * run.sequence_tokens, sequence=run.sequence_tokens,
            tensor=layout.actor_tensor, fused=run.fused, stacked=_stack(run, numbers), load=run.expert_load,
            router=run.router_bytes, entropy=entropy, left=left,
        )  # fmt: skip

    rollout = {**weights, "KV cache": cache.nbytes, "engine step": resident.engine_step(run, _most_tokens(run, cache))}
    if run.on_ascend:
        rollout["cache alignment"] = 2 * model.layers * CACHE_ALIGNMENT_ELEMENTS * BF16
    update = {"actor weights": laid.parameter_bytes, "gradients": laid.gradient_bytes}
    if actor.optimizer == OFFLOADED:
        update["optimizer"] = laid.optimizer_bytes
    swapped = shards.swapped_in_bytes(tensors, laid) if actor.optimizer == SWAPPED else 0
    # The optimizer's step comes after the backward pass: the larger of the two counts.
    passes = _training_bytes(run, stage, numbers, last)
    update["activations" if passes >= swapped else "optimizer swapped in"] = max(passes, swapped)
    # What is derived from the weights is made when all of them are there, and the buffers of the sync are gone.
    derived = weights.get("derived weights", 0)
    switch = {"actor weights": laid.parameter_bytes, "rollout weights": weights["rollout weights"]}
    switch |= {"reshard buffers": reshard_bytes} if reshard_bytes >= derived else {"derived weights": derived}
    left = resident.left_by_update(run, stage)
    log_prob, ref = forward(entropy=True), forward(entropy=False)
    # The actor's next pass lets go of it layer by layer; the reference is another model.
    since_update = _named(LAST_UPDATE, sum(left) + resident.stage_input(run, stage, layout.micro_batch))
    in_log_prob = _named(LAST_UPDATE, forward(entropy=True, left=left) - log_prob)
    in_ref = since_update if run.on_policy else {}
    phases = {
        "rollout": {**always, **since_update, **rollout},
        "log_prob": {**always, **in_log_prob, "actor weights": laid.parameter_bytes, "activations": log_prob},
        "ref": {**always, **in_ref, "reference weights": plain, "activations": ref},
        "update": {**always, **update},
        "switch": {**always, **since_update, **switch},
    }
    if run.on_policy:
        del phases["log_prob"]
    return Die(stage, phases, resident.outside(run))


def _named(kind: str, size: int) -> dict[str, int]:
    return {kind: size} if size else {}


def _training_bytes(run: Subject, stage: int, numbers: range, last: bool) -> int:
    """Activations of an update: those of the micro-batches in flight, and the fullest moment of one.

    Megatron-core's schedule without interleaving (pipeline_parallel/schedules.py, `num_warmup_microbatches`): a stage
    runs as many micro-batches ahead as stages follow it.
    """
    layout = run.layout
    tokens = layout.micro_batch * run.sequence_tokens
    one_pass = activations.training_pass(
        run.model,
        numbers,
        last,
        tokens=tokens,
        sequence=run.sequence_tokens,
        tensor=layout.actor_tensor,
        fused=run.fused,
        load=run.expert_load,
        router=run.router_bytes,
        recompute=run.config.actor.recompute,
    )
    micro_batches = layout.update_sequences_per_rank // layout.micro_batch
    in_flight = min(layout.actor_pipeline - stage, micro_batches)
    recomputed_layers = activations.recomputed(numbers, run.config.actor.recompute)[0]
    kept_stacks = sum(number not in recomputed_layers and number >= run.model.dense_layers for number in numbers)
    stacks = in_flight * kept_stacks + (1 if recomputed_layers else 0)
    return int(tokens * (in_flight * one_pass.kept + one_pass.most)) + stacks * _stack(run, numbers)


def _stack(run: Subject, numbers: range) -> int:
    """Bytes of the copy of one layer's experts, where there is one."""
    has_stack = run.stacked and bool(numbers) and numbers[-1] >= run.model.dense_layers
    return activations.stacked_bytes(run.model, run.layout.actor_expert) if has_stack else 0


def host(run: Subject) -> Host:
    """Host memory of a node from what its dies put there.

    verl/utils/megatron_utils.py offloads parameters, of the actor and the reference, and optimizer states, and drops
    gradients. All of it is page-locked: the actor's parameters because verl says so, the others because a copy to the
    host that need not be waited for is (torch: aten/src/ATen/native/TensorConversions.cpp, `_to_copy`; torch_npu:
    csrc/aten/common/ToKernelNpu.cpp; both `pin_out`). MindSpeed's swap optimizer holds its states so, too. An optimizer
    on the host holds its states in ordinary memory, and a page-locked copy of the gradients. Saving a checkpoint adds
    to that (recipe.plan.saving), and so do the sampler's choices of experts (recipe.plan.choices).
    """
    layout, actor = run.layout, run.config.actor
    stages = []
    for stage in range(layout.actor_pipeline):
        laid = stage_buffers(run, stage)
        plain = sum(tensor.nbytes for tensor in stage_tensors(run, stage))
        sizes = {"actor weights": laid.parameter_bytes, "reference weights": plain} if actor.offload_parameters else {}
        if actor.optimizer in (OFFLOADED, SWAPPED):
            sizes["optimizer"] = laid.optimizer_bytes
        if actor.optimizer == HOST:
            sizes["optimizer"], sizes["gradients"] = laid.on_host(run.config.actor.host_share)
        stages.append(sizes | saved_copies(run, stage))
    # Ranks fill a node in order, and the stages are the outermost dimension (tp-cp-ep-dp-pp): a node's dies are of one
    # stage where a stage fills nodes, else of neighbouring ones. The fullest node counts.
    dies = run.config.cluster.dies_per_node
    together = max(1, dies // (layout.dies // layout.actor_pipeline))
    nodes = [stages[first : first + together] for first in range(len(stages) - together + 1)]
    fullest = max(nodes, key=lambda node: sum(sum(sizes.values()) for sizes in node))
    parts = {name: dies // together * sum(sizes[name] for sizes in fullest) for name in fullest[0]}
    if choices.replayed(run):
        parts[choices.KIND] = choices.stored_bytes(run)
    kinds = {FROM_DIES, FROM_HOST, choices.KIND, *(["optimizer"] if actor.optimizer == HOST else [])}
    ordinary = kinds - page_locked(run)
    return Host(parts, frozenset(parts) - ordinary)
