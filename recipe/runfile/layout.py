# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a run: parallel sizes, batches and lengths that follow from the run file.

Megatron-core 0.12.1: the dies of one pipeline stage are tensor x data parallel for attention, and expert x
expert-data parallel for the experts (expert tensor parallelism is 1 here). vLLM 0.9.1 with expert parallelism on:
the experts go over the tensor x data parallel ranks of an instance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import RunConfig


@dataclass(frozen=True)
class Layout:
    """Derived sizes; sequences are prompt plus response, batches are counted in sequences.

    An engine is one tensor-parallel group of the rollout: `rollout_engines` = `rollout_instances` x `rollout_data`.
    `actor_sequences_per_rank` are those of a whole step, `update_sequences_per_rank` those of one optimizer step.
    """

    dies: int
    rollout_tensor: int
    rollout_instances: int
    rollout_data: int
    rollout_engines: int
    rollout_expert: int
    actor_tensor: int
    actor_pipeline: int
    actor_data: int
    actor_expert: int
    expert_data: int
    stage_layers: tuple[int, ...]
    sequences_per_step: int
    rollout_sequences_per_engine: int
    actor_sequences_per_rank: int
    update_prompts: int
    update_sequences_per_rank: int
    micro_batch: int
    log_prob_micro_batch: int

    @property
    def layers(self) -> int:
        return sum(self.stage_layers)

    @property
    def first_stage_layers(self) -> int:
        return self.stage_layers[0]

    @property
    def last_stage_layers(self) -> int:
        return self.stage_layers[-1]

    @property
    def in_words(self) -> str:
        """Dies and parallel sizes in one line."""
        return (
            f"{self.dies} dies; rollout: DP{self.rollout_data} TP{self.rollout_tensor} EP{self.rollout_expert}; "
            f"actor: DP{self.actor_data} TP{self.actor_tensor} PP{self.actor_pipeline} EP{self.actor_expert}"
        )

    @property
    def even_stages(self) -> bool:
        return len(set(self.stage_layers)) == 1

    @property
    def only_ends_differ(self) -> bool:
        """Whether Megatron-core's two keys, for the first and the last stage, can say the layers of all."""
        return len(set(self.stage_layers[1:-1])) <= 1


@dataclass(frozen=True)
class Mismatch:
    """Sizes that do not go together: the rule that they break, by a stable name, and the text for the user."""

    rule: str
    text: str


