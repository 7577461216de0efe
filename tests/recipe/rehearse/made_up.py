# SPDX-License-Identifier: Apache-2.0
"""Runs to rehearse, and results as a stage's process leaves them, with figures made up."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from recipe.plan.memory import LEFT_BY_LATER, memory
from recipe.plan.saving import saved_copies
from recipe.rehearse.comparison import engine_bytes, planned_as_rehearsed
from recipe.rehearse.job import Phase, StageResult
from recipe.rehearse.subject import Options, Rehearsed, rehearsed
from recipe.runfile.config import load
from recipe.runfile.paths import REPO

TRUE_SIZE = "configs/a3_256die_random_init.toml"


def a_run(
    file: str = TRUE_SIZE, upstream: Path = Path("/nowhere"), direct_sync: bool = False, **options: Any
) -> Rehearsed:
    """With verl's own weight sync, and a pass for the old log-probabilities: there is all that can be compared."""
    config = load(REPO / file)
    train = dataclasses.replace(config.train, loss_mode="vanilla")
    rollout = dataclasses.replace(config.rollout, direct_sync=direct_sync)
    config = dataclasses.replace(config, train=train, rollout=rollout)
    return rehearsed(config, Options(**options), upstream)


def a_phase(peak: int, **changes: Any) -> Phase:
    values: dict[str, Any] = {
        "peak_bytes": peak, "resident_bytes": peak // 10, "pinned_bytes": 5, "contents": {"activations": peak},
        "traffic": [], "operators": 1000, "wall_s": 2.0, "expert_load": 1.0,
    }  # fmt: skip
    return Phase(**{**values, **changes})


def as_planned(run: Rehearsed, stage: int, times: float = 1.0, **changes: Any) -> StageResult:
    """A result with `times` the planned bytes in each phase, without what only the rollout engine puts there, and in
    a first step without what later passes leave."""
    planned = planned_as_rehearsed(run)
    die, engine = memory(planned).dies[stage], engine_bytes(planned)
    phases = {}
    for name in ("log_prob", "ref", "update"):
        later = LEFT_BY_LATER.get(name, frozenset()) if run.steps == 1 else frozenset()
        kept = sum(size for kind, size in die.phases[name].items() if kind not in later)
        phases[name] = a_phase(round(times * (kept - engine)))
    result = StageResult(key="k", stage=stage, rank=run.rank(stage), phases=phases, wall_s=9.0, rss_bytes=2**30)
    return dataclasses.replace(result, **changes)


def with_save(run: Rehearsed, result: StageResult, times: float = 1.0) -> StageResult:
    """The result with a checkpoint, for which `times` the planned bytes were copied on the average."""
    planned = saved_copies(run.planned, result.stage)
    of_stage = {kind: round(times * size) for kind, size in planned.items()}
    saved = {"copies": {kind: 2**30 for kind in planned}, "of_stage": of_stage, "files": {"a": 2**30, "b": 2**29}}
    return dataclasses.replace(result, saved=saved)
