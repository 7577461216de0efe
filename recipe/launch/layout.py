# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a run: everything about who holds what that follows from the run file.

Megatron-core 0.12.1: the dies of one pipeline stage are tensor x data parallel for attention, and expert x
expert-data parallel for the experts (expert tensor parallelism is 1 here). vLLM 0.9.1 with expert parallelism on:
the experts go over tensor x data parallel ranks, which with one engine per die are all the dies.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipe.launch.config import RunConfig
from recipe.launch.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """Derived sizes; sequences are prompt plus response, batches are counted in sequences."""

    dies: int
    rollout_tensor: int
    rollout_data: int
    rollout_expert: int
    actor_tensor: int
    actor_pipeline: int
    actor_data: int
    actor_expert: int
    expert_data: int
    stage_layers: tuple[int, ...]
    sequences_per_step: int
    rollout_sequences_per_rank: int
    actor_sequences_per_rank: int
    micro_batch: int

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
    def even_stages(self) -> bool:
        return len(set(self.stage_layers)) == 1


def derive(config: RunConfig, prompt_tokens: int | None = None) -> Layout:
    """The layout of a run.

    Args:
        config: the run.
        prompt_tokens: the padded prompt length; by default the run file's upper limit.

    Raises:
        ConfigError: sizes that do not divide, pipeline stages that Megatron-core cannot express, or a token budget that
            rollout.kv_nz cannot do with (once `prompt_tokens` is known).
    """
    dies = config.cluster.nodes * config.cluster.dies_per_node
    stages = tuple(config.actor.stage_layers)
    rollout_tensor, actor_tensor = config.rollout.tensor_parallel, config.actor.tensor_parallel
    expert = config.actor.expert_parallel
    for name, value in (
        ("[cluster] nodes x dies_per_node", dies),
        ("[rollout] tensor_parallel", rollout_tensor),
        ("[rollout] samples_per_prompt", config.rollout.samples_per_prompt),
        ("[actor] tensor_parallel", actor_tensor),
        ("[actor] expert_parallel", expert),
        ("[actor] micro_batch_tokens", config.actor.micro_batch_tokens),
        ("[train] prompts_per_step", config.train.prompts_per_step),
        ("[run] steps", config.run.steps),
        ("[run] validate_every", config.run.validate_every),
        *((f"[actor] stage_layers[{i}]", layers) for i, layers in enumerate(stages)),
    ):
        if value < 1:
            raise ConfigError(f"{name} is {value}; expected at least 1")
    if len(set(stages[1:-1])) > 1:
        raise ConfigError(
            f"[actor] stage_layers is {list(stages)}; Megatron-core lets only the first and the last stage differ"
        )
    _divides("[rollout] tensor_parallel", rollout_tensor, "the dies", dies)
    _divides("[actor] tensor_parallel x the number of stages", actor_tensor * len(stages), "the dies", dies)
    per_stage = dies // len(stages)
    _divides("[actor] expert_parallel", expert, "the dies of one pipeline stage", per_stage)

    sequences = config.train.prompts_per_step * config.rollout.samples_per_prompt
    rollout_data = dies // rollout_tensor
    actor_data = per_stage // actor_tensor
    _divides("the rollout's data parallel size", rollout_data, "the sequences of a step", sequences)
    _divides("the actor's data parallel size", actor_data, "the sequences of a step", sequences)
    actor_per_rank = sequences // actor_data
    longest = (prompt_tokens or config.data.max_prompt_tokens) + config.data.max_response_tokens
    budget = config.rollout.max_batched_tokens
    if prompt_tokens is not None and config.rollout.kv_nz and budget < longest:
        raise ConfigError(
            f"[rollout] max_batched_tokens is {budget}, below the longest sequence ({longest}): its prompt would be "
            "prefilled in pieces, which kv_nz does not allow; raise it, or remove kv_nz"
        )
    fitting = max(1, config.actor.micro_batch_tokens // longest)
    divisors = [size for size in range(1, actor_per_rank + 1) if actor_per_rank % size == 0]
    return Layout(
        dies=dies,
        rollout_tensor=rollout_tensor,
        rollout_data=rollout_data,
        rollout_expert=dies,
        actor_tensor=actor_tensor,
        actor_pipeline=len(stages),
        actor_data=actor_data,
        actor_expert=expert,
        expert_data=per_stage // expert,
        stage_layers=stages,
        sequences_per_step=sequences,
        rollout_sequences_per_rank=sequences // rollout_data,
        actor_sequences_per_rank=actor_per_rank,
        micro_batch=max(size for size in divisors if size <= fitting),
    )


def _divides(name: str, part: int, whole_name: str, whole: int) -> None:
    if whole % part:
        raise ConfigError(f"{name} is {part}, which does not divide {whole_name} ({whole})")