def problems(config: RunConfig, prompt_tokens: int | None = None) -> Iterator[Mismatch]:
    """Everything that keeps a run from having a layout; arguments as for `lay_out`."""
    dies = config.cluster.nodes * config.cluster.dies_per_node
    stages = tuple(config.actor.stage_layers)
    rollout_tensor, actor_tensor = config.rollout.tensor_parallel, config.actor.tensor_parallel
    expert = config.actor.expert_parallel
    below_one = [
        Mismatch("positive", f"{name} is {value}; expected at least 1")
        for name, value in (
            ("[cluster] nodes x dies_per_node", dies),
            ("[rollout] tensor_parallel", rollout_tensor),
            ("[rollout] instances", config.rollout.instances),
            ("[rollout] samples_per_prompt", config.rollout.samples_per_prompt),
            ("[actor] tensor_parallel", actor_tensor),
            ("[actor] expert_parallel", expert),
            ("[actor] micro_batch_tokens", config.actor.micro_batch_tokens),
            ("[train] prompts_per_step", config.train.prompts_per_step),
            ("[train] updates_per_step", config.train.updates_per_step),
            ("[run] steps", config.run.steps),
            *((f"[actor] stage_layers[{i}]", layers) for i, layers in enumerate(stages)),
        )
        if value < 1
    ]
    yield from below_one
    if below_one:
        return  # sizes of 0 divide nothing; the other rules would fail on them
    sequences = config.train.prompts_per_step * config.rollout.samples_per_prompt
    updates, instances = config.train.updates_per_step, config.rollout.instances
    prompts = config.train.prompts_per_step
    rules = [("updates", "[train] updates_per_step", updates, "[train] prompts_per_step", prompts)]
    if dies % rollout_tensor:
        rules.append(("engines", "[rollout] tensor_parallel", rollout_tensor, "the dies", dies))
    else:
        engines = dies // rollout_tensor
        rules += [
            ("instances", "[rollout] instances", instances, "the rollout's engines", engines),
            ("engine batch", "the number of the rollout's engines", engines, "the sequences of a step", sequences),
        ]
    if dies % (actor_tensor * len(stages)):
        name = "[actor] tensor_parallel x the number of stages"
        rules.append(("actor", name, actor_tensor * len(stages), "the dies", dies))
    else:
        per_stage = dies // len(stages)
        name, data = "the actor's data parallel size", per_stage // actor_tensor
        rules += [
            ("experts", "[actor] expert_parallel", expert, "the dies of one pipeline stage", per_stage),
            ("actor batch", name, data, "the sequences of a step", sequences),
        ]
        if sequences % data == 0 and sequences % updates == 0:
            rules.append(("update batch", name, data, "the sequences of an update", sequences // updates))
    for rule, name, divisor, size_name, size in rules:
        if size % divisor:
            yield Mismatch(rule, f"{name} is {divisor}, which does not divide {size_name} ({size})")
    warmup, steps = config.train.warmup_steps, config.run.steps
    if warmup >= steps:
        # Otherwise an assertion without a message fails in its OptimizerParamScheduler: verl gives it the steps as its
        # end.
        yield Mismatch(
            "warm-up",
            f"[train] warmup_steps is {warmup}, and Megatron-core wants it below [run] steps ({steps}); lower it, or "
            "raise the steps",
        )
    budget, longest = config.rollout.max_batched_tokens, longest_sequence(config, prompt_tokens)
    if prompt_tokens is not None and config.rollout.kv_nz and budget < longest:
        yield Mismatch(
            "budget",
            f"[rollout] max_batched_tokens is {budget}, below the longest sequence ({longest}): its prompt would be "
            "prefilled in pieces, which kv_nz does not allow; raise it, or remove kv_nz",
        )


def longest_sequence(config: RunConfig, prompt_tokens: int | None = None) -> int:
    """Tokens of the longest prompt and response together."""
    return (prompt_tokens or config.data.max_prompt_tokens) + config.data.max_response_tokens


def lay_out(config: RunConfig, prompt_tokens: int | None = None) -> Layout:
    """The layout of a run.

    Args:
        config: the run.
        prompt_tokens: the padded prompt length; by default the run file's upper limit.

    Raises:
        ConfigError: the first of the `problems`: sizes that do not divide, pipeline stages that Megatron-core cannot
            express, or a token budget that rollout.kv_nz cannot do with (once `prompt_tokens` is known).
    """
    for problem in problems(config, prompt_tokens):
        raise ConfigError(problem.text)
    dies = config.cluster.nodes * config.cluster.dies_per_node
    stages = tuple(config.actor.stage_layers)
    rollout_tensor, actor_tensor = config.rollout.tensor_parallel, config.actor.tensor_parallel
    expert, per_stage = config.actor.expert_parallel, dies // len(stages)
    sequences = config.train.prompts_per_step * config.rollout.samples_per_prompt
    engines, instances, updates = dies // rollout_tensor, config.rollout.instances, config.train.updates_per_step
    actor_data = per_stage // actor_tensor
    longest = longest_sequence(config, prompt_tokens)
    update_sequences = sequences // updates // actor_data
    log_prob_tokens = config.actor.log_prob_micro_batch_tokens or config.actor.micro_batch_tokens
    return Layout(
        dies=dies,
        rollout_tensor=rollout_tensor,
        rollout_instances=instances,
        rollout_data=engines // instances,
        rollout_engines=engines,
        rollout_expert=dies // instances,
        actor_tensor=actor_tensor,
        actor_pipeline=len(stages),
        actor_data=actor_data,
        actor_expert=expert,
        expert_data=per_stage // expert,
        stage_layers=stages,
        sequences_per_step=sequences,
        rollout_sequences_per_engine=sequences // engines,
        actor_sequences_per_rank=sequences // actor_data,
        update_prompts=config.train.prompts_per_step // updates,
        update_sequences_per_rank=update_sequences,
        micro_batch=_largest_divisor(update_sequences, config.actor.micro_batch_tokens // longest),
        log_prob_micro_batch=_largest_divisor(sequences // actor_data, log_prob_tokens // longest),
    )


def _largest_divisor(size: int, most: int) -> int:
    """The largest divisor of `size` up to `most`; 1 where even that is too much."""
    limit = max(1, most)
    small = [divisor for divisor in range(1, min(math.isqrt(size), limit) + 1) if size % divisor == 0]
    return max(divisor for divisor in (*small, *(size // divisor for divisor in small)) if divisor <= limit)
