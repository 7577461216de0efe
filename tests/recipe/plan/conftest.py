# SPDX-License-Identifier: Apache-2.0
"""Runs the workers of a layout on simulated dies, for the tests that set what they counted beside what was planned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from recipe.plan.memory import BLOCK_TOKENS, host, memory
from recipe.plan.saving import FROM_DIES, FROM_HOST, page_locked
from recipe.plan.shards import swapped_in_bytes
from recipe.plan.stages import stage_buffers, stage_tensors
from recipe.plan.subject import Subject
from recipe.runfile.schema import SWAPPED
from tests.recipe.plan.layouts import Layout, Made
from tests.recipe.plan.workers import Workers

RANKS = "tests.recipe.plan.worker_process"


def comparison(run: Subject, counted: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """{"die, kind": (counted, planned)} in bytes; planned for the tokens that the die's experts were sent."""
    pinned = sum(rank_counts["points"]["ref.begin"]["pinned"] for rank_counts in counted)
    needed = host(run)
    locked = sum(needed.parts[kind] for kind in page_locked(run))
    out = {"host, page-locked": (pinned, needed.pinned_total - locked)}
    for kind in (FROM_DIES, FROM_HOST):
        out[f"host, {kind}"] = (sum(rank["saved"][kind] for rank in counted), needed.parts[kind])
    pinned_by_save = sum(rank["saved"]["pinned"] for rank in counted)
    if locked or pinned_by_save:
        out["host, checkpoint: page-locked"] = (pinned_by_save, locked)
    for rank, rank_counts in enumerate(counted):
        stage = rank * run.layout.actor_pipeline // run.layout.dies
        out |= {f"die {rank}, {name}": pair for name, pair in _kinds(run, stage, rank_counts).items()}
    return out


def _kinds(run: Subject, stage: int, rank_counts: dict[str, Any]) -> dict[str, tuple[int, int]]:
    points, planned = rank_counts["points"], memory(run)

    def held(point: str) -> int:
        return int(points[point]["allocated"])

    def brought(name: str) -> int:
        return held(f"rollout.{name}") - held(f"rollout.before_{name}")

    def most(phase: str, *at: str) -> tuple[int, int]:
        sent = dataclasses.replace(run, expert_load=rank_counts["expert_load"].get(phase, 1.0))
        name = "rollout" if phase == "switch" else phase
        return max(points[f"{name}.{point}"]["peak"] for point in at), memory(sent).dies[stage].total(phase)

    load, gone = "load_megatron_model_to_gpu", "offload_megatron_model_to_cpu"
    phases = planned.dies[stage].phases
    weights, gradients = phases["update"]["actor weights"], phases["update"]["gradients"]
    cache, alignment = phases["rollout"]["KV cache"], phases["rollout"]["cache alignment"]
    kinds = {
        "rollout weights": (brought("resume_weights"), phases["switch"]["rollout weights"]),
        "KV cache": (rank_counts["kv_blocks"] * BLOCK_TOKENS * planned.cache.bytes_per_token, cache),
        "KV cache, aligned": (brought("resume_kv_cache"), cache + alignment),
        "actor weights": (held(f"log_prob.{load}") - held("log_prob.begin"), phases["log_prob"]["actor weights"]),
        "reference weights": (held(f"ref.{load}") - held("ref.begin"), phases["ref"]["reference weights"]),
        "weights and gradients": (held(f"update.{load}") - held("update.begin"), weights + gradients),
        "most in rollout": most("rollout", "before_release"),
        "most in switch": most("switch", "update_weights"),
        "most in log_prob": most("log_prob", gone),
        "most in ref": most("ref", gone),
        "most in update": most("update", "before_step", "step"),
    }
    if "derived weights" in phases["rollout"]:
        kinds["derived weights"] = (brought("update_weights"), phases["rollout"]["derived weights"])
    if "optimizer" in phases["update"]:
        counted = held("update.load_megatron_optimizer") - held(f"update.{load}")
        kinds["optimizer"] = (counted, phases["update"]["optimizer"])
    if run.config.actor.optimizer == SWAPPED:
        counted = points["update.step"]["peak"] - held("update.before_step")
        kinds["optimizer swapped in"] = (
            counted,
            swapped_in_bytes(stage_tensors(run, stage), stage_buffers(run, stage)),
        )
    return kinds


@pytest.fixture
def plan_and_count(
    tiny_made: Callable[..., Made], workers_of: Callable[[str, bool], Workers], tmp_path: Path
) -> Callable[..., dict[str, tuple[int, int]]]:
    """Plans a `Layout`, given by its fields, runs it, and sets both beside one another."""

    def run(**fields: Any) -> dict[str, tuple[int, int]]:
        layout = Layout(**fields)
        planned = layout.planned()
        made = tiny_made(layout.expert_width, layout.member)
        counted = workers_of(RANKS, layout.mindspeed).run(
            planned, made, tmp_path, load_of_first=layout.load_of_first, seed=layout.seed
        )
        return comparison(planned, counted)

    return run


@pytest.fixture(scope="session")
def table() -> Iterator[dict[str, dict[str, tuple[int, int]]]]:
    """What each layout's `comparison` found; printed at the end as the table of docs/PLAN.md."""
    comparisons: dict[str, dict[str, tuple[int, int]]] = {}
    yield comparisons
    print(*markdown(comparisons), sep="\n")


def markdown(comparisons: Mapping[str, Mapping[str, tuple[int, int]]]) -> Iterator[str]:
    """A table, with the die that is farthest off in each cell."""
    kinds = list(dict.fromkeys(kind.partition(", ")[2] for pairs in comparisons.values() for kind in pairs))
    yield f"\n| planned / counted - 1, % | {' | '.join(comparisons)} |"
    yield "|---|" + "---:|" * len(comparisons)
    for name in kinds:
        cells = []
        for pairs in comparisons.values():
            off = [b / a - 1 for kind, (a, b) in pairs.items() if kind.partition(", ")[2] == name]
            cells.append(f"{100 * max(off, key=abs):+.1f}" if off else "")
        yield f"| {name} | {' | '.join(cells)} |"
