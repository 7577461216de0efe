# SPDX-License-Identifier: Apache-2.0
"""Sizes of a run file that do not go together, by rules that preflight has a check each for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipe.runfile.schema import RunConfig


@dataclass(frozen=True)
class Problem:
    """Sizes that do not go together: the rule they break, by a name that stays, and what to tell the user."""

    rule: str
    text: str


def problems(config: RunConfig, prompt_tokens: int | None = None) -> Iterator[Problem]:
    """Everything that keeps a run from having a layout; arguments as for `recipe.runfile.layout.lay_out`."""
    dies = config.cluster.nodes * config.cluster.dies_per_node
    stages = tuple(config.actor.stage_layers)
    rollout_tensor, actor_tensor = config.rollout.tensor_parallel, config.actor.tensor_parallel
    expert = config.actor.expert_parallel
    below_one = [
        Problem("positive", f"{name} is {value}; expected at least 1")
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
        return  # nothing divides by them
    if len(set(stages[1:-1])) > 1:
        yield Problem(
            "stages",
            f"[actor] stage_layers is {list(stages)}; Megatron-core lets only the first and the last stage differ",
        )
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
    for rule, name, part, whole_name, whole in rules:
        if whole % part:
            yield Problem(rule, f"{name} is {part}, which does not divide {whole_name} ({whole})")
    budget, longest = config.rollout.max_batched_tokens, longest_sequence(config, prompt_tokens)
    if prompt_tokens is not None and config.rollout.kv_nz and budget < longest:
        yield Problem(
            "budget",
            f"[rollout] max_batched_tokens is {budget}, below the longest sequence ({longest}): its prompt would be "
            "prefilled in pieces, which kv_nz does not allow; raise it, or remove kv_nz",
        )


def longest_sequence(config: RunConfig, prompt_tokens: int | None = None) -> int:
    """Tokens of the longest prompt and response together."""
    return (prompt_tokens or config.data.max_prompt_tokens) + config.data.max_response_tokens
