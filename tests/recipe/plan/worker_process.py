# SPDX-License-Identifier: Apache-2.0
"""One rank of a run without Ray: verl's two workers of a die, two steps, and the device's byte counters in between.

python worker_process.py JOB.json: the job holds the hydra overrides of the run, lengths, batches and where the result
goes; rank and world size come from the environment. Writes `<out>.<rank>.json`: of every point of the last step, the
bytes allocated there and the most since the point before; and the number of blocks of the KV cache.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import verl_patches.prelude_patch  # noqa: F401  lays the overlay over what is imported from here on

# isort: split
import numpy as np
import torch
from hydra import compose, initialize_config_module
from tensordict import TensorDict
from verl import DataProto
from verl.workers import megatron_workers

LOADS = ("load_megatron_model_to_gpu", "load_megatron_optimizer", "offload_megatron_model_to_cpu")


class Counters:
    """Readings of the device's byte counters, by the phase and the point in it."""

    def __init__(self) -> None:
        self.phase = "build"
        self.points: dict[str, dict[str, int]] = {}

    def read(self, point: str) -> None:
        reading = {"allocated": torch.npu.memory_allocated(), "peak": torch.npu.max_memory_allocated()}
        torch.npu.reset_peak_memory_stats()
        self.points[f"{self.phase}.{point}"] = reading

    def read_after(self, owner: Any, name: str) -> None:
        """From now on `owner.name(...)` is followed by a reading at `name`."""
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self.read(name)
            return result

        setattr(owner, name, call)

    def read_around_async(self, owner: Any, name: str) -> None:
        """From now on `await owner.name(...)` has a reading before it and one after it, named with its tags."""
        original = getattr(owner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            point = "_".join([name, *kwargs.get("tags", [])])
            self.read(f"before_{point}")
            result = await original(*args, **kwargs)
            self.read(point)
            return result

        setattr(owner, name, call)


def prompts(count: int, length: int, vocabulary: int) -> DataProto:
    ids = torch.randint(8, vocabulary, (count, length))
    mask = torch.ones_like(ids)
    batch = DataProto(
        batch=TensorDict({"input_ids": ids, "attention_mask": mask, "position_ids": mask.cumsum(-1) - 1}, count),
        meta_info={"eos_token_id": 1, "pad_token_id": 0, "do_sample": True},
    )
    raw = np.empty(count, dtype=object)
    raw[:] = ids.tolist()
    batch.non_tensor_batch["raw_prompt_ids"] = raw
    return batch


def sequences(count: int, prompt: int, response: int, vocabulary: int) -> DataProto:
    """A batch in which every sequence is as long as it may be, as the trainer sees it after the advantages."""
    ids = torch.randint(8, vocabulary, (count, prompt + response))
    mask = torch.ones_like(ids)
    tensors = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": mask.cumsum(-1) - 1,
        "responses": ids[:, -response:].clone(),
        "response_mask": mask[:, -response:].clone(),
        "advantages": torch.randn(count, response),
    }
    return DataProto(batch=TensorDict(tensors, count), meta_info={"temperature": 1.0})


def run_step(actor: Any, ref: Any, job: dict[str, Any], counters: Counters, seed: int) -> None:
    """What verl's trainer asks of the workers in a step."""
    vocabulary = int(actor.hf_config.vocab_size)
    counters.phase = "rollout"
    counters.read("begin")
    actor.generate_sequences(prompts(job["rollout_sequences"], job["prompt"], vocabulary))
    torch.manual_seed(seed)
    data = sequences(job["actor_sequences"], job["prompt"], job["response"], vocabulary)
    counters.phase = "log_prob"
    counters.read("begin")
    old = actor.compute_log_prob(data)
    counters.phase = "ref"
    counters.read("begin")
    reference = ref.compute_ref_log_prob(data)
    data.batch["old_log_probs"] = old.batch["old_log_probs"]
    data.batch["ref_log_prob"] = reference.batch["ref_log_prob"]
    data.meta_info |= {"temperature": 1.0, "global_token_num": [job["prompt"] + job["response"]] * len(data)}
    counters.phase = "update"
    counters.read("begin")
    actor.update_actor(data)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_megatron_trainer", overrides=job["overrides"]).actor_rollout_ref
    torch.manual_seed(1)
    counters = Counters()
    for name in LOADS:
        counters.read_after(megatron_workers, name)
    worker = megatron_workers.ActorRolloutRefWorker
    actor, ref = worker(config, role="actor_rollout"), worker(config, role="ref")
    ref.init_model()
    actor.init_model()
    for name in ("resume", "update_weights", "release"):
        counters.read_around_async(actor.rollout, name)
    counters.read_after(actor.actor_optimizer, "step")
    # The second step starts from what the first one has left behind.
    for number in range(2):
        run_step(actor, ref, job, counters, seed=number)
    core = actor.rollout.inference_engine.llm_engine.engine_core.engine_core
    result = {"points": counters.points, "kv_blocks": core.scheduler.kv_cache_config.num_blocks}
    Path(f"{job['out']}.{os.environ['RANK']}.json").write_text(json.dumps(result))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
