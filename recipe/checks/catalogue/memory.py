# SPDX-License-Identifier: Apache-2.0
"""M: what fits, by the arithmetic of `recipe.plan` (docs/PLAN.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from recipe.checks.declaration import check
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CannotTell, Complaint, bad, doubtful
from recipe.runfile.schema import GIB, SIM
from recipe.sizes import size_text, told_apart

# Of a node's memory; the rest is the system's, the page cache's, and that of processes that pin nothing.
MOST_PINNED = 0.8


def _fits_not(facts: Facts) -> Callable[[str, str], Complaint]:
    """A simulated run costs nothing to try, and its plan is right to some hundredths only."""
    return doubtful if facts.device == SIM else bad


@check(
    "M001", "every phase of a step fits into a die", needs="static",
    why="a die that runs out of memory does so in the first update, after loading 671B parameters",
    fix="see python -m recipe plan; more expert_parallel or stages, recompute, the offloads, or a lower memory_share",
)  # fmt: skip
def _phases(facts: Facts) -> Iterator[Complaint]:
    plan = facts.planned_memory
    for phase in plan.dies[0].phases:
        die = plan.worst(phase)
        total = die.total(phase) + die.outside_total
        if total > plan.limit:
            largest = max(die.phases[phase], key=lambda kind: die.phases[phase][kind])
            planned, limit = told_apart(total, plan.limit)
            yield _fits_not(facts)(
                f"{phase}: {planned} on a die of stage {die.stage} (most of it {largest})", f"at most {limit}"
            )


@check(
    "M002", "the rollout's KV cache holds at least one sequence", needs="static",
    why="vLLM takes memory_share of a die and gives the cache what weights and a trial step leave; less than nothing "
        "is an error at the start (vllm-ascend#9372)",
    fix="raise [rollout] memory_share, use more dies for an instance, or lower max_batched_tokens",
)  # fmt: skip
def _cache(facts: Facts) -> Iterator[Complaint]:
    cache = facts.planned_memory.cache
    if not cache.holds_one:
        yield _fits_not(facts)(f"room for {cache.tokens} tokens", f"at least {cache.longest}, the longest sequence")


@check(
    "M003", "the KV cache holds the sequences that an engine is given", needs="static",
    why="what does not fit is preempted and computed again, while all engines wait for the last one",
    fix="raise [rollout] memory_share, or use more engines",
)  # fmt: skip
def _whole_batch(facts: Facts) -> Iterator[Complaint]:
    cache = facts.planned_memory.cache
    sequences = facts.layout.rollout_sequences_per_engine
    if cache.holds_one and cache.tokens < cache.tokens_wanted:
        room = f"{cache.tokens // cache.longest} of an engine's {sequences} sequences at their longest"
        yield doubtful(f"room for {cache.tokens} tokens, {room}", f"{cache.tokens_wanted} for all of them")


@check(
    "M004", "a node's memory holds what is pinned and offloaded, and copied for a checkpoint", needs="static",
    why="pinned memory cannot be swapped: beyond the node's memory the kernel ends processes, the first save at the "
        "latest",
    fix="more dies for the same model, fewer offloads, or [run] save_every = 0; see python -m recipe plan",
)  # fmt: skip
def _host(facts: Facts) -> Iterator[Complaint]:
    host, stated = facts.planned_memory.host, facts.config.cluster.host_memory_gib_per_node
    of_them = f"{size_text(host.pinned_total)} of them pinned"
    if host.saving_total:
        of_them += f", {size_text(host.saving_total)} only while a checkpoint is saved"
    available = stated * GIB if stated is not None else facts.machine.memory if facts.node else None
    known = available is not None
    if available is None and facts.config.node_hardware is not None:
        available = facts.config.node_hardware.host_gib * GIB
    if available is None:
        raise CannotTell(
            f"the plan wants {size_text(host.total)} on a node, {of_them}, and [cluster] host_memory_gib_per_node is "
            "not given; with --node this machine's own memory counts"
        )
    if host.total > available:
        planned, most = told_apart(host.total, available)
        found = f"{planned} on a node, {of_them}"
        yield bad(found, f"at most {most}") if known else doubtful(found, f"at most {most}, as such nodes have")
    elif host.pinned_total > MOST_PINNED * available:
        pinned, most = told_apart(host.pinned_total, MOST_PINNED * available)
        yield doubtful(f"{pinned} pinned on a node", f"at most {most}, {MOST_PINNED:.0%} of {size_text(available)}")
