# SPDX-License-Identifier: Apache-2.0
"""A plan as a page for the terminal and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recipe.plan.duration import Estimate
from recipe.plan.memory import Die, Memory
from recipe.plan.plan import Plan
from recipe.plan.subject import Subject
from recipe.runfile.schema import GIB
from recipe.sizes import size_text

COLUMNS = 100
TITLES = {
    "rollout": "rollout",
    "log_prob": "old log-prob",
    "ref": "reference",
    "update": "update",
    "switch": "switch",
}


def as_text(plan: Plan) -> str:
    """The page."""
    return "\n".join(_lines(plan))


def layout_text(run: Subject) -> str:
    """The layout in a line."""
    layout = run.layout
    instances = f"{layout.rollout_instances} x " if layout.rollout_instances > 1 else ""
    rollout, actor = (f" EP{layout.rollout_expert}", f" EP{layout.actor_expert}") if run.model.experts else ("", "")
    return (
        f"rollout {instances}DP{layout.rollout_data} TP{layout.rollout_tensor}{rollout}; actor DP{layout.actor_data} "
        f"TP{layout.actor_tensor} PP{layout.actor_pipeline}{actor}, layers "
        f"{','.join(str(layers) for layers in layout.stage_layers)}"
    )


def _lines(plan: Plan) -> Iterator[str]:
    run, needed = plan.run, plan.memory
    cluster = run.config.cluster
    hardware = run.config.node_hardware
    kind = "simulated" if hardware is None else hardware.name
    yield from _prose(
        f"{run.config.run.name}: {cluster.nodes} x {cluster.dies_per_node} dies of {size_text(needed.limit)} ({kind})"
    )
    yield from _prose(layout_text(run))
    yield from _prose(
        f"{run.config.train.prompts_per_step} prompts x {run.config.rollout.samples_per_prompt} answers a step, up to "
        f"{run.prompt_tokens} + {run.response_tokens} tokens; micro-batches of {run.layout.micro_batch} (update) and "
        f"{run.layout.log_prob_micro_batch} (log-prob) sequences"
    )
    yield ""
    yield "Memory of the fullest die by phase"
    yield from _memory_table({phase: needed.worst(phase) for phase in needed.phases}, needed.limit)
    cache = needed.cache
    yield from _prose(
        f"KV cache: {cache.blocks} blocks, {cache.tokens} tokens of {cache.bytes_per_token} bytes; an engine's "
        f"sequences at their longest want {cache.tokens_wanted}"
    )
    yield ""
    yield "Host memory of a node"
    parts = needed.host.parts
    rows = [(f"{name}, page-locked" if name in needed.host.pinned else name, parts[name]) for name in parts]
    table = [(name, size_text(size)) for name, size in [*rows, ("all", needed.host.total)]]
    host_gib = run.config.host_gib_per_node
    if host_gib is not None:
        table.append((f"left of a node's {host_gib:g} GiB", _left(host_gib * GIB - needed.host.total)))
    yield from _table(table)
    if hardware is not None and cluster.host_memory_gib_per_node is None:
        yield from _prose(
            f"[cluster] host_memory_gib_per_node is not given: {hardware.host_gib:g} GiB as such nodes have "
            f"({hardware.host_gib.source})",
            "  ",
        )
    yield ""
    yield from _prose(
        f"Traffic of a die in a step, for prompts of {plan.mean.prompt:g} and answers of {plan.mean.response:g} tokens "
        "on average"
    )
    yield from _table([(name, size_text(size)) for name, size in plan.traffic.items()])
    yield ""
    yield from _time(plan)
    yield ""
    yield from _verdict(plan)


def _prose(text: str, indent: str = "") -> Iterator[str]:
    yield from textwrap.wrap(
        text, COLUMNS, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )


def _memory_table(dies: Mapping[str, Die], limit: int) -> Iterator[str]:
    rows: list[Sequence[str]] = [["", *(TITLES[phase] for phase in dies)]]
    outside = next(iter(dies.values())).outside
    kinds = list(dict.fromkeys(kind for phase, die in dies.items() for kind in die.phases[phase]))
    for kind in kinds:
        sizes = [die.phases[phase].get(kind) for phase, die in dies.items()]
        rows.append([kind, *("" if size is None else size_text(size) for size in sizes)])
    for kind, size in outside.items():
        rows.append([f"{kind} (outside torch)", *(size_text(size) for _ in dies)])
    totals = [die.total(phase) + die.outside_total for phase, die in dies.items()]
    rows.append(["all", *map(size_text, totals)])
    rows.append(["left of a die", *(_left(limit - total) for total in totals)])
    rows.append(["on a die of stage", *(str(die.stage) for die in dies.values())])
    yield from _table(rows)


def _left(size: float) -> str:
    return size_text(size) if size >= 0 else f"-{size_text(-size)}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they need to be: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([f"  {row[0]:<{widths[0]}}", *cells]).rstrip()


def _time(plan: Plan) -> Iterator[str]:
    if plan.estimate is None:
        yield "Time of a step: simulated dies say nothing about speed"
        return
    estimate = plan.estimate
    hardware = estimate.hardware.name
    yield from _prose(
        f"Estimated time of a step ({hardware}), as far off as published steps were that it was not fitted to "
        "(docs/PLAN.md)"
    )
    rows = [*estimate.phases.items(), ("step", estimate.step)]
    yield from _table([(name, f"{time.estimate:.0f} s", f"{time.low:.0f} to {time.high:.0f} s") for name, time in rows])
    rate = estimate.tokens_per_second_per_device
    around = f"{rate.low:.0f} to {rate.high:.0f}"
    yield f"{rate.estimate:.0f} tokens a second ({around}) for each of {estimate.devices:g} devices"


def _verdict(plan: Plan) -> Iterator[str]:
    warnings = list(plan.warnings())
    yield "FITS" if plan.memory.fits else "DOES NOT FIT"
    for warning in warnings:
        yield from _prose(warning, "  ")
    if not plan.searched:
        return
    smallest = plan.smallest
    if smallest is None:
        yield "No smaller or larger cluster of up to 64 nodes was found for this batch and these offloads"
        return
    cluster = smallest.run.config.cluster
    limited = smallest.run.config.host_gib_per_node is not None
    yield f"The smallest cluster this fits on: {cluster.nodes} x {cluster.dies_per_node} dies"
    yield from _prose(layout_text(smallest.run), "  ")
    yield from _prose(
        f"micro-batches of one sequence; its fullest die holds {size_text(smallest.fullest_bytes)}, a node "
        f"{size_text(smallest.memory.host.total)}"
        + ("" if limited else ", which was not looked at: [cluster] host_memory_gib_per_node is not given"),
        "  ",
    )


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan in bytes, seconds and tokens."""
    run, needed, estimate, smallest = plan.run, plan.memory, plan.estimate, plan.smallest
    return {
        "run": run.config.run.name,
        "nodes": run.config.cluster.nodes,
        "dies_per_node": run.config.cluster.dies_per_node,
        "layout": _layout(run),
        "fits": needed.fits,
        "warnings": list(plan.warnings()),
        "hardware": run.config.cluster.hardware,
        "die_bytes": needed.limit,
        "fullest": {
            phase: {"stage": die.stage, "bytes": total, "left_bytes": needed.limit - total}
            for phase, die, total in fullest_by_phase(needed)
        },
        "memory": [
            {
                "stage": die.stage,
                "phases": {phase: dict(sizes) for phase, sizes in die.phases.items()},
                "outside_torch": dict(die.outside),
            }
            for die in needed.dies
        ],
        "kv_cache": {
            "blocks": needed.cache.blocks,
            "tokens": needed.cache.tokens,
            "bytes_per_token": needed.cache.bytes_per_token,
            "bytes": needed.cache.nbytes,
            "tokens_wanted": needed.cache.tokens_wanted,
        },
        "host": _host(needed),
        "mean_tokens": {"prompt": plan.mean.prompt, "response": plan.mean.response},
        "traffic_bytes": dict(plan.traffic),
        **_time_json(estimate),
        "smallest_cluster": None if smallest is None else {
            "nodes": smallest.run.config.cluster.nodes,
            "dies_per_node": smallest.run.config.cluster.dies_per_node,
            "layout": _layout(smallest.run),
            "fullest_die_bytes": smallest.fullest_bytes,
            "host": _host(smallest.memory),
        },
    }  # fmt: skip


