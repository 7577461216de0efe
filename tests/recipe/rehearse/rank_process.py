# SPDX-License-Identifier: Apache-2.0
"""Two steps of verl's workers on a die: among all others with contents, or alone and without.

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
import torch.distributed as dist
import vllm.v1.engine.llm_engine  # noqa: F401  imported here once, not by each rank
import vllm_ascend.models.deepseek_v2
import vllm_ascend.worker.worker_v1  # noqa: F401
from hydra import compose, initialize_config_module
from megatron.core import parallel_state
from torch_npu import sim

from recipe.rehearse import engine, pipeline, steering
from recipe.rehearse.batches import FIRST_TOKEN
from recipe.rehearse.contents import Contents
from recipe.rehearse.counters import BUILD
from recipe.rehearse.expert_load import read_loads
from recipe.rehearse.job import SAVE
from recipe.rehearse.lengths import Lengths
from recipe.rehearse.phases import PhaseCounters
from recipe.rehearse.saving import save, steer_save
from recipe.rehearse.step import Work, build_workers, run_step

PARTS = ("prompt", "response")


def be_alone(job: dict[str, Any]) -> None:
    rank, size = job["alone_as"], job["world_size"]
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK="0", MASTER_PORT="0")
    sim.make_world_of_one(rank, size)
    sim.make_hollow(job["hollow_from_bytes"], steering.Numbers())
    steering.steer_stages()
    engine.meet_nobody()
    engine.steer_engine()


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
    routing = steering.Routing(job["load_of_first"], busy=0)
    steering.steer_router(routing)
    engine.steer_engine_router(routing)
    engine.steer_sampler(FIRST_TOKEN)
    with counters.measured(BUILD):
        workers = build_workers(config, counters, contents=contents.of)
    described = [Path(f"{job['tensors']}.{stage}.json") for stage in range(job["stages"])]
    if job["alone_as"] is None:
        stage = parallel_state.get_pipeline_model_parallel_rank()
        if parallel_state.get_data_parallel_rank() == parallel_state.get_tensor_model_parallel_rank() == 0:
            pipeline.write_description(pipeline.describe(workers.actor.actor_module), described[stage])
    elif len(described) > 1:
        pipeline.steer_pipeline([pipeline.read_description(file) for file in described])
    prompts, responses = (((job[part], 1),) if job["histogram"] is None else job["histogram"][part] for part in PARTS)
    lengths = Lengths(prompts, responses, job["prompt"], job["response"])
    work = Work(lengths, job["rollout_sequences"], job["actor_sequences"], job["actor_sequences"])
    for number in range(2):
        run_step(workers, work, counters, seed=job["seed"] + number)
    if job["alone_as"] is not None:
        steer_save(workers.actor.actor_optimizer)
    directory = Path(job["out"]).parent / "checkpoint"
    with counters.measured(SAVE):
        saved = save(workers.actor, directory, 2, lambda: counters.read("copied"))
    parts = directory.rglob(f"__{dist.get_rank()}_*.distcp")
    written = {file.name: file.stat().st_size for file in parts}
    phases = {name: dataclasses.asdict(phase) for name, phase in counters.phases.items()}
    result = {
        "points": counters.points,
        "phases": phases,
        "saved": dataclasses.asdict(saved),
        "written": written,
    }
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()
