# SPDX-License-Identifier: Apache-2.0
"""M: what fits, by the arithmetic of `recipe.plan` (docs/PLAN.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recipe.preflight.catalogue import CannotTell, NoMatter, Said, bad, check, doubtful
from recipe.preflight.facts import Facts
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import GIB, SIM
from recipe.sizes import size_text, told_apart

if TYPE_CHECKING:
    from recipe.plan.memory import Memory

# Of a node's memory; the rest is the system's, the page cache's, and that of processes that pin nothing.
MOST_PINNED = 0.8


def planned(facts: Facts) -> Memory:
    """The plan's memory. NoMatter on simulated dies with problems of the user's: they set a length not known yet."""
    from recipe.plan.memory import memory
    from recipe.plan.subject import subject

    if facts.device == SIM and facts.config.data.kind != "arithmetic":
        raise NoMatter
    if "memory" not in facts.memory:
        assert facts.layout
        try:
            facts.memory["memory"] = memory(subject(facts.config, facts.architecture))
        except ConfigError as error:
            raise CannotTell(str(error)) from None
    found: Memory = facts.memory["memory"]
    return found


def _fits_not(facts: Facts) -> Callable[[str, str], Said]:
    """A simulated run costs nothing to try, and its plan is right to some hundredths only."""
    return doubtful if facts.device == SIM else bad


@check(
    "M001", "every phase of a step fits into a die", needs="static",
    why="a die that runs out of memory does so in the first update, after loading 671B parameters",
    fix="see python -m recipe plan; more expert_parallel or stages, recompute, the offloads, or a lower memory_share",
)  # fmt: skip
def _phases(facts: Facts) -> Iterator[Said]:
    found = planned(facts)
    for phase in found.dies[0].phases:
        die = found.worst(phase)
        total = die.total(phase) + die.outside_total
        if total > found.limit:
            largest = max(die.phases[phase], key=lambda kind: die.phases[phase][kind])
            wanted, there = told_apart(total, found.limit)
            yield _fits_not(facts)(
                f"{phase}: {wanted} on a die of stage {die.stage} (most of it {largest})", f"at most {there}"
            )


@check(
    "M002", "the rollout's KV cache holds at least one sequence", needs="static",
    why="vLLM takes memory_share of a die and gives the cache what weights and a trial step leave; less than nothing "
        "is an error at the start (vllm-ascend#9372)",
    fix="raise [rollout] memory_share, use more dies for an instance, or lower max_batched_tokens",
)  # fmt: skip
def _cache(facts: Facts) -> Iterator[Said]:
    cache = planned(facts).cache
    if not cache.holds_one:
        yield _fits_not(facts)(f"room for {cache.tokens} tokens", f"at least {cache.longest}, the longest sequence")


@check(
    "M003", "the KV cache holds the sequences that an engine is given", needs="static",
    why="what does not fit is preempted and computed again, while all engines wait for the last one",
    fix="raise [rollout] memory_share, or use more engines",
)  # fmt: skip
def _whole_batch(facts: Facts) -> Iterator[Said]:
    cache = planned(facts).cache
    asked = facts.layout.rollout_sequences_per_engine
    if cache.holds_one and cache.tokens < cache.tokens_wanted:
        room = f"{cache.tokens // cache.longest} of an engine's {asked} sequences at their longest"
        yield doubtful(f"room for {cache.tokens} tokens, {room}", f"{cache.tokens_wanted} for all of them")


@check(
    "M004", "a node's memory holds what is pinned and offloaded", needs="static",
    why="pinned memory cannot be swapped: beyond the node's memory the kernel ends processes",
    fix="more dies for the same model, or fewer offloads; see python -m recipe plan",
)  # fmt: skip
def _host(facts: Facts) -> Iterator[Said]:
    host, given = planned(facts).host, facts.config.cluster.host_memory_gib_per_node
    pinned = size_text(host.pinned_total)
    there = given * GIB if given is not None else facts.machine.memory if facts.node else None
    if there is None:
        raise CannotTell(
            f"the plan wants {size_text(host.total)} on a node, {pinned} of them pinned, and [cluster] "
            "host_memory_gib_per_node is not given; with --node this machine's own memory counts"
        )
    if host.total > there:
        wanted, given_text = told_apart(host.total, there)
        yield bad(f"{wanted} on a node, {pinned} of them pinned", f"at most {given_text}")
    elif host.pinned_total > MOST_PINNED * there:
        pinned, most = told_apart(host.pinned_total, MOST_PINNED * there)
        yield doubtful(f"{pinned} pinned on a node", f"at most {most}, {MOST_PINNED:.0%} of {size_text(there)}")
