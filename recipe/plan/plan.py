# SPDX-License-Identifier: Apache-2.0
"""Everything that is planned of a run, in one value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipe.plan.cluster import SmallestCluster, host_fits, smallest_cluster
from recipe.plan.duration import Estimate, estimate
from recipe.plan.memory import Memory, memory
from recipe.plan.subject import Subject
from recipe.plan.traffic import Lengths, lengths, traffic
from recipe.runfile.errors import ConfigError
from recipe.runfile.passed import bare
from recipe.sizes import size_text


@dataclass(frozen=True)
class Plan:
    """`searched`: the smallest cluster was looked for; `smallest` is then None where there is none."""

    run: Subject
    memory: Memory
    mean: Lengths
    traffic: dict[str, int]
    estimate: Estimate | None
    searched: bool
    smallest: SmallestCluster | None

    def warnings(self) -> Iterator[str]:
        """One sentence for each thing that does not fit, or that the estimate leaves out."""
        limit = self.memory.limit
        for phase in self.memory.phases:
            over = {die.stage: die.total(phase) + die.outside_total - limit for die in self.memory.dies}
            full = [stage for stage, size in over.items() if size > 0]
            if full:
                stages = "stage" if len(full) == 1 else "stages"
                numbers = ", ".join(str(stage) for stage in full)
                yield f"{phase}: up to {size_text(max(over.values()))} more than a die has, on {stages} {numbers}"
        cache, rows = self.memory.cache, self.run.layout.rollout_sequences_per_engine
        if not cache.holds_one:
            yield f"the KV cache has room for {cache.tokens} tokens, less than one sequence of {cache.longest}"
        elif cache.tokens < cache.tokens_wanted:
            at_once = cache.tokens * rows // cache.tokens_wanted
            yield (
                f"the KV cache has room for {at_once} of an engine's {rows} sequences at their longest: beyond that "
                "the engine preempts and computes again"
            )
        if self.run.config.actor.host_share and self.estimate is not None:
            yield "the host's cores update the weights: how long that takes is not in the estimated time"
        if self.run.config.verl:
            yield f"settings under [verl] are not counted: {', '.join(map(bare, self.run.config.verl))}"
        if not host_fits(self.run, self.memory):
            yield f"what the dies put on a node is more than the {self.run.config.host_gib_per_node:g} GiB of its host"


def make_plan(run: Subject, prompt: float | None = None, response: float | None = None, search: bool = True) -> Plan:
    """Plan a run.

    Args:
        run: the run.
        prompt, response: mean lengths in tokens; by default the limits of the run file.
        search: look for the smallest cluster.

    Raises:
        ConfigError: a mean length above the run file's limit.
    """
    for name, length, limit in (("prompt", prompt, run.prompt_tokens), ("response", response, run.response_tokens)):
        if length is not None and length > limit:
            raise ConfigError(f"the mean {name} is {length:g} tokens, more than the run file's limit of {limit}")
    mean = lengths(run, prompt, response)
    return Plan(
        run,
        memory(run),
        mean,
        traffic(run, mean),
        estimate(run, mean),
        search,
        smallest_cluster(run) if search else None,
    )