def fullest_by_phase(needed: Memory) -> Iterator[tuple[str, Die, int]]:
    """Each phase, its fullest die, and the bytes there, with what is outside torch."""
    for phase in needed.phases:
        die = needed.worst(phase)
        yield phase, die, die.total(phase) + die.outside_total


def _time_json(estimate: Estimate | None) -> dict[str, Any]:
    """The time; each range is the low and the high end of the figure beside it."""
    if estimate is None:
        return dict.fromkeys(("seconds", "seconds_range", "tokens_per_second_per_device", "tokens_per_second_range"))
    times, rate = {**estimate.phases, "step": estimate.step}, estimate.tokens_per_second_per_device
    return {
        "seconds": {name: time.estimate for name, time in times.items()},
        "seconds_range": {name: [time.low, time.high] for name, time in times.items()},
        "tokens_per_second_per_device": rate.estimate,
        "tokens_per_second_range": [rate.low, rate.high],
    }


def _layout(run: Subject) -> dict[str, Any]:
    layout = run.layout
    return {
        "actor_tensor_parallel": layout.actor_tensor,
        "actor_data_parallel": layout.actor_data,
        "actor_expert_parallel": layout.actor_expert,
        "stage_layers": list(layout.stage_layers),
        "rollout_instances": layout.rollout_instances,
        "rollout_tensor_parallel": layout.rollout_tensor,
        "rollout_data_parallel": layout.rollout_data,
        "rollout_expert_parallel": layout.rollout_expert,
        "micro_batch_sequences": {"update": layout.micro_batch, "log_prob": layout.log_prob_micro_batch},
    }


def _host(needed: Memory) -> dict[str, Any]:
    return {
        "bytes": dict(needed.host.parts),
        "total_bytes": needed.host.total,
        "pinned_bytes": needed.host.pinned_total,
    }
