# SPDX-License-Identifier: Apache-2.0
"""A die of `benchmarks/switch.py`: verl's own workers, whose weights go to the rollout by turns in both ways.

For tests/ranks.py, with RECIPE_DIRECT_SYNC set; a rank writes `<out>.<rank>.json`: what each sync took.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
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
from torch_npu import sim
from verl.utils.megatron_utils import load_megatron_model_to_gpu
from verl.workers import megatron_workers

from recipe.rehearse.counters import Counters
from recipe.rehearse.step import build_workers

STOCK, OURS = "stock", "ours"


@dataclass(frozen=True)
class Sync:
    """One sync on one die.

    Attributes:
        seconds: from when all dies are there until this one has its weights.
        received: bytes, from all kinds of calls.
        calls: of collectives, and batches of messages.
        extra_peak: bytes that were needed beside the weights of both engines, which are there before it begins.
    """

    way: str
    seconds: float
    received: int
    calls: int
    extra_peak: int


def run(job: dict[str, Any], rank: int) -> None:
    """What one rank does."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_megatron_trainer", overrides=job["overrides"]).actor_rollout_ref
    torch.manual_seed(1)
    actor = build_workers(config, Counters(), reference=False).actor
    load_megatron_model_to_gpu(actor.actor.actor_module, load_grad=False)
    # What is done once, by the first sync of each way, is no part of the ones that count.
    for way in (STOCK, OURS):
        synced(actor, way)
    syncs = [synced(actor, way) for _ in range(job["syncs"]) for way in (STOCK, OURS)]
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps([asdict(one) for one in syncs]))
    dist.barrier()
    dist.destroy_process_group()


def synced(actor: Any, way: str) -> Sync:
    """Sync once, into memory that has just been taken."""
    asyncio.run(actor.rollout.release())
    asyncio.run(actor.rollout.resume(["weights"]))
    weights = megatron_workers.per_tensor_generator(
        actor.actor.actor_module,
        actor.actor_model_config,
        actor.weight_converter,
        actor.tf_config,
        actor.layer_name_mapping,
    )
    before = torch.npu.memory_allocated()
    dist.barrier()
    sim.reset_traffic()
    torch.npu.reset_peak_memory_stats()
    begin = time.perf_counter()
    asyncio.run(actor.rollout.update_weights(weights if way == OURS else iter(weights)))
    torch.npu.synchronize()
    seconds = time.perf_counter() - begin
    traffic = sim.traffic()
    return Sync(
        way,
        seconds,
        sum(one.received for one in traffic),
        sum(one.calls for one in traffic),
        torch.npu.max_memory_allocated() - before,
    )
