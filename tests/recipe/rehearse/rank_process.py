# SPDX-License-Identifier: Apache-2.0
"""Two steps of verl's training workers on a die: among all others with contents, or alone and without.

For tests/ranks.py. A job that has `alone_as`, a rank, is that die of the run in a world of one; `hollow_from_bytes` is
from which size on tensors have no contents there. A rank writes `<out>.<rank>.json`: its readings and its phases.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import verl_patches.prelude_patch  # noqa: F401  lays the overlay over what is imported from here on

# isort: split
import torch
import vllm.v1.engine.llm_engine  # noqa: F401  imported here once, not by each rank
import vllm_ascend.models.deepseek_v2
import vllm_ascend.worker.worker_v1  # noqa: F401
from hydra import compose, initialize_config_module
from torch_npu import sim

from recipe.rehearse import steering
from recipe.rehearse.batches import Lengths
from recipe.rehearse.contents import Contents
from recipe.rehearse.counters import BUILD
from recipe.rehearse.expert_load import read_loads
from recipe.rehearse.phases import PhaseCounters
from recipe.rehearse.step import Work, build_workers, run_step


def be_alone(job: dict[str, Any]) -> None:
    rank, size = job["alone_as"], job["world_size"]
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK="0", MASTER_PORT="0")
    sim.make_world_of_one(rank, size)
    sim.make_hollow(job["hollow_from_bytes"], steering.Numbers())
    steering.steer_stages()


def run(job: dict[str, Any], rank: int) -> None:
    """What one rank does."""
    if job["alone_as"] is not None:
        be_alone(job)
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_megatron_trainer", overrides=job["overrides"]).actor_rollout_ref
    torch.manual_seed(job["seed"])
    contents = Contents()
    counters = PhaseCounters(contents)
    counters.loads = read_loads(counters)
    steering.steer_router(steering.Routing(job["load_of_first"], busy=0))
    with counters.measured(BUILD):
        workers = build_workers(config, counters, rollout=False, contents=contents.of)
    # As they are normalised where there is a rollout: all sequences of the die in one update.
    work = Work(Lengths.full(job["prompt"], job["response"]), 0, job["actor_sequences"], job["actor_sequences"])
    for number in range(2):
        run_step(workers, work, counters, seed=job["seed"] + number)
    phases = {name: dataclasses.asdict(phase) for name, phase in counters.phases.items()}
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps({"points": counters.points, "phases": phases}))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
