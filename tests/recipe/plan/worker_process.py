# SPDX-License-Identifier: Apache-2.0
"""Runs without Ray: verl's two workers of a die, two steps, and the device's byte counters in between.

For tests/ranks.py; the job holds the hydra overrides of the run, lengths, batches, how experts are chosen, the seed,
and where the result goes. A rank writes `<out>.<rank>.json`: of every point of the last step, the bytes allocated there
and the most since the point before; the number of blocks of the KV cache; by phase the most tokens that its experts
were sent in a layer, as a multiple of an even share; and the host memory that saving a checkpoint takes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import verl_patches.prelude_patch  # noqa: F401  lays the overlay over what is imported from here on

# isort: split
import torch
import vllm.v1.engine.llm_engine  # noqa: F401  imported here once, not by each rank
import vllm_ascend.models.deepseek_v2
import vllm_ascend.worker.worker_v1  # noqa: F401
from hydra import compose, initialize_config_module
from torch_npu import _sim

from recipe.rehearse.batches import Lengths
from recipe.rehearse.counters import Counters
from recipe.rehearse.expert_load import read_loads
from recipe.rehearse.saving import save
from recipe.rehearse.steering import Routing, steer_router
from recipe.rehearse.step import Work, build_workers, run_step


def run(job: dict[str, Any], rank: int) -> None:
    """What one rank does."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_megatron_trainer", overrides=job["overrides"]).actor_rollout_ref
    torch.manual_seed(job["seed"])
    counters = Counters()
    loads = read_loads(counters)
    if job["load_of_first"] is not None:
        steer_router(Routing(job["load_of_first"], busy=0))
    workers = build_workers(config, counters)
    lengths = Lengths.full(job["prompt"], job["response"])
    work = Work(lengths, job["rollout_sequences"], job["actor_sequences"], job["actor_sequences"])
    # The second step starts from what the first one has left behind.
    for number in range(2):
        loads.clear()
        run_step(workers, work, counters, seed=job["seed"] + number)
    core = workers.actor.rollout.inference_engine.llm_engine.engine_core.engine_core
    blocks = core.scheduler.kv_cache_config.num_blocks
    pinned = -_sim.pinned_bytes()

    def copied() -> None:
        nonlocal pinned
        pinned += _sim.pinned_bytes()

    counters.phase = "save"
    made = save(workers.actor, Path(job["out"]).parent / "global_step_2" / "actor", 2, copied)
    saved = {**made.copies, "pinned": pinned}
    result = {"points": counters.points, "kv_blocks": blocks, "expert_load": loads, "saved": saved}
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps(result))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
