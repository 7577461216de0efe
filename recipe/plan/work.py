# SPDX-License-Identifier: Apache-2.0
"""The work of a step on one die, in bytes and floating point operations: what its time is estimated from.

`Work` is the seam: here it is counted from sizes and layout; whoever has counted a step otherwise (a rehearsal) can
make one of those figures and have it timed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from recipe.plan.counts import Counts, counts_of
from recipe.plan.subject import Subject
from recipe.plan.traffic import Lengths, recomputed_share


@dataclass(frozen=True)
class Setting:
    """How a step is laid out, as far as its time depends on it.

    Attributes:
        dies: that share the work.
        sequences: of a step.
        engine_tensor: dies of a rollout engine.
        engine_expert: dies that the routed experts of an engine are spread over.
        exchanges_experts: tokens are sent to their experts' dies; otherwise each expert is split like a dense layer.
        engine_sequences: that an engine answers in a step.
        stages: of the actor's pipeline, and of the reference's.
        pass_micro_batches, update_micro_batches: of a data parallel rank in a pass without gradients, and in an update
            up to each optimizer step.
        recomputed: share of the layers that an update computes twice.
    """

    dies: int
    sequences: int
    engine_tensor: int
    engine_expert: int
    engine_sequences: int
    stages: int
    pass_micro_batches: int
    update_micro_batches: int
    recomputed: float
    exchanges_experts: bool = True


@dataclass(frozen=True)
class Work:
    """What one die does in a step.

    Attributes:
        engine_steps: tokens of the longest answer; each is a step of every engine.
        weight_bytes: read in each engine step.
        cache_bytes: read from the KV cache in the whole generation.
        node_bytes, network_bytes: sent to other dies in the whole generation, of its node and of others.
        generation_flops: of prompts and answers in the engine.
        pass_flops: of one pass without gradients, longer by what a pipeline's stages wait for one another.
        update_flops: of the update, likewise.
        answers: that are graded, of all dies.
    """

    engine_steps: float
    weight_bytes: float
    cache_bytes: float
    node_bytes: float
    network_bytes: float
    generation_flops: float
    pass_flops: float
    update_flops: float
    answers: int

    @property
    def sent_bytes(self) -> float:
        """Sent to other dies in the whole generation, wherever these are."""
        return self.node_bytes + self.network_bytes


def bubble(micro_batches: int, stages: int) -> float:
    """How much longer a pipeline takes than its work: (m + p - 1) / m (Narayanan et al. 2021, section 2.2)."""
    return (micro_batches + stages - 1) / micro_batches


def setting_of(run: Subject) -> Setting:
    """The setting of a planned run."""
    layout = run.layout
    return Setting(
        dies=layout.dies,
        sequences=layout.sequences_per_step,
        engine_tensor=layout.rollout_tensor,
        engine_expert=layout.rollout_expert,
        engine_sequences=layout.rollout_sequences_per_engine,
        stages=layout.actor_pipeline,
        pass_micro_batches=max(1, layout.actor_sequences_per_rank // layout.log_prob_micro_batch),
        update_micro_batches=max(1, layout.update_sequences_per_rank // layout.micro_batch),
        recomputed=recomputed_share(run),
    )


def exchanged_in_node(ranks: int, node_dies: int) -> float:
    """Share of what a die sends to the other ranks of an exchange that stays in its node: it sends as much to each."""
    here = min(ranks, node_dies)
    return 1.0 if ranks == here else (here - 1) / (ranks - 1)


def reduced_in_node(ranks: int, node_dies: int) -> float:
    """Share of what a die sends in an all-reduce that stays in its node.

    With d dies on each of k nodes: a reduce-scatter and a gather in the node, 2 (d-1)/d, and between them an all-reduce
    of a d-th over the nodes, 2 (k-1)/(k d). Together 2 (dk-1)/(dk), as over all ranks at once.
    """
    nodes = math.ceil(ranks / node_dies)
    return 1.0 if nodes == 1 else (ranks - nodes) / (ranks - 1)


def work(counts: Counts, setting: Setting, mean: Lengths, node_dies: int) -> Work:
    """The work that follows from sizes, layout and lengths, on nodes of so many dies.

    Ranks of an engine and of its experts are taken to fill one node after another, as Ray and verl place them.
    Every answer is taken to be as long as the mean, but for the number of engine steps: the cache that longer answers
    read beyond that, and the attention, are left out.
    """
    tokens, engine_tokens = setting.sequences * mean.sequence, setting.engine_sequences * mean.sequence
    # Token i of an answer reads the prompt and the i - 1 tokens before it.
    read = setting.engine_sequences * mean.response * (mean.prompt + mean.response / 2)
    exchanging = setting.engine_expert if setting.exchanges_experts else 1
    forward = counts.forward_flops(tokens, mean.sequence) / setting.dies
    to_experts = counts.to_experts_bytes(engine_tokens, setting.engine_tensor, exchanging)
    reduced = counts.reduced_bytes(engine_tokens, setting.engine_tensor)
    in_node = to_experts * exchanged_in_node(exchanging, node_dies) + reduced * reduced_in_node(
        setting.engine_tensor, node_dies
    )
    return Work(
        engine_steps=mean.longest_response,
        weight_bytes=counts.weight_bytes(setting.engine_tensor, setting.engine_expert),
        cache_bytes=read * counts.cache_bytes / min(setting.engine_tensor, counts.cache_shards),
        node_bytes=in_node,
        network_bytes=to_experts + reduced - in_node,
        generation_flops=forward,
        pass_flops=forward * bubble(setting.pass_micro_batches, setting.stages),
        update_flops=forward * (3 + setting.recomputed) * bubble(setting.update_micro_batches, setting.stages),
        answers=setting.sequences,
    )


def work_of(run: Subject, mean: Lengths) -> Work:
    """The work of a planned run."""
    return work(counts_of(run.model), setting_of(run), mean, run.config.cluster.dies_per_node)


def packed(tokens: float, in_each: int) -> int:
    """Micro-batches of packed sequences of at most so many tokens each."""
    return math.ceil(tokens / in_each)
