# SPDX-License-Identifier: Apache-2.0
"""verl's workers of one die, built and led through a step as its trainer does it, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from verl import DataProto
from verl.workers import megatron_workers

from recipe.rehearse.batches import prompts, sequences
from recipe.rehearse.counters import Counters
from recipe.rehearse.lengths import Lengths

LOADS = ("load_megatron_model_to_gpu", "load_megatron_optimizer", "offload_megatron_model_to_cpu")
ROLLOUT_POINTS = ("resume", "update_weights", "release")


@dataclass(frozen=True)
class Work:
    """What a die does in a step: sequences of the rollout (0: none), of the passes without gradients, and of the
    update. `old_log_probs`: there is a pass for them. `decode_steps`: tokens of an answer that the engine
    generates, all of the run's if None."""

    lengths: Lengths
    rollout_sequences: int
    forward_sequences: int
    update_sequences: int
    old_log_probs: bool = True
    decode_steps: int | None = None


@dataclass(frozen=True)
class Workers:
    """The workers of a die."""

    actor: Any
    reference: Any

    @property
    def vocabulary(self) -> int:
        """Tokens that the model and the tokenizer both have."""
        return min(int(self.actor.hf_config.vocab_size), len(self.actor.tokenizer))


def build_workers(
    config: Any,
    counters: Counters,
    reference: bool = True,
    rollout: bool = True,
    mini_batch: int | None = None,
    contents: Callable[[Workers], None] | None = None,
) -> Workers:
    """Build reference and actor in the driver's order, with readings at their loads, offloads and optimizer steps.

    Args:
        config: verl's `actor_rollout_ref`.
        counters: take the readings from now on.
        reference, rollout: build the reference's model, and the rollout engine, too.
        mini_batch: sequences of this die in an update, where they are not those of the run.
        contents: is told of the workers as soon as there are any.
    """
    for name in LOADS:
        counters.read_after(megatron_workers, name)
    worker = megatron_workers.ActorRolloutRefWorker
    actor, referring = worker(config, role="actor_rollout"), worker(config, role="ref")
    if mini_batch is not None:
        actor.config.actor.ppo_mini_batch_size = mini_batch
    workers = Workers(actor, referring)
    if contents is not None:
        contents(workers)
    if not rollout:
        actor._build_rollout = lambda *args, **kwargs: None
        actor.gen_random_states = torch.npu.get_rng_state()  # a part of every checkpoint
    if reference:
        referring.init_model()
    actor.init_model()
    if rollout:
        for name in ROLLOUT_POINTS:
            counters.read_around_async(actor.rollout, name)
    counters.read_after(actor.actor_optimizer, "step", before=True)
    return workers


def run_step(workers: Workers, work: Work, counters: Counters, seed: int) -> None:
    """What verl's trainer asks of the workers in a step; the phases are `rollout`, `log_prob`, `ref` and `update`."""
    actor, lengths, vocabulary = workers.actor, work.lengths, workers.vocabulary
    if work.rollout_sequences:
        _end_answers(actor.rollout, work)
        with counters.measured("rollout"):
            actor.generate_sequences(prompts(work.rollout_sequences, lengths, vocabulary))
    elif actor._is_offload_param:
        # As the sync leaves them.
        megatron_workers.offload_megatron_model_to_cpu(actor.actor_module)
    torch.manual_seed(seed)
    data = sequences(work.forward_sequences, lengths, vocabulary)
    old_log_probs = torch.zeros(data.batch["responses"].shape)
    if work.old_log_probs:
        old_log_probs = _phase(counters, "log_prob", lambda: actor.compute_log_prob(data)).batch["old_log_probs"]
    reference = _phase(counters, "ref", lambda: workers.reference.compute_ref_log_prob(data))
    if work.update_sequences != work.forward_sequences:
        data = sequences(work.update_sequences, lengths, vocabulary)
    rows = torch.arange(work.update_sequences) % work.forward_sequences
    data.batch["old_log_probs"] = old_log_probs[rows]
    data.batch["rollout_log_probs"] = torch.zeros(data.batch["responses"].shape)
    data.batch["ref_log_prob"] = reference.batch["ref_log_prob"][rows]
    data.meta_info |= {"temperature": 1.0, "global_token_num": lengths.tokens(work.update_sequences)}
    _phase(counters, "update", lambda: actor.update_actor(data))


def _end_answers(rollout: Any, work: Work) -> None:
    """Every answer ends at its length, or behind the decode steps that are asked for."""
    from vllm import SamplingParams

    most = work.decode_steps or work.lengths.padded_response
    first = rollout.sampling_params
    given: SamplingParams = first[0] if isinstance(first, list) else first
    ends = [min(response, most) for _, response in work.lengths.drawn(work.rollout_sequences)]
    rollout.sampling_params = [given.clone() for _ in ends]
    for sampling, end in zip(rollout.sampling_params, ends, strict=True):
        sampling.max_tokens = end


def _phase(counters: Counters, name: str, work: Callable[[], DataProto]) -> DataProto:
    with counters.measured(name):
        return work()
